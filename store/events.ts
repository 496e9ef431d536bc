import { randomUUID } from 'node:crypto'

import type { Logger } from '../log.ts'
import type { RunEvent, RunEventName, StoredEvent } from '../wire/events.ts'
import { isConnectionError, type Db, type Tx } from './db.ts'
import { openListener, type Channel } from './listener.ts'

/** The event log of runs: durable, ordered per run, read by any number of followers in any process. */
export interface EventLog extends AsyncDisposable {
  /**
   * Appends within a transaction that holds the run's lock, and gives the number of the last one. Followers hear of it when the transaction commits. After its
   * `last` events nothing can be appended to a stream.
   */
  append(tx: Tx, runId: string, events: RunEvent[], options?: { last: boolean }): Promise<number>
  /** Appends for many runs in a statement of its own; the result says per entry which number it got, if any. */
  appendBatch(entries: BatchEntry[]): Promise<(number | undefined)[]>
  /** The events after number `after`, as they are; empty where there are none. */
  read(runId: string, after: number, limit?: number): Promise<StoredEvent[]>
  /** The number of the newest event; 0 where there is none. */
  tip(runId: string): Promise<number>
  /** How far the log has come, and what is left of it; undefined where there is none. */
  state(runId: string): Promise<LogState | undefined>
  /**
   * The events after number `after`, then those to come, in batches, without gaps and in order. Ends when `signal` aborts
   * or the run is deleted;
   * the caller decides which event is its last. With `fresh` the caller promises that the run has no event yet.
   */
  follow(runId: string, after: number, options: FollowOptions): AsyncGenerator<StoredEvent[]>
  /** Tells the worker that carries out the run, in whatever process it is, to stop at once. */
  tellControl(tx: Tx, runId: string): Promise<void>
  /** Calls `act` when a control message for the run comes, until disposed. */
  onControl(runId: string, act: () => void): Disposable
  connected(): boolean
  /** For how long nothing at all has been heard of Postgres, not even that it is down, in milliseconds. */
  silentMs(): number
}

export interface LogState {
  last_seq: number
  /** When its run ended; null while it goes on. */
  closed_at: Date | null
  /** `objects`: its deltas have been removed (store/event-retention.ts). */
  holds: 'all' | 'objects' | 'nothing'
}

export interface FollowOptions {
  signal: AbortSignal
  fresh?: boolean
}

/** An event of a model turn: written only while the turn's fence is still this one. */
export interface BatchEntry {
  runId: string
  turn: number
  fence: number
  event: RunEventName
  data: string
}

/** A follower that reads too slowly keeps this much in memory; past it, it reads the table when its turn comes. */
const bufferedChars = 1_000_000
/** How long a follower trusts the silence of the listener before it looks into the table. */
const safetyPollMs = 2000
const readAgainMs = 250
const pageSize = 500

export function openEventLog(db: Db, options: { databaseUrl: string; log: Logger }): EventLog {
  // Our own notifications come back to us too: what carries this name has been delivered already.
  const origin = randomUUID().slice(0, 8)
  const followers = new Map<string, Set<Follower>>()
  const controls = new Map<string, Set<() => void>>()

  const deliver = (runId: string, events: StoredEvent[]): void => {
    for (const follower of followers.get(runId) ?? []) follower.offer(events)
  }
  const listener = openListener({
    databaseUrl: options.databaseUrl,
    log: options.log,
    onConnect: () => {
      for (const set of followers.values()) for (const follower of set) follower.look()
    },
    onSilence: () => db.giveUpConnections(),
    onNotification(channel: Channel, payload: string) {
      if (channel === 'run_control') {
        for (const act of controls.get(payload) ?? []) act()
        return
      }
      // The payload is what append_run_events wrote.
      const [from, entries] = JSON.parse(payload) as [string, NotifiedEntry[]]
      if (from === origin) return
      for (const [runId, seq, event, data] of entries) {
        if (!followers.has(runId)) continue
        if (event && data !== undefined) deliver(runId, [{ seq, event, data }])
        else for (const follower of followers.get(runId) ?? []) follower.look()
      }
    },
  })

  async function read(runId: string, after: number, limit = pageSize): Promise<StoredEvent[]> {
    return db.sql<StoredEvent>(
      'SELECT seq, event, data FROM run_events WHERE run_id = $1 AND seq > $2 ORDER BY seq LIMIT $3',
      [runId, after, limit],
    )
  }

  async function stateOf(runId: string): Promise<LogState | undefined> {
    const [state] = await db.sql<LogState>(
      'SELECT last_seq, closed_at, holds FROM run_streams WHERE run_id = $1',
      [runId],
    )
    return state
  }

  /** A follower outlives its Postgres: it reads where it stopped once there is one again. */
  async function readPatiently(
    runId: string,
    after: number,
    signal: AbortSignal,
  ): Promise<StoredEvent[]> {
    while (!signal.aborted) {
      try {
        return await read(runId, after)
      } catch (error) {
        if (!isConnectionError(error)) throw error
        await new Promise((resolve) => setTimeout(resolve, readAgainMs))
      }
    }
    return []
  }

  return {
    read,
    async append(tx, runId, events, { last } = { last: false }) {
      const rows = await tx.sql<Appended>(appendSql, [
        origin,
        events.map(() => runId),
        events.map(() => null),
        events.map(() => null),
        events.map(({ event }) => event),
        events.map(({ data }) => data),
        last,
      ])
      if (rows.length < events.length) throw new Error(`The stream of ${runId} is closed or gone`)
      const stored = rows.map(({ ord, seq }) => ({ seq, ...(events[ord - 1] as RunEvent) }))
      tx.afterCommit(() => deliver(runId, stored))
      return stored.at(-1)?.seq ?? 0
    },
    async appendBatch(entries) {
      const rows = await db.sql<Appended>(appendSql, [
        origin,
        entries.map(({ runId }) => runId),
        entries.map(({ turn }) => turn),
        entries.map(({ fence }) => fence),
        entries.map(({ event }) => event),
        entries.map(({ data }) => data),
        false,
      ])
      const seqs: (number | undefined)[] = entries.map(() => undefined)
      for (const { ord, seq } of rows) {
        const { runId, event, data } = entries[ord - 1] as BatchEntry
        seqs[ord - 1] = seq
        deliver(runId, [{ seq, event, data }])
      }
      return seqs
    },
    follow(runId, after, { signal, fresh = false }) {
      // Subscribed here and not at the first read: whoever starts a run follows it before its first event.
      const follower = new Follower(after, !fresh)
      const set = followers.get(runId) ?? new Set()
      followers.set(runId, set.add(follower))
      const leave = (): void => {
        follower.wake()
        set.delete(follower)
        if (set.size === 0 && followers.get(runId) === set) followers.delete(runId)
      }
      signal.addEventListener('abort', leave, { once: true })
      const exists = async (): Promise<boolean> => {
        const [row] = await db.sql('SELECT 1 FROM run_streams WHERE run_id = $1', [runId])
        return row !== undefined
      }
      const source = { readAfter: (from: number) => readPatiently(runId, from, signal), exists }
      return batches(follower, source, signal, leave)
    },
    tip: async (runId) => (await stateOf(runId))?.last_seq ?? 0,
    state: stateOf,
    async tellControl(tx, runId) {
      await tx.sql(`SELECT pg_notify('run_control', $1)`, [runId])
    },
    onControl(runId, act) {
      const set = controls.get(runId) ?? new Set()
      controls.set(runId, set.add(act))
      return {
        [Symbol.dispose]() {
          set.delete(act)
          if (set.size === 0 && controls.get(runId) === set) controls.delete(runId)
        },
      }
    },
    connected: () => listener.connected(),
    silentMs: () => listener.silentMs(),
    [Symbol.asyncDispose]: () => listener[Symbol.asyncDispose](),
  }
}

async function* batches(
  follower: Follower,
  source: { readAfter(seq: number): Promise<StoredEvent[]>; exists(): Promise<boolean> },
  signal: AbortSignal,
  leave: () => void,
): AsyncGenerator<StoredEvent[]> {
  try {
    while (!signal.aborted) {
      const looks = follower.mustLook
      const events = looks
        ? follower.accept(await source.readAfter(follower.startLook()))
        : follower.take()
      if (events.length > 0) yield events
      // Its thread was deleted: nothing will come any more. A run that is being created is not there yet.
      else if (looks && follower.hasBegun && !(await source.exists())) return
      else if (!follower.mustLook && !signal.aborted) await follower.waitForMore(safetyPollMs)
    }
  } finally {
    leave()
  }
}

const appendSql = `SELECT ord, seq FROM append_run_events(
  $1, $2::text[], $3::integer[], $4::integer[], $5::text[], $6::text[], $7::boolean)`

interface Appended {
  ord: number
  seq: number
}

type NotifiedEntry = [runId: string, seq: number, event?: RunEventName, data?: string]

/** The place of one reader in one log: what it has, what is waiting for it, and whether it must look into the table. */
class Follower {
  mustLook: boolean
  /** Whether there was a stream: one that is followed from before its run exists has none yet. */
  hasBegun: boolean
  private last: number
  private queue: StoredEvent[] = []
  private queuedChars = 0
  private wakeUp: (() => void) | undefined

  constructor(after: number, mustLook: boolean) {
    this.last = after
    this.mustLook = mustLook
    this.hasBegun = mustLook
  }

  offer(events: StoredEvent[]): void {
    for (const event of events) {
      const end = this.queue.at(-1)?.seq ?? this.last
      if (event.seq <= end) continue
      if (event.seq > end + 1 || this.queuedChars > bufferedChars) {
        this.look()
        return
      }
      this.queue.push(event)
      this.queuedChars += event.data.length
    }
    this.wake()
  }

  look(): void {
    this.mustLook = true
    this.wake()
  }

  wake(): void {
    this.wakeUp?.()
  }

  /** From here on whatever is offered is newer than the read that begins now, or is in it. */
  startLook(): number {
    this.mustLook = false
    return this.last
  }

  accept(read: StoredEvent[]): StoredEvent[] {
    this.last = read.at(-1)?.seq ?? this.last
    if (read.length === pageSize) this.mustLook = true
    this.queue = this.queue.filter(({ seq }) => seq > this.last)
    this.queuedChars = this.queue.reduce((sum, { data }) => sum + data.length, 0)
    // What was queued behind a gap that the read did not close is in the table too.
    if (this.queue[0] && this.queue[0].seq !== this.last + 1) {
      this.queue = []
      this.queuedChars = 0
      this.mustLook = true
    }
    return read
  }

  take(): StoredEvent[] {
    const events = this.queue
    this.queue = []
    this.queuedChars = 0
    this.last = events.at(-1)?.seq ?? this.last
    this.hasBegun ||= events.length > 0
    return events
  }

  async waitForMore(timeoutMs: number): Promise<void> {
    if (this.queue.length > 0 || this.mustLook) return
    await new Promise<void>((resolve) => {
      const timer = setTimeout(() => {
        this.mustLook = true
        resolve()
      }, timeoutMs)
      this.wakeUp = () => {
        clearTimeout(timer)
        resolve()
      }
    })
    this.wakeUp = undefined
  }
}
