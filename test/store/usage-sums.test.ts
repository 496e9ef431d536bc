import { afterAll, beforeAll, expect, test } from 'vitest'

import type { Store } from '../../store/index.ts'
import { createDatabase } from '../support/server.ts'
import { openTestStore } from './rows.ts'

/** Two stores are two processes' worth. */
let here: Store
let there: Store
let projectId: string
const stack = new AsyncDisposableStack()
beforeAll(async () => {
  const database = stack.use(await createDatabase())
  here = stack.use(await openTestStore(database.url))
  there = stack.use(await openTestStore(database.url))
  projectId = (await here.keys.defaultProject()).id
})
afterAll(() => stack.disposeAsync())

/** So many calls of so many threads, over three days. */
async function used(calls: number, threads: number): Promise<void> {
  await here.db.sql(
    `INSERT INTO usage (run_id, turn, generation, project_id, thread_id, assistant_id, model, prompt_tokens,
       completion_tokens, cached_tokens, reasoning_tokens, cost, created_at)
     SELECT gen_random_uuid()::text, 0, 0, $1, 'thread_' || n % $3, 'asst', 'm', 10, 1, 0, 0, 0.000001,
       '2026-01-01T23:59:59Z'::timestamptz + (n % 3) * interval '1 day'
     FROM generate_series(1, $2) n`,
    [projectId, calls, threads],
  )
}

const all = { kind: 'project' as const, from: '2026-01-01', to: '2026-01-31' }

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

test('calls while others are folded are in a later sum', async () => {
  const before = await here.usageSums.of({ ...all, projectId, id: projectId })
  await Promise.all([used(500, 3), here.usageSums.fold(), used(500, 3), there.usageSums.fold()])
  await here.usageSums.fold()
  const after = await here.usageSums.of({ ...all, projectId, id: projectId })
  const calls = (rows: typeof after) => rows.reduce((sum, row) => sum + row.model_calls, 0)
  expect(calls(after) - calls(before)).toBe(1000)
})
