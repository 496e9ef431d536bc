import type { Db } from './db.ts'

/** Requests that carry an `Idempotency-Key`, and what was answered to them. Kept for a day. */
export interface Idempotency {
  /** Takes the key for this request. `first`: carry it out and `keep` or `forget`; else somebody has had it before. */
  take(projectId: string, key: string, requestHash: Buffer): Promise<Taken>
  keep(projectId: string, key: string, answer: Answer): Promise<void>
  forget(projectId: string, key: string): Promise<void>
  /** Removes what is older than a day. */
  sweep(): Promise<void>
}

export interface Answer {
  status: number
  body: string
}

export type Taken =
  | { kind: 'first' }
  | { kind: 'running' }
  | { kind: 'answered'; answer: Answer }
  | { kind: 'other request' }

/** A request whose process died in the middle is not waited for longer than this. */
const abandonedAfter = '5 minutes'

export function createIdempotency(db: Db): Idempotency {
  return {
    async take(projectId, key, requestHash) {
      const [mine] = await db.sql(
        `INSERT INTO idempotency_keys (project_id, key, request_hash) VALUES ($1, $2, $3)
         ON CONFLICT (project_id, key) DO UPDATE SET created_at = now()
           WHERE idempotency_keys.status IS NULL
             AND idempotency_keys.created_at < now() - interval '${abandonedAfter}'
             AND idempotency_keys.request_hash = excluded.request_hash
         RETURNING key`,
        [projectId, key, requestHash],
      )
      if (mine) return { kind: 'first' }
      const [row] = await db.sql<{ request_hash: Buffer; status: number | null; body: string }>(
        'SELECT request_hash, status, body FROM idempotency_keys WHERE project_id = $1 AND key = $2',
        [projectId, key],
      )
      if (!row) return { kind: 'running' }
      if (!row.request_hash.equals(requestHash)) return { kind: 'other request' }
      if (row.status === null) return { kind: 'running' }
      return { kind: 'answered', answer: { status: row.status, body: row.body } }
    },
    async keep(projectId, key, { status, body }) {
      await db.sql(
        'UPDATE idempotency_keys SET status = $3, body = $4 WHERE project_id = $1 AND key = $2',
        [projectId, key, status, body],
      )
    },
    async forget(projectId, key) {
      await db.sql('DELETE FROM idempotency_keys WHERE project_id = $1 AND key = $2', [
        projectId,
        key,
      ])
    },
    async sweep() {
      await db.sql(`DELETE FROM idempotency_keys WHERE created_at < now() - interval '1 day'`)
    },
  }
}
