import type { StoredEvent } from '../wire/events.ts'

/** How far the log of a run has come, and what is left of it. */
export interface LogState {
  last_seq: number
  /** When its run ended; null while it goes on. */
  closed_at: Date | null
  /** `objects`: its deltas have been removed (store/event-retention.ts). */
  holds: 'all' | 'objects' | 'nothing'
}

/** Why nothing more comes: all has been read, or what is left unread has been removed, or the run itself has. */
export type LogEnd = 'over' | 'pruned' | 'gone'

/** A reader that is slow keeps this much in memory; past it, it reads the table when its turn comes. */
const mostQueuedChars = 1_000_000

/**
 * The place of one reader in one log: what it has, what is waiting for it, and whether it must look into the table. What is
 * offered has been committed before, so whoever must look need not keep it.
 */
export class Follower {
  mustLook: boolean
  /** The number of the last event that the reader was given. */
  private last: number
  /** Whether there was a stream: one that is followed from before its run exists has none yet. */
  private hasBegun: boolean
  private isLooking = false
  private queue: StoredEvent[] = []
  private queuedChars = 0
  private onMore = (): void => {}

  constructor(after: number, { fresh }: { fresh: boolean }) {
    this.last = after
    this.mustLook = !fresh
    this.hasBegun = !fresh
  }

  /** Takes events as they come about. */
  offer(events: StoredEvent[]): void {
    for (const event of events) {
      if (this.mustLook) return
      const end = this.end()
      if (event.seq <= end) continue
      // What lies between is in what the look brings: the first may be any. Else a long look would never end in the live stream.
      const continues = event.seq === end + 1 || (this.isLooking && this.queue.length === 0)
      if (!continues || this.queuedChars > mostQueuedChars) return this.look()
      this.queue.push(event)
      this.queuedChars += event.data.length
    }
    this.onMore()
  }

  /** Something may have been missed. */
  look(): void {
    this.mustLook = true
    this.keep([])
    this.onMore()
  }

  /** Compares with how far the log is; undefined where there is none. */
  check(state: Pick<LogState, 'last_seq' | 'closed_at'> | undefined): void {
    const isSettled = state ? !state.closed_at && state.last_seq <= this.end() : !this.hasBegun
    if (!isSettled) this.look()
  }

  /** The number after which the table is to be read now. */
  startLook(): number {
    this.mustLook = false
    this.isLooking = true
    return this.last
  }

  /** Takes what was read. `isCut`: the table may hold more. */
  accept(read: StoredEvent[], isCut: boolean): void {
    this.isLooking = false
    this.hasBegun ||= read.length > 0
    this.last = read.at(-1)?.seq ?? this.last
    this.keep(this.queue.filter(({ seq }) => seq > this.last))
    const [first] = this.queue
    if (isCut || (first && first.seq !== this.last + 1)) this.look()
  }

  take(): StoredEvent[] {
    const events = this.queue
    this.hasBegun ||= events.length > 0
    this.last = this.end()
    this.keep([])
    return events
  }

  /** Whether anything more can come, once a look has found nothing. */
  endIn(state: LogState | undefined): LogEnd | undefined {
    if (!state) return this.hasBegun ? 'gone' : undefined
    if (!state.closed_at) return undefined
    if (this.last >= state.last_seq) return 'over'
    return state.holds === 'nothing' ? 'pruned' : undefined
  }

  async waitForMore(): Promise<void> {
    if (this.queue.length > 0 || this.mustLook) return
    await new Promise<void>((resolve) => (this.onMore = resolve))
  }

  /** Ends the waiting. */
  wake(): void {
    this.onMore()
  }

  private end(): number {
    return this.queue.at(-1)?.seq ?? this.last
  }

  private keep(queue: StoredEvent[]): void {
    this.queue = queue
    this.queuedChars = queue.reduce((sum, { data }) => sum + data.length, 0)
  }
}

/** The place in `events` where numbers are missing between them, or between them and `after`; -1 where none are. */
export function gapIn(events: StoredEvent[], after: number): number {
  return events.findIndex(({ seq }, index) => seq !== after + index + 1)
}
