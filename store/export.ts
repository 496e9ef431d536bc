import type { Db } from './db.ts'
import type {
  AssistantRow,
  FileRow,
  MessageRow,
  RunRow,
  RunStepRow,
  ThreadRow,
  ToolCallRow,
  VectorStoreFileRow,
  VectorStoreRow,
} from './rows.ts'

/**
 * Everything of a project, in pages, each in the order in which it was made. A page is a statement of its own: a reader may
 * take hours, and no snapshot is held for it. What is made or deleted meanwhile may be in it or not.
 */
export interface Exports {
  assistants(projectId: string): AsyncGenerator<AssistantRow>
  files(projectId: string): AsyncGenerator<FileRow>
  vectorStores(projectId: string): AsyncGenerator<VectorStoreRow>
  vectorStoreFiles(vectorStoreId: string): AsyncGenerator<VectorStoreFileRow>
  /** Each with its messages, but for those that are being written, and its runs, which are read as they are asked for. */
  threads(projectId: string): AsyncGenerator<ExportedThread>
}

export interface ExportedThread {
  thread: ThreadRow
  /** In pages. */
  messages: AsyncGenerator<MessageRow[]>
  runs: AsyncGenerator<ExportedRun>
}

export interface ExportedRun {
  run: RunRow
  steps: { step: RunStepRow; calls: ToolCallRow[] }[]
}

const pageSize = 100
/** Most threads are short: so many rows of each are read for a whole page of threads in one statement. */
const rowsAtOnce = 20
/** A row may have megabytes, so sizes are asked for first. One row is read whatever it has. */
const bytesAtOnce = 16 * 1024 * 1024

export function createExports(db: Db): Exports {
  async function* inOrder<Row extends { seq: string }>(
    table: string,
    parent: string,
    id: string,
    { after = '0', condition = 'true' } = {},
  ): AsyncGenerator<Row[]> {
    for (let seq = after; ;) {
      const sized = await db.sql<Sized & { seq: string }>(
        `SELECT seq, ${bytesOf(table)} AS bytes FROM (SELECT * FROM ${table}
           WHERE ${parent} = $1 AND seq > $2 AND ${condition} ORDER BY seq LIMIT ${pageSize}) r ORDER BY seq`,
        [id, seq],
      )
      for (const group of groupsOf(sized)) {
        const last = group.at(-1)?.seq ?? seq
        const rows = await db.sql<Row>(
          `SELECT * FROM ${table} WHERE ${parent} = $1 AND seq > $2 AND seq <= $3 AND ${condition} ORDER BY seq`,
          [id, seq, last],
        )
        if (rows.length > 0) yield rows
        seq = last
      }
      if (sized.length < pageSize) return
    }
  }

  async function* oneByOne<Row>(pages: AsyncGenerator<Row[]>): AsyncGenerator<Row> {
    for await (const page of pages) yield* page
  }

  /** The threads of a page, those together whose first rows may be read together. */
  async function batches(threads: ThreadRow[]): Promise<(Sized & { thread: ThreadRow })[][]> {
    const first = (table: string, condition: string): string =>
      `coalesce((SELECT sum(bytes) FROM (
         SELECT ${bytesOf(table)} AS bytes FROM (SELECT * FROM ${table}
           WHERE thread_id = t.id AND ${condition} ORDER BY seq LIMIT ${rowsAtOnce}) r) f), 0)`
    const sizes = await db.sql<Sized>(
      `SELECT ${first('messages', written)} + ${first('runs', 'true')} AS bytes
       FROM unnest($1::text[]) WITH ORDINALITY AS t (id, n) ORDER BY n`,
      [threads.map(({ id }) => id)],
    )
    return groupsOf(threads.map((thread, i) => ({ thread, bytes: sizes[i]?.bytes ?? 0 })))
  }

  /** The first rows of each of these threads. */
  async function firstOf<Row extends { thread_id: string }>(
    table: string,
    threads: ThreadRow[],
    condition: string,
  ): Promise<Map<string, Row[]>> {
    const rows = await db.sql<Row>(
      `SELECT r.* FROM unnest($1::text[]) AS t (id) CROSS JOIN LATERAL (
         SELECT * FROM ${table} WHERE thread_id = t.id AND ${condition} ORDER BY seq LIMIT ${rowsAtOnce}
       ) r ORDER BY r.thread_id, r.seq`,
      [threads.map(({ id }) => id)],
    )
    return Map.groupBy(rows, ({ thread_id }) => thread_id)
  }

  async function* rowsOf<Row extends { seq: string }>(
    table: string,
    threadId: string,
    first: Row[],
    condition: string,
  ): AsyncGenerator<Row[]> {
    if (first.length > 0) yield first
    const after = first.at(-1)?.seq
    if (first.length < rowsAtOnce || after === undefined) return
    yield* inOrder<Row>(table, 'thread_id', threadId, { after, condition })
  }

  async function* withSteps(pages: AsyncGenerator<RunRow[]>): AsyncGenerator<ExportedRun> {
    for await (const runs of pages) {
      const ids = runs.map(({ id }) => id)
      const steps = await db.sql<RunStepRow>(
        'SELECT * FROM run_steps WHERE run_id = ANY ($1::text[]) AND NOT superseded ORDER BY seq',
        [ids],
      )
      const calls = await db.sql<ToolCallRow>(
        'SELECT * FROM tool_calls WHERE run_id = ANY ($1::text[]) ORDER BY idx',
        [ids],
      )
      const stepsOf = Map.groupBy(steps, ({ run_id }) => run_id)
      const callsOf = Map.groupBy(calls, ({ step_id }) => step_id)
      for (const run of runs) {
        yield {
          run,
          steps: (stepsOf.get(run.id) ?? []).map((step) => ({
            step,
            calls: callsOf.get(step.id) ?? [],
          })),
        }
      }
    }
  }

  return {
    assistants: (projectId) => oneByOne(inOrder('assistants', 'project_id', projectId)),
    files: (projectId) => oneByOne(inOrder('files', 'project_id', projectId)),
    vectorStores: (projectId) => oneByOne(inOrder('vector_stores', 'project_id', projectId)),
    vectorStoreFiles: (id) => oneByOne(inOrder('vector_store_files', 'vector_store_id', id)),
    async *threads(projectId) {
      for await (const page of threadPages(db, projectId)) {
        for (const batch of await batches(page)) {
          const [only] = batch
          if (only && only.bytes > bytesAtOnce) {
            const { thread } = only
            yield {
              thread,
              messages: inOrder('messages', 'thread_id', thread.id, { condition: written }),
              runs: withSteps(inOrder('runs', 'thread_id', thread.id)),
            }
            continue
          }
          const threads = batch.map(({ thread }) => thread)
          const messages = await firstOf<MessageRow>('messages', threads, written)
          const runs = await firstOf<RunRow>('runs', threads, 'true')
          for (const thread of threads) {
            const { id } = thread
            yield {
              thread,
              messages: rowsOf('messages', id, messages.get(id) ?? [], written),
              runs: withSteps(rowsOf('runs', id, runs.get(id) ?? [], 'true')),
            }
          }
        }
      }
    },
  }
}

interface Sized {
  bytes: number
}

/** As text, which is what is sent here; a run has its tool calls. Of the row `r`. */
function bytesOf(table: string): string {
  const calls = `coalesce((SELECT sum(octet_length(c::text)) FROM tool_calls c WHERE c.run_id = r.id), 0)`
  return `(octet_length(r::text)${table === 'runs' ? ` + ${calls}` : ''})::double precision`
}

/** Neighbours that are read together: those of more than `bytesAtOnce` are alone. */
function groupsOf<Item extends Sized>(items: Item[]): Item[][] {
  const groups: Item[][] = []
  let total = Infinity
  for (const item of items) {
    total += item.bytes
    if (total > bytesAtOnce) {
      groups.push([])
      total = item.bytes
    }
    groups.at(-1)?.push(item)
  }
  return groups
}

const written = `NOT superseded AND status <> 'in_progress'`

async function* threadPages(db: Db, projectId: string): AsyncGenerator<ThreadRow[]> {
  let after = { at: '-infinity', seq: '0' }
  for (;;) {
    // As text, since a Date would lose the microseconds.
    const rows = await db.sql<ThreadRow & { at: string }>(
      `SELECT *, created_at::text AS at FROM threads
       WHERE project_id = $1 AND (created_at, seq) > ($2::timestamptz, $3::bigint)
       ORDER BY created_at, seq LIMIT ${pageSize}`,
      [projectId, after.at, after.seq],
    )
    if (rows.length > 0) yield rows
    const last = rows.at(-1)
    if (!last || rows.length < pageSize) return
    after = last
  }
}
