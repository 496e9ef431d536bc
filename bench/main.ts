import { latency } from './latency.ts'
import { lists } from './lists.ts'
import { parked } from './parked.ts'
import { runs } from './runs.ts'
import { sandbox } from './sandbox.ts'
import { streams } from './streams.ts'

/**
 * `npm run bench -- <name> [options]`: measurements that anybody can repeat. Each starts what it
 * needs, prints tables with its limits beside the numbers, and leaves nothing behind.
 */
const benchmarks: Record<string, (args: string[], stop: AbortSignal) => Promise<void>> = {
  latency,
  lists,
  runs,
  parked,
  streams,
  sandbox,
}

const [name = '', ...args] = process.argv.slice(2)
const benchmark = benchmarks[name]
if (!benchmark) {
  process.stderr.write(`npm run bench -- ${Object.keys(benchmarks).join('|')} [options]\n`)
  process.exit(2)
}

try {
  await benchmark(args, stopSignal())
  process.exit(0)
} catch (error) {
  process.stderr.write(
    `\n${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`,
  )
  process.exit(1)
}

/** The first Ctrl-C ends what was started, in order; a second one does not wait. */
function stopSignal(): AbortSignal {
  const stop = new AbortController()
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(name, () => {
      if (stop.signal.aborted) process.exit(130)
      stop.abort(new Error(`Stopped by ${name}.`))
    })
  }
  return stop.signal
}
