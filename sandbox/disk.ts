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
  let timer = setTimeout(look, INTERVAL_MS)
  let isStopped = false

  function look(): void {
    const startedAt = performance.now()
    void usedBytes().then((bytes) => {
      if (isStopped) return
      if (bytes > limitBytes) {
        isFull = true
        onFull()
        return
      }
      const tookMs = performance.now() - startedAt
      timer = setTimeout(look, Math.max(INTERVAL_MS, tookMs * REST_FACTOR))
    })
  }

  return {
    isFull: () => isFull,
    stop() {
      isStopped = true
      clearTimeout(timer)
    },
  }
}
