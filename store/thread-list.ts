import { invalidParameter, searchTooWide } from '../wire/errors.ts'
import type { Db, Tx } from './db.ts'
import { placeOfGone } from './gone.ts'
import type { ListQuery, Rows } from './lists.ts'
import type { Metadata, ThreadRow } from './rows.ts'

/** Which threads: each of these is a condition, and all of them hold. */
export interface ThreadFilter {
  /** Pairs that the thread's metadata have, among others. */
  metadata?: Metadata | undefined
  /** Has a run of this assistant, which may be gone. */
  assistantId?: string | undefined
  /** Has a message with all of these words, in any order and case. */
  q?: string | undefined
  /** Both exclusive, in the whole seconds that the wire shows. */
  createdAfter?: Date | undefined
  createdBefore?: Date | undefined
  hasActiveRun?: boolean | undefined
}

export interface ThreadList {
  /** A page in the order of creation. Throws invalidParameter for a cursor that is no thread of the project, and for a `q` without a word. */
  list(projectId: string, filter: ThreadFilter, query: ListQuery): Promise<Rows<ThreadRow>>
}

/**
 * A project may have a million threads, and a filter may leave one of them or nearly all. Where it leaves many, a page is
 * full after a short walk along the list; where it leaves few, the filter's index names them. No plan is good for both,
 * and Postgres knows too little of words and metadata to choose. So the walk is tried first and is short; then the filters
 * are asked whether they leave few, and the first that does gives the page; then comes a longer walk. What is common, and
 * still not found there, is put together from all that the filters leave.
 */
export function createThreadList(db: Db): ThreadList {
  return {
    async list(projectId, filter, query) {
      const words = filter.q === undefined ? [] : await wordsOf(db, filter.q)
      const values: unknown[] = []
      const bind = (value: unknown): string => `$${values.push(value)}`
      const conditions = await range(db, bind, projectId, filter, query)
      if (words.some((word) => Buffer.byteLength(word) > longestWordBytes)) {
        return { rows: [], hasMore: false }
      }
      const filters = filtersOf(bind, projectId, filter, words)
      const backwards = query.before !== undefined && query.after === undefined
      const direction = (query.order === 'asc') === backwards ? 'DESC' : 'ASC'
      const page: Page = {
        filters,
        range: conditions.join(' AND '),
        order: `ORDER BY t.created_at ${direction}, t.seq ${direction}`,
        rows: query.limit + 1,
        limit: `${bind(query.limit + 1)}::text::bigint`,
      }
      const found = await search(db, page, values)
      const rows = found.slice(0, query.limit)
      return { rows: backwards ? rows.toReversed() : rows, hasMore: found.length > query.limit }
    },
  }
}

interface Page {
  filters: FilterSql[]
  /** Which threads of the list: project, time, cursors. */
  range: string
  order: string
  /** How many rows are asked for, and the same as it stands in SQL: bound, since every text is prepared. */
  rows: number
  limit: string
}

interface FilterSql {
  /** Asked of the thread `t`; written so that no index of all threads is used for it. */
  check: string
  /** Selects the `id`s of all threads of the filter, some perhaps twice. */
  all: string
}

const shortWalk = 300
/** A filter that leaves no more than this leaves few. */
const few = 2000
const longWalk = 15_000
/** `message_terms` leaves out what is longer: no message has it, and a tsquery could not hold it. */
const longestWordBytes = 1024
/** A statement of a search that takes longer is given up. */
const longestMs = 10_000

async function search(db: Db, page: Page, values: unknown[]): Promise<ThreadRow[]> {
  const { filters, range: conditions, order, limit } = page
  if (filters.length === 0) {
    return db.sql<ThreadRow>(
      `SELECT t.* FROM threads t WHERE ${conditions} ${order} LIMIT ${limit}`,
      values,
    )
  }
  return searching(db, async (tx) => {
    const near = await walk(tx, page, values, shortWalk)
    if (near) return near
    for (const filter of filters) {
      const found = await gather(tx, page, values, filter)
      if (found) return found
    }
    return (await walk(tx, page, values, longWalk)) ?? whole(tx, page, values)
  })
}

/** The page, if it is full after `length` threads, or if there are no more. */
async function walk(
  tx: Tx,
  { filters, range: conditions, order, rows: wanted, limit }: Page,
  values: unknown[],
  length: number,
): Promise<ThreadRow[] | undefined> {
  const rows = await tx.sql<ThreadRow & { walked: string }>(
    `WITH near AS MATERIALIZED (SELECT t.* FROM threads t WHERE ${conditions} ${order} LIMIT $${values.length + 1}::bigint),
       page AS MATERIALIZED (SELECT * FROM near t WHERE ${filters.map(({ check }) => check).join(' AND ')} ${order} LIMIT ${limit})
     SELECT t.*, CASE WHEN (SELECT count(*) FROM page) < ${limit} THEN (SELECT count(*) FROM near) END AS walked
     FROM (SELECT) always LEFT JOIN page t ON true ${order}`,
    [...values, length],
  )
  const isFull = rows.length === wanted
  if (!isFull && Number(rows[0]?.walked) === length) return undefined
  return rows.filter(({ id }) => id !== null)
}

/** The page, if the filter leaves few threads: those are fetched one by one, and asked for the other filters. */
async function gather(
  tx: Tx,
  page: Page,
  values: unknown[],
  filter: FilterSql,
): Promise<ThreadRow[] | undefined> {
  const { range: conditions, order, limit } = page
  const others = page.filters.filter((other) => other !== filter).map(({ check }) => check)
  // Postgres must be told the type of a value that a statement does not use.
  const used = `num_nulls(${values.map((_, i) => `$${i + 1}::text`).join(', ')}) >= 0`
  const [counted] = await tx.sql<{ n: number }>(
    `SELECT count(*)::integer AS n FROM (SELECT FROM (${filter.all}) a LIMIT ${few + 1}) f WHERE ${used}`,
    values,
  )
  if (!counted || counted.n > few) return undefined
  return tx.sql<ThreadRow>(
    `WITH few AS MATERIALIZED (SELECT DISTINCT id FROM (${filter.all}) a), near AS MATERIALIZED (
       SELECT f.* FROM few CROSS JOIN LATERAL
         (SELECT t.* FROM threads t WHERE t.id = few.id AND ${conditions} OFFSET 0) f)
     SELECT t.* FROM near t WHERE ${[...others, used].join(' AND ')} ${order} LIMIT ${limit}`,
    values,
  )
}

/** The page out of all threads that the filters leave: seconds, where those are a million. */
function whole(
  tx: Tx,
  { filters, range: conditions, order, limit }: Page,
  values: unknown[],
): Promise<ThreadRow[]> {
  const left = filters.map(
    ({ all }, i) => `left${i} AS MATERIALIZED (SELECT DISTINCT id FROM (${all}) a)`,
  )
  const joins = filters.map((_, i) => `JOIN left${i} ON left${i}.id = t.id`)
  return tx.sql<ThreadRow>(
    `WITH ${left.join(', ')} SELECT t.* FROM threads t ${joins.join(' ')}
     WHERE ${conditions} ${order} LIMIT ${limit}`,
    values,
  )
}

/**
 * For reading what an index names. A bitmap that does not fit is checked row by row, and the words of a row take a while to
 * find; for few rows, other processes take longer to start than to find them. Throws where a statement takes too long.
 */
async function searching<T>(db: Db, work: (tx: Tx) => Promise<T>): Promise<T> {
  try {
    return await db.tx(async (tx) => {
      await tx.sql(
        `SELECT set_config('work_mem', '64MB', true), set_config('max_parallel_workers_per_gather', '0', true),
           set_config('statement_timeout', '${longestMs}', true)`,
      )
      return work(tx)
    })
  } catch (error) {
    const isTooLong = error instanceof Error && 'code' in error && error.code === statementTimeout
    throw isTooLong ? searchTooWide() : error
  }
}

const statementTimeout = '57014'

async function range(
  db: Db,
  bind: (value: unknown) => string,
  projectId: string,
  filter: ThreadFilter,
  { order, after, before }: ListQuery,
): Promise<string[]> {
  const forward = order === 'asc'
  const conditions = [`t.project_id = ${bind(projectId)}`]
  const beyond = async (name: 'after' | 'before', id: string, sign: '<' | '>'): Promise<void> => {
    const at = await cursor(db, projectId, name, id)
    conditions.push(
      `(t.created_at, t.seq) ${sign} (${bind(at.created_at)}::text::timestamptz, ${bind(at.seq)}::text::bigint)`,
    )
  }
  if (after !== undefined) await beyond('after', after, forward ? '>' : '<')
  if (before !== undefined) await beyond('before', before, forward ? '<' : '>')
  if (filter.createdAfter) {
    conditions.push(`t.created_at >= ${time(bind, secondsOf(filter.createdAfter) + 1)}`)
  }
  if (filter.createdBefore) {
    conditions.push(`t.created_at < ${time(bind, secondsOf(filter.createdBefore))}`)
  }
  // No filter, since it leaves nearly all: as many as there are runs at work are passed by.
  if (filter.hasActiveRun === false) conditions.push(`NOT ${activeRun}`)
  return conditions
}

/** As a number, since Postgres does not read the years of five digits as JavaScript writes them. */
function time(bind: (value: unknown) => string, seconds: number): string {
  return `to_timestamp(${bind(seconds)}::text::double precision)`
}

function secondsOf(date: Date): number {
  return date.getTime() / 1000
}

async function cursor(db: Db, projectId: string, name: 'after' | 'before', id: string) {
  // The time as text, since a Date would lose the microseconds.
  const [found] = await db.sql<{ created_at: string; seq: string }>(
    'SELECT created_at::text, seq FROM threads WHERE id = $1 AND project_id = $2',
    [id, projectId],
  )
  const place = found ?? (await placeOfGone(db.sql, 'threads', projectId, id))
  if (!place) throw invalidParameter(name, `no object with id '${id}' is in this list`)
  return place
}

const activeRun = 'EXISTS (SELECT FROM runs r WHERE r.thread_id = t.id AND r.holds_lock OFFSET 0)'

/** Those first that are found out quickest. With OFFSET a subquery stays one, asked thread by thread. `$1` is the project. */
function filtersOf(
  bind: (value: unknown) => string,
  projectId: string,
  { metadata = {}, assistantId, hasActiveRun }: ThreadFilter,
  words: string[],
): FilterSql[] {
  const filters: FilterSql[] = []
  if (hasActiveRun) {
    filters.push({
      check: activeRun,
      all: 'SELECT thread_id AS id FROM runs WHERE holds_lock AND project_id = $1',
    })
  }
  for (const [key, value] of Object.entries(metadata)) {
    const [k, v] = [`${bind(key)}::text`, `${bind(value)}::text`]
    filters.push({
      check: `t.metadata ->> ${k} = ${v}`,
      all: `SELECT id FROM threads WHERE project_id = $1 AND metadata @> jsonb_build_object(${k}, ${v})`,
    })
  }
  if (assistantId !== undefined) {
    const id = `${bind(assistantId)}::text`
    filters.push({
      check: `EXISTS (SELECT FROM runs r WHERE r.assistant_id = ${id} AND r.thread_id = t.id OFFSET 0)`,
      all: `SELECT thread_id AS id FROM runs WHERE project_id = $1 AND assistant_id = ${id}`,
    })
  }
  if (words.length > 0) {
    // As message_terms writes them; in quotes a word is taken as it is.
    const quoted = words.map(
      (word) => `'${projectId.slice(-8)}:${word.replaceAll('\\', '\\\\').replaceAll("'", "''")}'`,
    )
    const said = `${bind(quoted.join(' & '))}::text::tsquery`
    filters.push({
      check: `EXISTS (SELECT FROM messages m WHERE ${terms} @@ (${said} && ('''' || chr(2) || t.id || '''')::tsquery)
        AND ${written} OFFSET 0)`,
      all: `SELECT thread_id AS id FROM messages m WHERE ${terms} @@ ${said} AND ${written}`,
    })
  }
  return filters
}

// Exactly the expression and the condition of the index.
const terms = 'message_terms(m.project_id, m.thread_id, m.content)'
const written = `m.status <> 'in_progress' AND NOT m.superseded`

/** What the same parser makes of a search as of a message. */
async function wordsOf(db: Db, q: string): Promise<string[]> {
  const [row] = await db.sql<{ words: string[] }>('SELECT search_words($1) AS words', [q])
  if (!row || row.words.length === 0) {
    throw invalidParameter('q', 'expected at least one word to look for.')
  }
  return row.words
}
