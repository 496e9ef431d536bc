import { randomUUID } from 'node:crypto'

import { pino } from 'pino'
import { afterAll, beforeAll, expect, test } from 'vitest'

import { prepare } from '../../activities/prepare.ts'
import type { Store } from '../../store/index.ts'
import { idFrom } from '../../wire/ids.ts'
import { createRun, newRun, openTestStore } from '../store/rows.ts'
import { createDatabase } from '../support/server.ts'
import { aRoute } from './rows.ts'

let store: Store
const stack = new AsyncDisposableStack()
beforeAll(async () => {
  const database = stack.use(await createDatabase())
  store = stack.use(await openTestStore(database.url))
})
afterAll(() => stack.disposeAsync())

test('a note of what the prompt leaves out that cannot be kept is logged, and the turn goes on', async () => {
  const first = await createRun(store)
  const { project_id, thread_id } = first
  await store.runs.end(first.id, { status: 'expired' })
  for (const value of ['left out', 'shown']) {
    const content = [{ type: 'text' as const, text: { value, annotations: [] } }]
    const id = idFrom('message', randomUUID())
    const message = { id, role: 'user' as const, content, attachments: [], metadata: {} }
    await store.messages.create(project_id, thread_id, message, null)
  }
  await store.db.sql(`ALTER TABLE runs ADD CONSTRAINT no_context CHECK (context IS NULL)`)
  const { run } = await store.runs.create(
    newRun({
      project_id,
      assistant_id: first.assistant_id,
      truncation_strategy: { type: 'last_messages', last_messages: 1 },
    }),
    thread_id,
    [],
  )
  const claim = await store.turns.claim({
    runId: run.id,
    turn: 0,
    generationId: randomUUID(),
    model: 'm',
  })
  if (claim.kind !== 'claimed') throw new Error(`The turn was not claimed: ${claim.kind}`)
  using turn = claim.turn

  const logged: string[] = []
  const log = pino({ base: undefined }, { write: (line) => void logged.push(line) })
  const prepared = await prepare({ store, log }, turn, aRoute())
  if ('incomplete' in prepared) throw new Error(`The run met ${prepared.incomplete}`)
  await prepared.kept
  expect(prepared.request.messages).toEqual([{ role: 'user', content: 'shown' }])
  expect(logged.map((line) => JSON.parse(line))).toEqual([
    expect.objectContaining({ run_id: run.id, err: expect.anything() }),
  ])
})
