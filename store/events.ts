import { randomUUID } from 'node:crypto'

import type { Logger } from '../log.ts'
import type { RunEvent, RunEventName, StoredEvent } from '../wire/events.ts'
import type { Db, Tx } from './db.ts'
import { Follower, type LogEnd, type LogState } from './follower.ts'
import { openListener, type Channel } from './listener.ts'
import { patiently } from './patience.ts'

/** The event log of runs: durable, ordered per run, read by any number of followers in any process. */
export interface EventLog extends AsyncDisposable {
  /**
   * Appends within a transaction that holds the run's lock, and gives the number of the last one. Followers hear of it when the transaction commits. After its
   * `last` events nothing can be appended to a stream.
   */
  append(tx: Tx, runId: string, events: RunEvent[], options?: { last: boolean }): Promise<number>
  /** Appends for many runs in a statement of its own; the result says per entry which number it got, if any. */
  appendBatch(entries: BatchEntry[]): Promise<(number | undefined)[]>
  /** The events after number `after`, as they are, a page of them at most; empty where there are none. */
  read(runId: string, after: number): Promise<StoredEvent[]>
  /** The number of the newest event; 0 where there is none. */
  tip(runId: string): Promise<number>
  /** How far the log has come, and what is left of it; undefined where there is none. */
  state(runId: string): Promise<LogState | undefined>
  /**
   * The events after number `after`, then those to come, in batches and in order; without gaps, but for those that were
   * removed from the log of a run that is over. Ends when `signal` aborts, or says why nothing more can come. With `fresh`
   * the caller promises that the run has no event yet.
   */
  follow(
    runId: string,
    after: number,
    options: FollowOptions,
  ): AsyncGenerator<StoredEvent[], LogEnd | undefined>
  /** Has this process's followers of a run look into the log: what it has appended may have been committed unheard. */
  doubt(runId: string): void
  /** Tells the worker that carries out the run, in whatever process it is, to stop at once. */
  tellControl(tx: Tx, runId: string): Promise<void>
  /** Calls `act` when a control message for the run comes, until disposed. */
  onControl(runId: string, act: () => void): Disposable
  connected(): boolean
  /** For how long nothing at all has been heard of Postgres, not even that it is down, in milliseconds. */
  silentMs(): number
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

/** How often the followers of a process are compared with the table: notifications may be lost. */
const safetyPollMs = 2000
const pageSize = 500
/** A page ends with the event that passes this. */
const pageBytes = 1_000_000

export function openEventLog(db: Db, options: { databaseUrl: string; log: Logger }): EventLog {
  // Our own notifications come back to us too: what carries this name has been delivered already.
  const origin = randomUUID().slice(0, 8)
  const followers = new Map<string, Set<Follower>>()
  const controls = new Map<string, Set<() => void>>()

  const deliver = (runId: string, events: StoredEvent[]): void => {
    for (const follower of followers.get(runId) ?? []) follower.offer(events)
  }
  const doubt = (runId: string): void => {
    for (const follower of followers.get(runId) ?? []) follower.look()
  }
  const doubtAll = (): void => {
    for (const runId of followers.keys()) doubt(runId)
  }
  const listener = openListener({
    databaseUrl: options.databaseUrl,
    log: options.log,
    onConnect: doubtAll,
    onSilence: () => db.giveUpConnections(),
    onNotification(channel: Channel, payload: string) {
      if (channel === 'run_control') {
        for (const act of controls.get(payload) ?? []) act()
        return
      }
      // What append_run_events wrote begins like this; to parse it would cost more than all else that is done with it.
      if (payload.startsWith(`["${origin}"`)) return
      const entries = entriesOf(payload)
      if (!entries) {
        options.log.warn('a notification is not ours; the log is read in its place')
        doubtAll()
        return
      }
      for (const [runId, seq, event, data] of entries) {
        if (!followers.has(runId)) continue
        if (event && data !== undefined) deliver(runId, [{ seq, event, data }])
        else doubt(runId)
      }
    },
  })

  let isPolling = false
  const poll = setInterval(() => {
    if (isPolling || followers.size === 0) return
    isPolling = true
    // Who looks when there is no database does so patiently; here there is always a next time.
    compare()
      .catch((error: unknown) => options.log.debug({ err: error }, 'followers were not compared'))
      .finally(() => (isPolling = false))
  }, safetyPollMs)

  async function compare(): Promise<void> {
    const runIds = [...followers.keys()]
    const rows = await db.sql<Pick<LogState, 'last_seq' | 'closed_at'> & { run_id: string }>(
      'SELECT run_id, last_seq, closed_at FROM run_streams WHERE run_id = ANY ($1)',
      [runIds],
    )
    const states = new Map(rows.map((row) => [row.run_id, row]))
    for (const runId of runIds) {
      for (const follower of followers.get(runId) ?? []) follower.check(states.get(runId))
    }
  }

  async function read(runId: string, after: number): Promise<StoredEvent[]> {
    return db.sql<StoredEvent>(
      `SELECT seq, event, data FROM (
         SELECT seq, event, data, sum(octet_length(data)) OVER (ORDER BY seq) - octet_length(data) AS bytes_before
         FROM run_events WHERE run_id = $1 AND seq > $2 ORDER BY seq LIMIT $3
       ) page WHERE bytes_before < $4 ORDER BY seq`,
      [runId, after, pageSize, pageBytes],
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
  async function* batches(
    runId: string,
    follower: Follower,
    signal: AbortSignal,
    leave: () => void,
  ): AsyncGenerator<StoredEvent[], LogEnd | undefined> {
    try {
      while (!signal.aborted) {
        if (follower.mustLook) {
          const after = follower.startLook()
          const page = (await patiently(signal, () => read(runId, after))) ?? []
          follower.accept(page, isCut(page))
          if (page.length > 0) {
            yield page
            continue
          }
          const state = await patiently(signal, () => stateOf(runId))
          if (signal.aborted) break
          const end = follower.endIn(state)
          if (end) return end
          follower.check(state)
        }
        const events = follower.take()
        if (events.length > 0) yield events
        else if (!signal.aborted) await follower.waitForMore()
      }
      return undefined
    } finally {
      leave()
    }
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
      const follower = new Follower(after, { fresh })
      const set = followers.get(runId) ?? new Set()
      followers.set(runId, set.add(follower))
      const leave = (): void => {
        follower.wake()
        set.delete(follower)
        if (set.size === 0 && followers.get(runId) === set) followers.delete(runId)
      }
      signal.addEventListener('abort', leave, { once: true })
      // It may have left by now; a generator that nobody reads from ends nothing.
      if (signal.aborted) leave()
      return batches(runId, follower, signal, leave)
    },
    doubt,
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
    async [Symbol.asyncDispose]() {
      clearInterval(poll)
      await listener[Symbol.asyncDispose]()
    },
  }
}

const appendSql = `SELECT ord, seq FROM append_run_events(
  $1, $2::text[], $3::integer[], $4::integer[], $5::text[], $6::text[], $7::boolean)`

interface Appended {
  ord: number
  seq: number
}

type NotifiedEntry = [runId: string, seq: number, event?: RunEventName, data?: string]

/** Undefined where the payload is not what append_run_events writes: any role may notify on any channel. */
function entriesOf(payload: string): NotifiedEntry[] | undefined {
  try {
    const [, entries] = JSON.parse(payload) as [string, NotifiedEntry[]]
    return entries.every(Array.isArray) ? entries : undefined
  } catch {
    return undefined
  }
}

function isCut(page: StoredEvent[]): boolean {
  const bytes = page.reduce((sum, { data }) => sum + Buffer.byteLength(data), 0)
  return page.length === pageSize || bytes >= pageBytes
}
