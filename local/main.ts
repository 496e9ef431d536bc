import { loadConfig } from '../config.ts'
import { createLogger } from '../log.ts'
import { installRuntime } from '../worker/index.ts'
import { startParts } from './parts.ts'
import { readyLines } from './ready-lines.ts'
import { serve } from './serve.ts'

/** `npm start`: everything that is not named by a URL, and the role that `ROLE` gives this process. */
async function main(): Promise<void> {
  const began = performance.now()
  const stop = stopSignal()
  const config = loadConfig(process.env)
  const log = createLogger(config.logLevel)
  installRuntime(log)

  await using stack = new AsyncDisposableStack()
  const parts = stack.use(await startParts(config, process.env, log, say))
  if (stop.aborted) return
  const serving = stack.use(await serve(config, parts.outside, log))
  const patience = setTimeout(
    () =>
      say(
        `Temporal at ${parts.outside.temporalAddress} does not answer yet (TEMPORAL_ADDRESS). ` +
          `Runs are accepted meanwhile${serving.url ? ` at ${serving.url}` : ''}, and start when it does.`,
      ),
    temporalPatienceMs,
  )
  await Promise.race([serving.working, aborted(stop)])
  clearTimeout(patience)
  if (stop.aborted) return

  const tookS = (performance.now() - began) / 1000
  for (const line of readyLines({ config, parts, serving, tookS })) say(line)
  await aborted(stop)
  say('Stopping: streams are closed, runs go on at the next start.')
}

const impatienceMs = 500
const temporalPatienceMs = 5000

function say(line: string): void {
  process.stdout.write(`${line}\n`)
}

/** Ctrl-C, a polite kill, or the end of the process that started us. A second Ctrl-C does not wait. */
function stopSignal(): AbortSignal {
  const stop = new AbortController()
  let stoppingSince = 0
  const onSignal = (): void => {
    // A signal to the whole process group can arrive twice; impatience takes longer.
    if (stop.signal.aborted && performance.now() - stoppingSince > impatienceMs) process.exit(130)
    if (stop.signal.aborted) return
    stoppingSince = performance.now()
    stop.abort()
  }
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(name, onSignal)
  process.on('disconnect', () => stop.abort())
  return stop.signal
}

async function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return
  await new Promise<void>((resolve) =>
    signal.addEventListener('abort', () => resolve(), { once: true }),
  )
}

try {
  await main()
  process.exit(0)
} catch (error) {
  // What a reader can mend is told without a stack; the cause is ours to read.
  process.stderr.write(`\n${error instanceof Error ? error.message : String(error)}\n`)
  if (error instanceof Error && error.cause instanceof Error) {
    process.stderr.write(`Cause: ${error.cause.message}\n`)
  }
  process.exit(1)
}
