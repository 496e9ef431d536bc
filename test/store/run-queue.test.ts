import { randomUUID } from 'node:crypto'

import { afterAll, beforeAll, expect, test } from 'vitest'

import type { Sql } from '../../store/db.ts'
import type { Store } from '../../store/index.ts'
import { joinQueue } from '../../store/run-queue.ts'
import type { RunRow } from '../../store/rows.ts'
import type { NewMessage } from '../../store/thread-rows.ts'
import { idFrom } from '../../wire/ids.ts'
import { createDatabase } from '../support/server.ts'
import { createRun, newRun, openTestStore } from './rows.ts'

/** Two stores are two processes' worth: the one that ends runs, and the one that accepts them. */
let ending: Store
let accepting: Store
const stack = new AsyncDisposableStack()
beforeAll(async () => {
  const database = stack.use(await createDatabase())
  ending = stack.use(await openTestStore(database.url))
  accepting = stack.use(await openTestStore(database.url))
})
afterAll(() => stack.disposeAsync())

async function runNow(id: string): Promise<RunRow> {
  const [row] = await ending.db.sql<RunRow>('SELECT * FROM runs WHERE id = $1', [id])
  if (!row) throw new Error(`${id} is gone`)
  return row
}

async function startsOf(id: string): Promise<number> {
  const rows = await ending.db.sql(
    `SELECT FROM outbox WHERE run_id = $1 AND command ->> 'kind' = 'start'`,
    [id],
  )
  return rows.length
}

function enqueue(first: RunRow, mode: 'enqueue' | 'interrupt' | 'rollback' = 'enqueue') {
  const run = newRun({ project_id: first.project_id, assistant_id: first.assistant_id })
  return accepting.runs.create({ ...run, onActiveRun: mode }, first.thread_id, [])
}

test('a run that is enqueued while another ends is never left behind', async () => {
  for (let round = 0; round < 150; round += 1) {
    const first = await createRun(ending)
    const [{ run }] = await Promise.all([
      enqueue(first),
      ending.runs.end(first.id, { status: 'expired' }),
    ])
    // Whichever came first: it has the lock now, and will be started once.
    expect((await runNow(run.id)).holds_lock, `round ${round}`).toBe(true)
    expect(await startsOf(run.id)).toBe(1)
  }
})

test('runs that interrupt each other at once leave one of them with the thread', async () => {
  for (let round = 0; round < 30; round += 1) {
    const first = await createRun(ending)
    const made = await Promise.all(
      Array.from({ length: 4 }, (_, i) => enqueue(first, i % 2 === 0 ? 'interrupt' : 'rollback')),
    )
    const rows = await Promise.all(made.map(({ run }) => runNow(run.id)))
    expect(rows.map(({ status }) => status).toSorted()).toEqual([
      'cancelled',
      'cancelled',
      'cancelled',
      'queued',
    ])
    expect(rows.filter(({ holds_lock }) => holds_lock).map(({ status }) => status)).toEqual([
      'queued',
    ])
    expect((await runNow(first.id)).status).toBe('cancelled')
  }
})

test('messages that come while a run ends are let go, and are not lost', async () => {
  for (let round = 0; round < 100; round += 1) {
    const first = await createRun(ending)
    const { project_id, thread_id } = first
    const [made] = await Promise.all([
      accepting.messages.create(project_id, thread_id, message(), 'enqueue'),
      ending.runs.end(first.id, { status: 'expired' }),
    ])
    const now = await accepting.messages.get(project_id, made.id)
    expect(now?.held, `round ${round}`).toBe(false)
  }
})

test('a run that waits for nobody is given its thread', async () => {
  const first = await createRun(ending)
  const { run } = await enqueue(first)
  await ending.db.sql(`UPDATE runs SET status = 'failed', holds_lock = false WHERE id = $1`, [
    first.id,
  ])
  expect((await runNow(run.id)).holds_lock).toBe(false)
  expect(await ending.runs.promoteStranded()).toBe(1)
  expect((await runNow(run.id)).holds_lock).toBe(true)
  expect(await startsOf(run.id)).toBe(1)
  expect(await ending.runs.promoteStranded()).toBe(0)
})

test('a run that waits is past no deadline, and no workflow of it is missed', async () => {
  const first = await createRun(ending)
  const { run } = await enqueue(first)
  await ending.db.sql(`UPDATE runs SET expires_at = now() - interval '1 hour' WHERE id = $1`, [
    run.id,
  ])
  expect((await ending.runs.overdue(0)).map(({ id }) => id)).not.toContain(run.id)
  expect(await ending.runs.openIds(0)).not.toContain(run.id)
})

test('a run that interrupts locks each of those that wait once', async () => {
  for (const mode of ['interrupt', 'rollback'] as const) {
    const first = await createRun(ending)
    const waiting: string[] = []
    for (let i = 0; i < 3; i += 1) waiting.push((await enqueue(first)).run.id)
    const locked: string[] = []
    await accepting.db.tx(async (tx) => {
      const sql: Sql = async (text, values = []) => {
        if (text.includes('FOR NO KEY UPDATE OF s, r')) locked.push(String(values[0]))
        return tx.sql(text, values)
      }
      await joinQueue({ ...tx, sql }, accepting.events, first.thread_id, mode)
    })
    const others = locked.filter((id) => id !== first.id)
    expect(others.toSorted()).toEqual(waiting.toSorted())
    for (const id of waiting) expect((await runNow(id)).status).toBe('cancelled')
  }
})

test('a held message that was deleted keeps its place when the others are let go', async () => {
  const first = await createRun(ending)
  const { project_id, thread_id } = first
  const posted: string[] = []
  for (let i = 0; i < 3; i += 1) {
    const { id } = await accepting.messages.create(project_id, thread_id, message(), 'enqueue')
    posted.push(id)
  }
  const [before, deleted, behind] = posted
  await accepting.messages.delete(project_id, deleted ?? '')
  const from = async (order: 'asc' | 'desc'): Promise<string[]> => {
    const query = { order, limit: 10, after: deleted }
    const { rows } = await accepting.messages.list({ thread_id }, query)
    return rows.map(({ id }) => id)
  }
  expect([await from('asc'), await from('desc')]).toEqual([[behind], [before]])
  await ending.runs.end(first.id, { status: 'expired' })
  const later = await accepting.messages.create(project_id, thread_id, message(), null)
  expect([await from('asc'), await from('desc')]).toEqual([[behind, later.id], [before]])
})

function message(): NewMessage {
  return {
    id: idFrom('message', randomUUID()),
    role: 'user',
    content: [],
    attachments: [],
    metadata: {},
  }
}
