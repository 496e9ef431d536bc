import { randomUUID } from 'node:crypto'

import { afterAll, beforeAll, expect, test } from 'vitest'

import type { Store } from '../../store/index.ts'
import type { OnActiveRun, RunRow } from '../../store/rows.ts'
import type { NewRun } from '../../store/run-create.ts'
import type { NewMessage } from '../../store/thread-rows.ts'
import { idFrom } from '../../wire/ids.ts'
import { queryOnce } from '../support/cluster.ts'
import { createDatabase } from '../support/server.ts'
import { createRun, newRun, openTestStore } from './rows.ts'

/** Two processes' worth of store on one database. */
const stack = new AsyncDisposableStack()
const stores = new AsyncDisposableStack()
let databaseUrl: string
let here: Store
let there: Store
beforeAll(async () => {
  databaseUrl = stack.use(await createDatabase()).url
  stack.use(stores)
  here = stores.use(await openTestStore(databaseUrl))
  there = stores.use(await openTestStore(databaseUrl))
})
afterAll(() => stack.disposeAsync())

const failed = {
  status: 'failed',
  error: { code: 'server_error', message: 'It was ended by a test.' },
} as const

/** Another run on the thread of `first`, in the mode given. */
async function add(
  store: Store,
  first: RunRow,
  onActiveRun: OnActiveRun,
  { messages = [], ...given }: Partial<NewRun> & { messages?: NewMessage[] } = {},
): Promise<RunRow> {
  const { project_id, assistant_id, thread_id } = first
  const wanted = newRun({ project_id, assistant_id, ...given, onActiveRun })
  const { run } = await store.runs.create(wanted, thread_id, messages)
  return run
}

function message(text: string): NewMessage {
  return {
    id: idFrom('message', randomUUID()),
    role: 'user',
    content: [{ type: 'text', text: { value: text, annotations: [] } }],
    attachments: [],
    metadata: {},
  }
}

async function holderOf({ thread_id }: RunRow): Promise<string[]> {
  const rows = await here.db.sql<RunRow>(
    'SELECT id FROM runs WHERE thread_id = $1 AND holds_lock',
    [thread_id],
  )
  return rows.map(({ id }) => id)
}

/** The thread's messages that the next prompt would show and those that it would not, each in the order of lists. */
async function textsOf({ thread_id }: RunRow): Promise<{ said: string[]; held: string[] }> {
  const rows = await here.db.sql<{ text: string; held: boolean }>(
    `SELECT content -> 0 -> 'text' ->> 'value' AS text, held FROM messages WHERE thread_id = $1 ORDER BY seq`,
    [thread_id],
  )
  const of = (held: boolean) => rows.filter((row) => row.held === held).map(({ text }) => text)
  return { said: of(false), held: of(true) }
}

async function startsOf(runId: string): Promise<number> {
  const pending = await here.outbox.of(runId)
  return pending.filter(({ command }) => command.kind === 'start').length
}

/** Ends whoever holds the thread, again and again, and gives who that was, in order. */
async function drain(first: RunRow): Promise<string[]> {
  const order: string[] = []
  for (let holders = await holderOf(first); holders[0]; holders = await holderOf(first)) {
    expect(holders).toHaveLength(1)
    order.push(holders[0])
    await here.runs.end(holders[0], failed)
  }
  return order
}

test('runs get the lock in the order in which they came, whichever process ends the one before', async () => {
  const first = await createRun(here)
  const waiting: string[] = []
  for (let i = 0; i < 6; i += 1) {
    const run = await add(i % 2 === 0 ? here : there, first, 'enqueue')
    expect(await startsOf(run.id)).toBe(0)
    waiting.push(run.id)
  }
  expect(await drain(first)).toEqual([first.id, ...waiting])
})

test('the deadline of a run counts from when it gets the lock, and nothing expires it before', async () => {
  const first = await createRun(here)
  const anHourAgo = new Date(Date.now() - 3_600_000)
  const late = await add(here, first, 'enqueue', { created_at: anHourAgo, expiresAfterS: 60 })
  const overdue = async (): Promise<string[]> => (await here.runs.overdue(0)).map(({ id }) => id)
  expect(await overdue()).not.toContain(late.id)
  expect(await here.runs.openIds(0)).not.toContain(late.id)
  expect(await here.runs.openRun(late.id)).toBeUndefined()

  const before = Date.now()
  await here.runs.end(first.id, failed)
  const promoted = await here.runs.get(first.project_id, late.id)
  const lifeLeftMs = (promoted?.expires_at.getTime() ?? 0) - before
  expect(promoted?.holds_lock).toBe(true)
  expect(lifeLeftMs).toBeGreaterThan(59_000)
  expect(lifeLeftMs).toBeLessThan(90_000)
  expect(await overdue()).not.toContain(late.id)
})

test('each run finds at the end of the thread what came before it, and not what came after', async () => {
  const first = await createRun(here)
  const post = (text: string) =>
    there.messages.create(first.project_id, first.thread_id, message(text), 'enqueue')
  await post('a')
  const second = await add(here, first, 'enqueue', { messages: [message('b'), message('c')] })
  await post('d')
  await add(here, first, 'enqueue', { messages: [message('e')] })
  await post('f')
  expect(await textsOf(first)).toEqual({ said: [], held: ['a', 'b', 'c', 'd', 'e', 'f'] })

  await here.runs.end(first.id, failed)
  expect(await textsOf(first)).toEqual({ said: ['a', 'b', 'c'], held: ['d', 'e', 'f'] })
  await here.runs.end(second.id, failed)
  expect(await textsOf(first)).toEqual({ said: ['a', 'b', 'c', 'd', 'e'], held: ['f'] })
  await drain(first)
  expect(await textsOf(first)).toEqual({ said: ['a', 'b', 'c', 'd', 'e', 'f'], held: [] })
})

test('a run that was asked for on an empty thread does not see what was written after it', async () => {
  const first = await createRun(here)
  await add(here, first, 'enqueue')
  await here.messages.create(first.project_id, first.thread_id, message('later'), 'enqueue')
  await here.runs.end(first.id, failed)
  expect(await textsOf(first)).toEqual({ said: [], held: ['later'] })
})

test('a run that is cancelled while it waits leaves the queue, and hands on nothing', async () => {
  const first = await createRun(here)
  const [second, third] = [await add(here, first, 'enqueue'), await add(here, first, 'enqueue')]
  const { project_id: projectId, thread_id: threadId } = first
  await there.runs.requestCancel({ projectId, threadId, runId: second.id }, false)
  expect((await here.runs.get(projectId, second.id))?.status).toBe('cancelled')
  expect(await holderOf(first)).toEqual([first.id])
  expect(await drain(first)).toEqual([first.id, third.id])
})

test('a run that is cancelled as it gets the lock hands it on', async () => {
  for (let i = 0; i < 50; i += 1) {
    const first = await createRun(here)
    const [second, third] = [await add(here, first, 'enqueue'), await add(here, first, 'enqueue')]
    const { project_id: projectId, thread_id: threadId } = first
    await Promise.all([
      here.runs.end(first.id, failed),
      there.runs.requestCancel({ projectId, threadId, runId: second.id }, false),
    ])
    expect((await here.runs.get(projectId, second.id))?.status).toBe('cancelled')
    expect(await holderOf(first)).toEqual([third.id])
  }
})

test('one that is rejected is refused by the run that the lock was handed to', async () => {
  const first = await createRun(here)
  const second = await add(here, first, 'enqueue')
  await here.runs.end(first.id, failed)
  const { project_id, thread_id } = first
  await expect(add(there, first, 'reject')).rejects.toMatchObject({
    status: 400,
    message: `Thread ${thread_id} already has an active run ${second.id}.`,
  })
  await expect(
    there.messages.create(project_id, thread_id, message('no'), 'reject'),
  ).rejects.toMatchObject({
    status: 400,
    message: `Can't add messages to ${thread_id} while a run ${second.id} is active.`,
  })
})

test('a thread that is deleted as its run ends takes those that wait along', async () => {
  for (let i = 0; i < 40; i += 1) {
    const first = await createRun(here)
    for (let n = 0; n < 4; n += 1) await add(there, first, 'enqueue')
    await Promise.all([
      here.runs.end(first.id, failed),
      there.threads.delete(first.project_id, first.thread_id),
    ])
    const left = await here.db.sql('SELECT id FROM runs WHERE thread_id = $1', [first.thread_id])
    expect(left).toEqual([])
  }
})

test('of requests of all kinds at once none fails, one run holds the thread, and nobody stays in the queue', async () => {
  for (let i = 0; i < 10; i += 1) {
    const first = await createRun(here)
    const modes = ['enqueue', 'interrupt', 'enqueue', 'rollback', 'enqueue', 'interrupt'] as const
    await Promise.all([
      ...modes.map((mode, n) => add(n % 2 === 0 ? here : there, first, mode)),
      there.messages.create(first.project_id, first.thread_id, message('m'), 'enqueue'),
      here.runs.end(first.id, failed),
    ])
    expect(await holderOf(first)).toHaveLength(1)
    await drain(first)
    const open = await here.db.sql(
      `SELECT id FROM runs WHERE thread_id = $1 AND status IN ('queued', 'in_progress', 'cancelling')`,
      [first.thread_id],
    )
    expect(open).toEqual([])
    expect((await textsOf(first)).held).toEqual([])
  }
})

test('messages that interrupt while runs come and go are held for ever by none of them', async () => {
  for (let i = 0; i < 10; i += 1) {
    const first = await createRun(here)
    const { project_id, thread_id } = first
    await Promise.all([
      ...(['enqueue', 'interrupt', 'rollback', 'enqueue'] as const).flatMap((mode, n) => [
        add(n % 2 === 0 ? here : there, first, mode),
        there.messages.create(project_id, thread_id, message(mode), mode),
      ]),
      here.runs.end(first.id, failed),
    ])
    await drain(first)
    const { said, held } = await textsOf(first)
    expect(held).toEqual([])
    expect(said.toSorted()).toEqual(['enqueue', 'enqueue', 'interrupt', 'rollback'])
    const open = await here.db.sql(
      `SELECT id FROM runs WHERE thread_id = $1 AND status IN ('queued', 'in_progress', 'cancelling')`,
      [thread_id],
    )
    expect(open).toEqual([])
  }
})

test('whoever listens hears at once of the run that is to be started', async () => {
  const first = await createRun(here)
  const second = await add(there, first, 'enqueue')
  const heard: string[] = []
  here.db.onCommand((runId) => void heard.push(runId))
  await here.runs.end(first.id, failed)
  expect(heard).toEqual([second.id])
})

test('a run on a thread gets the lock of that thread only', async () => {
  const [one, other] = [await createRun(here), await createRun(here)]
  const [ofOne, ofOther] = [await add(here, one, 'enqueue'), await add(here, other, 'enqueue')]
  await here.messages.create(other.project_id, other.thread_id, message('kept'), 'enqueue')
  await here.runs.end(one.id, failed)
  expect(await holderOf(one)).toEqual([ofOne.id])
  expect(await holderOf(other)).toEqual([other.id])
  expect((await here.runs.get(other.project_id, ofOther.id))?.status).toBe('queued')
  expect((await textsOf(other)).held).toEqual(['kept'])
})

test('a copy of a thread with held messages holds none, and keeps their order', async () => {
  const first = await createRun(here)
  const { project_id, thread_id } = first
  for (const text of ['a', 'b', 'c']) {
    await here.messages.create(project_id, thread_id, message(text), 'enqueue')
  }
  const id = idFrom('thread', randomUUID())
  await here.threads.fork(project_id, thread_id, { id, metadata: {} })
  expect(await textsOf({ ...first, thread_id: id })).toEqual({ said: ['a', 'b', 'c'], held: [] })
})

test('nothing of the above was a deadlock, which would be hidden, being tried again', async () => {
  // A connection tells what it counted when it ends.
  await stores.disposeAsync()
  const others = `SELECT FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()`
  await expect.poll(() => queryOnce(databaseUrl, others), { timeout: 10_000 }).toEqual([])
  const counted =
    'SELECT deadlocks::integer FROM pg_stat_database WHERE datname = current_database()'
  expect(await queryOnce(databaseUrl, counted)).toEqual([{ deadlocks: 0 }])
})
