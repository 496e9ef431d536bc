import { pino, type Logger } from 'pino'

export type { Logger }

/** The only logger. Child fields are `request_id` and `run_id`; the content of messages is never logged. */
export function createLogger(level: string): Logger {
  return pino({
    level,
    base: undefined,
    timestamp: pino.stdTimeFunctions.isoTime,
    redact: ['authorization', 'apiKey', '*.authorization', '*.apiKey'],
  })
}
