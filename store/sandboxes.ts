import type { Db } from './db.ts'
import type { SandboxHostRow, SandboxHostState, SandboxSessionRow } from './rows.ts'

/** Which process runs a thread's code. Any number of them share the load; a thread stays where its variables are. */
export interface Sandboxes {
  /** Says that this host is there; to be repeated well within `hostSilenceMs`. */
  report(host: Omit<SandboxHostRow, 'heartbeat_at'>): Promise<void>
  /** Takes the host out: its threads go elsewhere. */
  leave(hostId: string): Promise<void>
  /**
   * The host of the thread's code: the one that it has, or else the one with the most room. `self` is preferred among equals;
   * those in `avoid` were just lost, and are taken only where there is no other.
   */
  lease(threadId: string, options: { self: string | undefined; avoid: string[] }): Promise<Lease>
  /**
   * A new sandbox of the thread on this host, in place of all before; `lostState` tells whether an earlier one had variables,
   * again and again until code is `used` in the new one. Undefined where the thread is gone or leased to another.
   */
  begin(
    threadId: string,
    hostId: string,
  ): Promise<{ generation: number; lostState: boolean } | undefined>
  /** Notes that code is about to run; false where the sandbox is not the thread's any more. */
  use(session: OfThread & { hostId: string }): Promise<boolean>
  /** The sandbox is gone; a later one of the thread is left alone. */
  end(session: OfThread & { hostId: string }): Promise<void>
  /** Gives back the threads that a host has leased and made no sandbox for: all but these, once they are a minute old. */
  release(hostId: string, threadIds: string[]): Promise<void>
  /** Of these sandboxes of a host, those that are still their threads'. */
  stillHeld(hostId: string, sessions: OfThread[]): Promise<Set<string>>
  /** What the hosts say that are there. */
  hosts(): Promise<SandboxHostRow[]>
  /** Forgets hosts that have been silent for long. */
  sweep(): Promise<void>
}

export interface OfThread {
  threadId: string
  generation: number
}

/** `none` says what those that are there wait for or why they cannot; it is empty where there are none. */
export type Lease = { hostId: string } | { none: SandboxHostState[] }

/** A host that has not been heard of for this long is gone. */
export const hostSilenceMs = 10_000

/** Of a row of sandbox_hosts. */
export const isAlive = `heartbeat_at > now() - interval '${hostSilenceMs} milliseconds'`

export function createSandboxes(db: Db): Sandboxes {
  return {
    async report({ id, capacity, state }) {
      await db.sql(
        `INSERT INTO sandbox_hosts (id, capacity, state, heartbeat_at) VALUES ($1, $2, $3, now())
         ON CONFLICT (id) DO UPDATE SET capacity = $2, state = $3, heartbeat_at = now()`,
        [id, capacity, JSON.stringify(state)],
      )
    },
    async leave(hostId) {
      await db.sql('DELETE FROM sandbox_hosts WHERE id = $1', [hostId])
    },
    lease: (threadId, { self, avoid }) =>
      db.tx(async (tx) => {
        await tx.sql(
          `INSERT INTO sandbox_sessions (thread_id, last_used_at) SELECT id, now() FROM threads WHERE id = $1
           ON CONFLICT DO NOTHING`,
          [threadId],
        )
        const [session] = await tx.sql<SandboxSessionRow & { is_alive: boolean | null }>(
          `SELECT s.*, h.${isAlive} AND h.state ->> 'kind' = 'ready' AS is_alive FROM sandbox_sessions s
           LEFT JOIN sandbox_hosts h ON h.id = s.host_id WHERE s.thread_id = $1 FOR UPDATE OF s`,
          [threadId],
        )
        const holder = session?.is_alive ? session.host_id : null
        if (holder !== null && !avoid.includes(holder)) return { hostId: holder }
        const [host] = await tx.sql<Pick<SandboxHostRow, 'id'>>(
          `SELECT h.id FROM sandbox_hosts h
           LEFT JOIN LATERAL (SELECT count(*) AS n FROM sandbox_sessions s WHERE s.host_id = h.id) u ON true
           WHERE h.${isAlive} AND h.state ->> 'kind' = 'ready'
           ORDER BY h.id = ANY ($1::text[]), u.n >= h.capacity, h.id <> coalesce($2, ''), u.n::real / h.capacity, h.id
           LIMIT 1`,
          [avoid, self ?? null],
        )
        if (!host) {
          const there = await tx.sql<Pick<SandboxHostRow, 'state'>>(
            `SELECT state FROM sandbox_hosts WHERE ${isAlive}`,
          )
          return { none: there.map(({ state }) => state) }
        }
        await tx.sql(
          'UPDATE sandbox_sessions SET host_id = $2, last_used_at = now() WHERE thread_id = $1',
          [threadId, host.id],
        )
        return { hostId: host.id }
      }),
    async begin(threadId, hostId) {
      const [begun] = await db.sql<{ generation: number; lost_state: boolean }>(
        `UPDATE sandbox_sessions SET generation = generation + 1, last_used_at = now()
         WHERE thread_id = $1 AND host_id = $2 RETURNING generation, has_state AS lost_state`,
        [threadId, hostId],
      )
      return begun && { generation: begun.generation, lostState: begun.lost_state }
    },
    async use({ threadId, hostId, generation }) {
      const [held] = await db.sql(
        `UPDATE sandbox_sessions SET has_state = true, last_used_at = now()
         WHERE thread_id = $1 AND host_id = $2 AND generation = $3 RETURNING thread_id`,
        [threadId, hostId, generation],
      )
      return held !== undefined
    },
    async end({ threadId, hostId, generation }) {
      await db.sql(
        `UPDATE sandbox_sessions SET host_id = NULL WHERE thread_id = $1 AND host_id = $2 AND generation = $3`,
        [threadId, hostId, generation],
      )
    },
    async release(hostId, threadIds) {
      await db.sql(
        `UPDATE sandbox_sessions SET host_id = NULL WHERE host_id = $1 AND thread_id <> ALL ($2::text[])
           AND last_used_at < now() - interval '1 minute'`,
        [hostId, threadIds],
      )
    },
    async stillHeld(hostId, sessions) {
      const rows = await db.sql<{ thread_id: string }>(
        `SELECT s.thread_id FROM sandbox_sessions s
         JOIN unnest($2::text[], $3::integer[]) AS o (thread_id, generation) USING (thread_id, generation)
         WHERE s.host_id = $1`,
        [hostId, sessions.map((one) => one.threadId), sessions.map((one) => one.generation)],
      )
      return new Set(rows.map((row) => row.thread_id))
    },
    hosts: () => db.sql<SandboxHostRow>(`SELECT * FROM sandbox_hosts WHERE ${isAlive} ORDER BY id`),
    async sweep() {
      await db.sql(`DELETE FROM sandbox_hosts WHERE heartbeat_at < now() - interval '1 minute'`)
    },
  }
}
