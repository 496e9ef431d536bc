import { randomUUID } from 'node:crypto'

import { afterAll, beforeAll, expect, test } from 'vitest'

import type { Store } from '../../store/index.ts'
import type { RunRow } from '../../store/rows.ts'
import type { ClaimedTurn } from '../../store/turns.ts'
import { createDatabase } from '../support/server.ts'
import { createRun, openTestStore } from './rows.ts'

let store: Store
const stack = new AsyncDisposableStack()
beforeAll(async () => {
  const database = stack.use(await createDatabase())
  store = stack.use(await openTestStore(database.url))
})
afterAll(() => stack.disposeAsync())

const call = { model: 'm', prompt_tokens: 10, price: null }

async function claimed(run: RunRow): Promise<ClaimedTurn> {
  const wanted = { runId: run.id, turn: 0, generationId: randomUUID(), model: 'm' }
  const claim = await store.turns.claim(wanted)
  if (claim.kind !== 'claimed') throw new Error(`The turn is ${claim.kind}`)
  return claim.turn
}

async function now(id: string): Promise<RunRow | undefined> {
  const [row] = await store.db.sql<RunRow>('SELECT * FROM runs WHERE id = $1', [id])
  return row
}

test('a run whose log is damaged ends all the same, says why, and its thread is free', async () => {
  const run = await createRun(store)
  using turn = await claimed(run)
  await turn.openMessage(call)
  turn.pushText(0, 'text', { text: 'Half', first: true })
  await turn.written()
  await store.db.sql(
    `UPDATE run_events SET data = '{}' WHERE run_id = $1 AND event = 'thread.message.delta'`,
    [run.id],
  )
  expect(await store.runs.end(run.id, { status: 'expired' })).toBe('failed')
  expect(await now(run.id)).toMatchObject({
    status: 'failed',
    holds_lock: false,
    last_error: {
      code: 'server_error',
      message: expect.stringContaining('could not be ended in order'),
    },
  })
  const open = `SELECT id FROM messages WHERE run_id = $1 AND status = 'in_progress'
    UNION ALL SELECT id FROM run_steps WHERE run_id = $1 AND status = 'in_progress'`
  expect(await store.db.sql(open, [run.id])).toEqual([])
  const events = await store.events.read(run.id, 0)
  expect(events.at(-1)?.event).toBe('thread.run.failed')
})

test('a run ends whose calls have used more than an integer holds', async () => {
  const run = await createRun(store)
  await store.db.sql(
    `INSERT INTO usage (run_id, turn, generation, project_id, thread_id, assistant_id, model,
       prompt_tokens, completion_tokens, cached_tokens, reasoning_tokens)
     SELECT id, n, 0, project_id, thread_id, assistant_id, 'm', 2000000000, 1, 0, 0
     FROM runs, generate_series(0, 2) n WHERE id = $1`,
    [run.id],
  )
  expect(await store.runs.end(run.id, { status: 'expired' })).toBe('expired')
  expect((await now(run.id))?.usage).toMatchObject({
    prompt_tokens: 6_000_000_000,
    completion_tokens: 3,
    total_tokens: 6_000_000_003,
  })
})

test('a run that was cancelled in time is cancelled, also where its deadline passes meanwhile', async () => {
  const run = await createRun(store)
  using _ = await claimed(run)
  const { project_id: projectId, thread_id: threadId, id: runId } = run
  const cancelling = await store.runs.requestCancel({ projectId, threadId, runId }, false)
  expect(cancelling.status).toBe('cancelling')
  expect(await store.runs.end(run.id, { status: 'expired' })).toBe('cancelled')
  expect(await now(run.id)).toMatchObject({ status: 'cancelled', cancelled_at: expect.any(Date) })
})

test('what an attempt has used that outlives its run is not counted after the run was', async () => {
  const run = await createRun(store)
  using turn = await claimed(run)
  await store.runs.end(run.id, { status: 'expired' })
  const usage = { ...none, prompt_tokens: 5, total_tokens: 5 }
  await turn.keepFailure(
    { code: 'server_error', message: 'Cut.' },
    { model: 'm', usage, estimated: false, cost: null },
  )
  const counted = await store.db.sql('SELECT * FROM usage WHERE run_id = $1', [run.id])
  expect(counted).toEqual([])
})

const none = {
  prompt_tokens: 0,
  completion_tokens: 0,
  total_tokens: 0,
  prompt_token_details: { cached_tokens: 0 },
  completion_tokens_details: { reasoning_tokens: 0 },
}
