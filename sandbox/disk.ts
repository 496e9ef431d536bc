/** Looks at what a directory holds while code may run: a bind mount has no quota, and limits of processes are per file. */
export interface DiskWatch {
  /** Resolves when it is known what was there at first; what comes then is growth. */
  readonly ready: Promise<void>
  isFull(): boolean
  /** What the last look found; undefined before there was one. */
  last(): Measured | undefined
  stop(): void
}

export interface Measured {
  used: number
  /** Of it, what the host had put there by then. */
  given: number
}

export interface DiskWatchOptions {
  /** What an earlier watch has found a moment ago, in place of a first look: what came since is growth as well. */
  known?: Measured | undefined
  usedBytes: () => Promise<number>
  /** What of it, at most, is not the code's: the sum of all that the host has put there. */
  givenBytes: () => number
  /** For what the code adds. */
  limitBytes: number
  intervalMs: number
  /** Called once, when there is more than the limit and more than at first. Who begins over the limit may make room. */
  onFull: () => void
}

/** A look takes no more than a tenth of the time, however many files there are, and less while nothing changes. */
const REST_FACTOR = 9
const QUIET_REST_FACTOR = 29
/** Honest code rarely moves a directory at the moment in which it is looked at. */
const MOST_FAILURES = 20

export function watchDisk(options: DiskWatchOptions): DiskWatch {
  const { usedBytes, givenBytes, limitBytes, intervalMs, onFull } = options
  const stopping = new AbortController()
  let isFull = false
  let failures = 0
  let lastUsed: number | undefined
  let timer: NodeJS.Timeout | undefined
  let first: Measured = options.known ?? { used: 0, given: 0 }
  let last = options.known

  async function begin(): Promise<void> {
    if (options.known) return lookIn(intervalMs)
    const given = givenBytes()
    await look((used) => {
      first = { used, given }
    })
  }

  async function look(onUsed: (used: number) => void): Promise<void> {
    const startedAt = performance.now()
    // What cannot be looked at now may be later: strangers' code is changing it.
    const used = await usedBytes().catch(() => undefined)
    if (stopping.signal.aborted) return
    const restFactor = used === lastUsed ? QUIET_REST_FACTOR : REST_FACTOR
    lastUsed = used
    failures = used === undefined ? failures + 1 : 0
    if (used !== undefined) last = { used, given: givenBytes() }
    if (used !== undefined) onUsed(used)
    else if (failures > MOST_FAILURES) fill()
    if (isFull) return
    const tookMs = performance.now() - startedAt
    lookIn(Math.max(intervalMs, tookMs * restFactor))
  }

  function lookIn(ms: number): void {
    timer = setTimeout(() => void look(fillIfOver), ms).unref()
  }

  function fillIfOver(used: number): void {
    // Known only now, so that what is given during a look is not taken for the code's.
    const given = givenBytes()
    const most = Math.max(limitBytes + given, first.used + given - first.given)
    if (used > most) fill()
  }

  function fill(): void {
    isFull = true
    onFull()
  }

  return {
    ready: begin(),
    isFull: () => isFull,
    last: () => last,
    stop() {
      stopping.abort()
      clearTimeout(timer)
    },
  }
}
