import { randomUUID } from 'node:crypto'

import type { Db } from './db.ts'

/**
 * Requests that may come again, and what was answered to them: for a day under an `Idempotency-Key`, for two minutes where a
 * client only says that it repeats itself.
 *
 * A request is written down before it is carried out, and its answer afterwards. Both say `synchronous_commit = off`, which
 * saves the wait for the disk and loses nothing: the commit of what the request makes comes later in the same log, so
 * that a run is never durable without the memory of its request. Where the process dies between the two, or an answer is
 * a 5xx, `id` is what is left: the ids of objects are derived from it, so that carrying the request out again finds them.
 */
export interface Idempotency extends AsyncDisposable {
  /** Takes the request to be carried out, unless somebody has it in hand or has answered it. */
  take(request: GivenRequest): Promise<Taken>
  /** What was answered to a request that was taken. */
  keep(work: Work, answer: Answer): Promise<void>
  /** It was refused and has changed nothing: it is free to come again, with another body too. */
  forget(work: Work): Promise<void>
  /** It is not known what was done: it may come again, and is carried out under the same id. */
  release(work: Work): Promise<void>
  /** Removes what is too old to be asked for; the places of deleted objects, too. */
  sweep(): Promise<void>
}

export interface GivenRequest {
  projectId: string
  /** The `Idempotency-Key`; null without one. */
  key: string | null
  /** Of all that makes it the same request. */
  hash: Buffer
  /** Whether the client says that it has sent it before; with a key that does not matter. */
  isRetry: boolean
  /**
   * A thread in which the request made a message or a run. Without a key it is a new request where that is gone, or something
   * came after it: a user may well say the same twice.
   */
  newestOf: string | null
}

/** A request that the caller carries out. `isRepeated` where an earlier attempt may have come to its end unheard. */
export interface Work {
  id: string
  attempt: number
  isRepeated: boolean
}

export interface Answer {
  status: number
  body: string
}

export type Taken =
  | { kind: 'mine'; work: Work }
  | { kind: 'running' }
  | { kind: 'answered'; answer: Answer }
  | { kind: 'other request' }

/** A process says this often that it is still at work on its requests; most are done long before the first time. */
const aliveMs = 2000
/** A request of which nothing was heard for this long was in a process that died. */
const abandonedAfter = '10 seconds'
const keptWithKey = '1 day'
const keptWithoutKey = '2 minutes'

export function createIdempotency(db: Db): Idempotency {
  const working = new Map<string, Work>()
  let timer: NodeJS.Timeout | undefined

  const mine = (id: string, attempt: number): Taken => {
    const work = { id, attempt, isRepeated: attempt > 1 }
    working.set(id, work)
    timer ??= setInterval(() => void sayAlive(), aliveMs)
    return { kind: 'mine', work }
  }
  const done = ({ id }: Work): void => {
    working.delete(id)
    if (working.size > 0) return
    clearInterval(timer)
    timer = undefined
  }
  async function sayAlive(): Promise<void> {
    const works = [...working.values()]
    await db
      .sql(
        `UPDATE requests r SET alive_at = now() FROM unnest($1::uuid[], $2::integer[]) AS w (id, attempt)
         WHERE r.id = w.id AND r.attempt = w.attempt AND r.status IS NULL`,
        [works.map(({ id }) => id), works.map(({ attempt }) => attempt)],
      )
      // A database that is away is heard of by the requests themselves.
      .catch(() => {})
  }
  /** An attempt that was given up and replaced changes nothing any more. */
  async function end(work: Work, change: string, values: unknown[] = []): Promise<void> {
    done(work)
    await db.sql(`${lazily} ${change} AND set_config IS NOT NULL`, [
      work.id,
      work.attempt,
      ...values,
    ])
  }

  return {
    async take({ projectId, key, hash, isRetry, newestOf }) {
      if (key === null && isRetry) {
        const known = await takeAgain(db, projectId, hash, newestOf)
        if (known) return 'attempt' in known ? mine(known.id, known.attempt) : known
      }
      const [taken] = await db.sql<Pick<RequestRow, 'id' | 'attempt'>>(insertRequest, [
        randomUUID(),
        projectId,
        key,
        hash,
      ])
      if (taken) return mine(taken.id, taken.attempt)
      const [row] = await db.sql<RequestRow>(
        'SELECT hash, status, body FROM requests WHERE project_id = $1 AND key = $2',
        [projectId, key],
      )
      if (row && !row.hash.equals(hash)) return { kind: 'other request' }
      return row ? answerOf(row) : { kind: 'running' }
    },
    keep: (work, { status, body }) =>
      end(
        work,
        'UPDATE requests SET status = $3, body = $4 FROM lazily WHERE id = $1 AND attempt = $2',
        [status, body],
      ),
    forget: (work) => end(work, 'DELETE FROM requests USING lazily WHERE id = $1 AND attempt = $2'),
    release: (work) =>
      end(work, 'UPDATE requests SET alive_at = NULL FROM lazily WHERE id = $1 AND attempt = $2'),
    async sweep() {
      for (const old of [
        `key IS NULL AND created_at < now() - interval '${keptWithoutKey}'`,
        `key IS NOT NULL AND created_at < now() - interval '${keptWithKey}'`,
      ]) {
        await db.sql(`DELETE FROM requests WHERE ${old} AND (status IS NOT NULL OR ${abandoned})`)
      }
      await db.sql(`DELETE FROM gone WHERE created_at < now() - interval '1 day'`)
    },
    async [Symbol.asyncDispose]() {
      clearInterval(timer)
    },
  }
}

interface RequestRow {
  id: string
  attempt: number
  hash: Buffer
  status: number | null
  body: string
  is_abandoned: boolean
}

const lazily = `WITH lazily AS (SELECT set_config('synchronous_commit', 'off', true))`
const abandoned = `status IS NULL AND (alive_at IS NULL OR alive_at < now() - interval '${abandonedAfter}')`

const insertRequest = `${lazily}
  INSERT INTO requests (id, project_id, key, hash) SELECT $1::uuid, $2, $3, $4::bytea FROM lazily WHERE set_config IS NOT NULL
  ON CONFLICT (project_id, key) WHERE key IS NOT NULL
    DO UPDATE SET attempt = requests.attempt + 1, alive_at = now()
    WHERE requests.hash = excluded.hash AND requests.status IS NULL
      AND (requests.alive_at IS NULL OR requests.alive_at < now() - interval '${abandonedAfter}')
  RETURNING id, attempt`

/** The newest of the same requests: as it was answered, or to be carried out once more; nothing where there is none. */
async function takeAgain(
  db: Db,
  projectId: string,
  hash: Buffer,
  newestOf: string | null,
): Promise<Taken | Pick<RequestRow, 'id' | 'attempt'> | undefined> {
  const [row] = await db.sql<RequestRow>(
    `SELECT id, attempt, status, body, ${abandoned} AS is_abandoned FROM requests
     WHERE hash = $1 AND project_id = $2 AND key IS NULL AND created_at > now() - interval '${keptWithoutKey}'
     ORDER BY created_at DESC LIMIT 1`,
    [hash, projectId],
  )
  if (!row) return undefined
  if (!row.is_abandoned) {
    const isPast = row.status !== null && newestOf !== null && !(await isNewest(db, newestOf, row))
    return isPast ? undefined : answerOf(row)
  }
  const [again] = await db.sql<Pick<RequestRow, 'id' | 'attempt'>>(
    `UPDATE requests SET attempt = attempt + 1, alive_at = now()
     WHERE id = $1 AND attempt = $2 AND ${abandoned} RETURNING id, attempt`,
    [row.id, row.attempt],
  )
  return again ?? { kind: 'running' }
}

/** Whether nothing has happened in a thread since a request made what it made there, and that is still there. */
async function isNewest(
  db: Db,
  threadId: string,
  { body }: Pick<RequestRow, 'body'>,
): Promise<boolean> {
  const [found] = await db.sql(
    `WITH answer AS (
       SELECT coalesce($1::jsonb #>> '{body,id}', $1::jsonb #>> '{stream,runId}') AS id
     ), made AS (
       SELECT id, created_at FROM messages WHERE id = (SELECT id FROM answer)
       UNION ALL SELECT id, created_at FROM runs WHERE id = (SELECT id FROM answer)
     )
     SELECT FROM made
     WHERE NOT EXISTS (
         SELECT FROM (SELECT * FROM messages WHERE thread_id = $2 ORDER BY seq DESC LIMIT 100) m
         WHERE m.created_at > made.created_at AND m.run_id IS NULL AND m.came_with IS DISTINCT FROM made.id)
       AND NOT EXISTS (
         SELECT FROM (SELECT * FROM runs WHERE thread_id = $2 ORDER BY seq DESC LIMIT 1) r
         WHERE r.created_at > made.created_at)`,
    [body, threadId],
  )
  return found !== undefined
}

function answerOf({ status, body }: Pick<RequestRow, 'status' | 'body'>): Taken {
  return status === null ? { kind: 'running' } : { kind: 'answered', answer: { status, body } }
}
