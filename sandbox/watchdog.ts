/** Asks the supervisor for a sign of life: often while something is awaited of it, seldom else, so that it knows of us. */
export interface Watchdog {
  heard(n: number): void
  /** Looks closely until the promise settles. */
  watch: <T>(work: Promise<T>) => Promise<T>
  stop(): void
}

export interface WatchdogOptions {
  ping: (n: number) => void
  onSilence: () => void
}

const TICK_MS = 1000
const SILENT_TICKS = 5
const IDLE_TICKS = 20

export function createWatchdog({ ping, onSilence }: WatchdogOptions): Watchdog {
  let watched = 0
  let sent = 0
  let answered = 0
  let silentTicks = 0
  let idleTicks = 0

  // Ticks, not times: where it is we who were stopped, the answers are read before the next tick.
  function tick(): void {
    if (sent > answered) {
      silentTicks += 1
      if (silentTicks >= SILENT_TICKS) onSilence()
      return
    }
    silentTicks = 0
    idleTicks += 1
    if (watched === 0 && idleTicks < IDLE_TICKS) return
    idleTicks = 0
    sent += 1
    ping(sent)
  }

  const timer = setInterval(tick, TICK_MS)
  timer.unref()

  return {
    heard(n) {
      answered = n
    },
    async watch(work) {
      watched += 1
      try {
        return await work
      } finally {
        watched -= 1
      }
    },
    stop: () => clearInterval(timer),
  }
}
