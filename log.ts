import { pino, type Logger } from 'pino'

export type { Logger }

/** The only logger. Child fields are `request_id` and `run_id`; the content of messages is never logged. */
export function createLogger(level: string): Logger {
  return pino({
    level,
    base: undefined,
    timestamp: pino.stdTimeFunctions.isoTime,
    serializers: { err: describe },
    redact: ['authorization', 'apiKey', '*.authorization', '*.apiKey'],
  })
}

/** What is said of an error. Errors of the database carry the statement's values, which are people's messages: left out. */
function describe(error: unknown): unknown {
  if (!(error instanceof Error)) return String(error)
  const { name, message, stack, cause } = error
  const code = 'code' in error ? error.code : undefined
  return {
    type: name,
    message,
    code,
    stack,
    ...(cause !== undefined && { cause: describe(cause) }),
  }
}
