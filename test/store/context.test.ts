import { randomUUID } from 'node:crypto'

import { afterAll, beforeAll, expect, test } from 'vitest'

import { createContext, type ContextStore } from '../../store/context.ts'
import type { Tx } from '../../store/db.ts'
import type { Store } from '../../store/index.ts'
import type { RunContext, RunRow } from '../../store/rows.ts'
import type { ClaimedTurn } from '../../store/turns.ts'
import { createDatabase } from '../support/server.ts'
import { createRun, newRun, openTestStore } from './rows.ts'

let store: Store
const stack = new AsyncDisposableStack()
beforeAll(async () => {
  const database = stack.use(await createDatabase())
  store = stack.use(await openTestStore(database.url))
})
afterAll(() => stack.disposeAsync())

/** Adds so many messages to the thread of a run, and gives their places in the list. */
async function addMessages({ thread_id, project_id }: RunRow, count: number): Promise<string[]> {
  const rows = await store.db.sql<{ seq: string }>(
    `INSERT INTO messages (id, project_id, thread_id, role, status, content, attachments, metadata)
     SELECT 'msg_' || gen_random_uuid(), $1, $2, 'user', 'completed', '[]', '[]', '{}'
     FROM generate_series(1, $3) RETURNING seq`,
    [project_id, thread_id, count],
  )
  return rows.map(({ seq }) => seq)
}

async function claim(run: RunRow): Promise<ClaimedTurn> {
  const claimed = await store.turns.claim({
    runId: run.id,
    turn: 0,
    generationId: randomUUID(),
    model: 'm',
  })
  if (claimed.kind !== 'claimed') throw new Error(`The turn was not claimed: ${claimed.kind}`)
  return claimed.turn
}

async function contextOf({ id, project_id }: RunRow): Promise<RunContext | null | undefined> {
  return (await store.runs.get(project_id, id))?.context
}

function viewOf({ id, thread_id }: RunRow) {
  return { threadId: thread_id, runId: id }
}

function cutAt(tail_from: string | undefined) {
  if (tail_from === undefined) throw new Error('There is no such message')
  return { tail_from, head_until: null, dropped_tool_calls: 0, headMessages: 0 }
}

/** How many rows of messages `work` reads. */
async function rowsRead(work: (context: ContextStore) => Promise<void>): Promise<number> {
  await store.db.sql('ANALYZE messages')
  return store.db.tx(async (tx) => {
    const before = await rowsReadIn(tx)
    await work(createContext({ ...store.db, sql: tx.sql, tx: (inner) => inner(tx) }))
    return (await rowsReadIn(tx)) - before
  })
}

/** What the connection of a transaction has read; of earlier transactions too, as far as they are not in the statistics yet. */
async function rowsReadIn(tx: Tx): Promise<number> {
  const [read] = await tx.sql<{ rows: number }>(
    `SELECT (coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0))::int AS rows
     FROM pg_stat_xact_user_tables WHERE relname = 'messages'`,
  )
  if (!read) throw new Error('There are no statistics of messages')
  return read.rows
}

test('what was left out is counted from where an earlier run of the thread has left its number', async () => {
  const first = await createRun(store)
  const seqs = await addMessages(first, 2000)
  using turn = await claim(first)
  const counted = (context: ContextStore) => context.keepCut(viewOf(first), turn, cutAt(seqs[1990]))
  expect(await rowsRead(counted)).toBeGreaterThan(1900)
  expect(await contextOf(first)).toMatchObject({ dropped_messages: 1990 })
  await store.runs.end(first.id, { status: 'expired' })

  const more = await addMessages(first, 20)
  const { project_id, assistant_id, thread_id } = first
  const { run } = await store.runs.create(newRun({ project_id, assistant_id }), thread_id, [])
  using next = await claim(run)
  const read = await rowsRead((context) => context.keepCut(viewOf(run), next, cutAt(more[10])))
  expect(await contextOf(run)).toMatchObject({ dropped_messages: 2010 })
  // Twenty lie between.
  expect(read).toBeLessThan(100)
})

test('an attempt that was replaced does not say what the prompt leaves out', async () => {
  const run = await createRun(store)
  const seqs = await addMessages(run, 10)
  using replaced = await claim(run)
  using turn = await claim(run)
  await store.context.keepCut(viewOf(run), replaced, cutAt(seqs[8]))
  expect(await contextOf(run)).toBeNull()
  await store.context.keepCut(viewOf(run), turn, cutAt(seqs[4]))
  await store.context.keepCut(viewOf(run), replaced, cutAt(seqs[8]))
  expect(await contextOf(run)).toMatchObject({ dropped_messages: 4 })
})
