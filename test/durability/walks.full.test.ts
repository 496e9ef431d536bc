import { expect, test } from 'vitest'

import { startServer } from '../support/server.ts'
import { walk } from './walks/walk.ts'

const seed = Number(process.env['WALK_SEED'] ?? Date.now() % 1_000_000)

test(`a long walk, with workflows terminated on the way, keeps the rules of runs (WALK_SEED=${seed})`, async () => {
  await using server = await startServer({ RECONCILE_S: '1', MODEL_IDLE_TIMEOUT_S: '1' })
  const walked = await walk(server, {
    seed,
    clients: 8,
    threads: 4,
    commands: 400,
    terminations: 0.03,
  })
  expect(walked.commands).toBeGreaterThan(3000)
  expect(Object.keys(walked.ends)).toEqual(
    expect.arrayContaining(['cancelled', 'completed', 'expired', 'failed', 'incomplete']),
  )
}, 900_000)
