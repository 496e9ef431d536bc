import { expect, test } from 'vitest'

import { startServer } from '../support/server.ts'
import { walk } from './walks/walk.ts'

const seed = Number(process.env['WALK_SEED'] ?? Date.now() % 1_000_000)

test(`whatever clients ask for at once, the rules of runs are kept (WALK_SEED=${seed})`, async () => {
  await using server = await startServer({ RECONCILE_S: '1', MODEL_IDLE_TIMEOUT_S: '1' })
  const walked = await walk(server, { seed, clients: 6, threads: 3, commands: 70 })
  expect(walked.commands).toBeGreaterThan(300)
  // A walk that only ever saw refusals, or one kind of end, would have shown nothing.
  expect(Object.keys(walked.ends)).toEqual(expect.arrayContaining(['cancelled', 'completed']))
}, 240_000)
