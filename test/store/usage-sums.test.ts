import { afterAll, beforeAll, expect, test } from 'vitest'

import type { Store } from '../../store/index.ts'
import { closeGate } from '../support/gate.ts'
import { createDatabase } from '../support/server.ts'
import { openTestStore } from './rows.ts'

/** Two stores are two processes' worth. */
let here: Store
let there: Store
let projectId: string
let databaseUrl: string
const stack = new AsyncDisposableStack()
beforeAll(async () => {
  const database = stack.use(await createDatabase())
  databaseUrl = database.url
  here = stack.use(await openTestStore(databaseUrl))
  there = stack.use(await openTestStore(databaseUrl))
  projectId = (await here.keys.defaultProject()).id
})
afterAll(() => stack.disposeAsync())

/** So many calls of so many threads, over three days. */
async function used(calls: number, threads: number, project = projectId): Promise<void> {
  await here.db.sql(
    `INSERT INTO usage (run_id, turn, generation, project_id, thread_id, assistant_id, model, prompt_tokens,
       completion_tokens, cached_tokens, reasoning_tokens, cost, created_at)
     SELECT gen_random_uuid()::text, 0, 0, $1, 'thread_' || n % $3, 'asst', 'm', 10, 1, 0, 0, 0.000001,
       '2026-01-01T23:59:59Z'::timestamptz + (n % 3) * interval '1 day'
     FROM generate_series(1, $2) n`,
    [project, calls, threads],
  )
}

const all = { kind: 'project' as const, from: '2026-01-01', to: '2026-01-31', limit: 100 }

test('processes that fold at once count every call once', async () => {
  await used(12_000, 50)
  const folded = await Promise.all(
    [here, there, here, there].map(({ usageSums }) => usageSums.fold()),
  )
  expect(folded.reduce((a, b) => a + b, 0)).toBe(12_000)
  const rows = await here.usageSums.of({ ...all, projectId, id: projectId })
  expect(rows.map(({ day, model_calls, cost }) => [day, model_calls, Number(cost)])).toEqual([
    ['2026-01-01', 4000, 0.004],
    ['2026-01-02', 4000, 0.004],
    ['2026-01-03', 4000, 0.004],
  ])
  const thread = await here.usageSums.of({ ...all, kind: 'thread', projectId, id: 'thread_7' })
  expect(thread.reduce((sum, row) => sum + row.model_calls, 0)).toBe(240)
  expect(await here.usageSums.fold()).toBe(0)
})

test('calls are counted before they are folded, as they are afterwards', async () => {
  const id = await newProject('unfolded')
  await used(3, 1, id)
  await here.usageSums.fold()
  await used(6, 2, id)
  const kinds = { project: id, assistant: 'asst', thread: 'thread_1' } as const
  const read = () =>
    Promise.all(
      (['project', 'assistant', 'thread'] as const).map((kind) =>
        here.usageSums.of({ ...all, projectId: id, kind, id: kinds[kind] }),
      ),
    )
  const before = await read()
  // Three calls of one thread, then six of which the second thread has half.
  expect(before.map((rows) => rows.map((row) => row.model_calls))).toEqual([
    [3, 3, 3],
    [3, 3, 3],
    [1, 1, 1],
  ])
  expect(before[0]?.[0]).toEqual({
    day: '2026-01-01',
    kind: 'project',
    id,
    model: 'm',
    model_calls: 3,
    prompt_tokens: '30',
    completion_tokens: '3',
    cached_tokens: '0',
    reasoning_tokens: '0',
    estimated_calls: 0,
    unpriced_calls: 0,
    cost: '0.000003',
  })
  expect(await here.usageSums.fold()).toBe(6)
  expect(await read()).toEqual(before)
  const middle = { ...all, projectId: id, id, from: '2026-01-02', to: '2026-01-02' }
  await used(3, 1, id)
  expect(await here.usageSums.of(middle)).toMatchObject([{ day: '2026-01-02', model_calls: 4 }])
  const first = { ...all, projectId: id, id, limit: 1 }
  expect(await here.usageSums.of(first)).toMatchObject([{ day: '2026-01-01', model_calls: 4 }])
})

test('calls of other projects are nowhere in the answer, folded or not', async () => {
  const id = await newProject('alone')
  await used(10, 1)
  expect(await here.usageSums.of({ ...all, projectId: id, id })).toEqual([])
  expect(await here.usageSums.of({ ...all, projectId: id, id: projectId })).toEqual([])
  await here.usageSums.fold()
})

test('whoever reads while others fold sees every call once', async () => {
  const id = await newProject('folded meanwhile')
  await used(15_000, 10, id)
  let isFolding = true
  const folding = Promise.all([here.usageSums.fold(), there.usageSums.fold()]).finally(() => {
    isFolding = false
  })
  const seen = new Set<number>()
  while (isFolding) {
    const rows = await there.usageSums.of({ ...all, projectId: id, id })
    seen.add(rows.reduce((sum, row) => sum + row.model_calls, 0))
  }
  await folding
  expect([...seen]).toEqual([15_000])
})

test('nobody waits for somebody who folds: neither a reader nor another who would fold', async () => {
  const id = await newProject('behind a gate')
  await used(5, 1, id)
  await using gate = await closeGate(databaseUrl, { table: 'usage', at: 'update', when: 'true' })
  const stuck = here.usageSums.fold()
  await gate.reached()
  expect(await there.usageSums.fold()).toBe(0)
  const rows = await there.usageSums.of({ ...all, projectId: id, id })
  expect(rows.reduce((sum, row) => sum + row.model_calls, 0)).toBe(5)
  await gate.open()
  expect(await stuck).toBe(5)
})

test('calls while others are folded are in a later sum', async () => {
  const before = await here.usageSums.of({ ...all, projectId, id: projectId })
  await Promise.all([used(500, 3), here.usageSums.fold(), used(500, 3), there.usageSums.fold()])
  await here.usageSums.fold()
  const after = await here.usageSums.of({ ...all, projectId, id: projectId })
  const calls = (rows: typeof after) => rows.reduce((sum, row) => sum + row.model_calls, 0)
  expect(calls(after) - calls(before)).toBe(1000)
})

async function newProject(name: string): Promise<string> {
  const id = `proj_${name.replaceAll(' ', '_')}`
  await here.db.sql('INSERT INTO projects (id, name) VALUES ($1, $2)', [id, name])
  return id
}
