import { expect, test } from 'vitest'

import { cancelRequested, toolOutputsSubmitted, type RunInput } from '../../workflows/messages.ts'
import { startRun, type RunInTime } from './harness.ts'

const dayMs = 86_400_000
const beganAt = new Date('2026-01-01T00:00:00Z')

function inputFor(days: number): RunInput {
  return {
    runId: 'run_parked',
    expiresAt: beganAt.getTime() + days * dayMs,
    modelAttempts: 3,
    maxSteps: 50,
    model: 'gpt-4o',
    fallbackModels: [],
  }
}

/** A run whose first turn has asked for functions. */
async function parkedRun(days: number): Promise<RunInTime> {
  const run = await startRun(inputFor(days), beganAt)
  expect(typesOf(run)).toEqual(['modelTurn'])
  await run.succeed('modelTurn', { kind: 'requires_action', stepId: 'step_1' })
  expect(typesOf(run)).toEqual([])
  return run
}

function typesOf(run: RunInTime): string[] {
  return run.activities().map(({ type }) => type)
}

test.each([30, 89])(
  'a run that is parked for %d of 90 days goes on and completes',
  async (days) => {
    await using run = await parkedRun(90)
    await run.pass(days * dayMs)
    expect(typesOf(run)).toEqual([])
    expect(run.result()).toBeUndefined()

    // No worker keeps a run in memory for so long.
    await run.moveToAnotherWorker()
    await run.signal(toolOutputsSubmitted, { stepId: 'step_1' })
    expect(run.activities()).toMatchObject([
      { type: 'modelTurn', args: [{ runId: 'run_parked', turn: 1, model: 'gpt-4o' }] },
    ])
    await run.succeed('modelTurn', { kind: 'ended', status: 'completed' })
    expect(run.result()).toBe('completed')
  },
)

test('a run that is parked again and again has one deadline, from its beginning', async () => {
  await using run = await parkedRun(90)
  for (const turn of [1, 2, 3]) {
    await run.pass(29 * dayMs)
    await run.signal(toolOutputsSubmitted, { stepId: `step_${turn}` })
    await run.succeed('modelTurn', { kind: 'requires_action', stepId: `step_${turn + 1}` })
  }
  expect(run.timers().filter((ms) => ms <= 3 * dayMs)).toEqual([3 * dayMs])
  await run.pass(3 * dayMs - 1)
  expect(typesOf(run)).toEqual([])
  await run.pass(1)
  expect(run.activities()).toMatchObject([
    { type: 'finalizeRun', args: ['run_parked', { status: 'expired' }] },
  ])
})

test('a run whose outputs never come expires at its deadline, not before', async () => {
  await using run = await parkedRun(90)
  await run.pass(90 * dayMs - 1)
  expect(typesOf(run)).toEqual([])
  await run.moveToAnotherWorker()
  await run.pass(1)
  expect(run.activities()).toMatchObject([
    { type: 'finalizeRun', args: ['run_parked', { status: 'expired' }] },
  ])
  // The store has the last word: the outputs may have come at the same moment.
  await run.succeed('finalizeRun', 'expired')
  expect(run.result()).toBe('expired')
})

test('outputs of another step wake nobody, and a repeated signal changes nothing', async () => {
  await using run = await parkedRun(90)
  await run.signal(toolOutputsSubmitted, { stepId: 'step_0' })
  await run.pass(dayMs)
  expect(typesOf(run)).toEqual([])
  await run.signal(toolOutputsSubmitted, { stepId: 'step_1' })
  await run.signal(toolOutputsSubmitted, { stepId: 'step_1' })
  expect(typesOf(run)).toEqual(['modelTurn'])
})

test('a run that is parked for a month can be cancelled', async () => {
  await using run = await parkedRun(90)
  await run.pass(30 * dayMs)
  await run.signal(cancelRequested)
  expect(run.activities()).toMatchObject([
    { type: 'finalizeRun', args: ['run_parked', { status: 'cancelled' }] },
  ])
  await run.succeed('finalizeRun', 'cancelled')
  expect(run.result()).toBe('cancelled')
})
