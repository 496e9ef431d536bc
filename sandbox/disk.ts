/** Looks at what a directory holds while code runs: a bind mount has no quota, and limits of processes are per file. */
export interface DiskWatch {
  isFull(): boolean
  stop(): void
}

export interface DiskWatchOptions {
  usedBytes: () => Promise<number>
  limitBytes: number
  /** Called once. */
  onFull: () => void
}

const INTERVAL_MS = 250
/** A look takes no more than a tenth of the time, however many files there are. */
const REST_FACTOR = 9

export function watchDisk({ usedBytes, limitBytes, onFull }: DiskWatchOptions): DiskWatch {
  let isFull = false
  let isStopped = false
  /** What was there at the first look: a cell that begins over the limit is the one that may make room. */
  let mostBytes: number | undefined

  async function look(): Promise<void> {
    const startedAt = performance.now()
    // What cannot be looked at now may be later: strangers' code is changing it.
    const bytes = await usedBytes().catch(() => 0)
    if (isStopped) return
    mostBytes ??= Math.max(limitBytes, bytes)
    if (bytes > mostBytes) {
      isFull = true
      onFull()
      return
    }
    const tookMs = performance.now() - startedAt
    timer = lookIn(Math.max(INTERVAL_MS, tookMs * REST_FACTOR))
  }

  const lookIn = (ms: number): NodeJS.Timeout => setTimeout(() => void look(), ms)
  let timer = lookIn(0)

  return {
    isFull: () => isFull,
    stop() {
      isStopped = true
      clearTimeout(timer)
    },
  }
}
