import { globSync, readFileSync } from 'node:fs'
import { homedir, hostname } from 'node:os'
import { basename, join } from 'node:path'

import { Worker } from '@temporalio/worker'
import { beforeAll, describe, expect, inject, test } from 'vitest'

import { createLogger } from '../../log.ts'
import { workflowBundle } from '../../worker/bundle.ts'
import { installRuntime } from '../../worker/index.ts'

/**
 * Runs that were under way when a new version was installed go on with its code: it must ask for the same things in the
 * same order. The histories are real ones, made by test/histories/record.ts.
 */
const files = globSync('test/histories/*.json').toSorted()

let bundle: { codePath: string }
beforeAll(async () => {
  // A violation is logged before it is thrown, and one is expected here.
  installRuntime(createLogger('silent'))
  bundle = await workflowBundle(join(inject('testDir'), 'replay'), createLogger('error'))
})

test('there is a history for every way that a run can go', () => {
  expect(files.map((file) => basename(file, '.json'))).toEqual([
    'built-in-tool',
    'cancelled',
    'expired',
    'failed',
    'fallback',
    'function-rounds',
    'functions',
    'max-steps',
    'mixed-tools',
    'text',
  ])
})

describe.each(files)('%s', (file) => {
  test('is what the present workflow would do again', async () => {
    await expect(replay(historyOf(file))).resolves.toBeUndefined()
  })

  test('is that of a workflow that completed', () => {
    const { events } = historyOf(file)
    expect(events.at(-1)?.eventType).toBe('EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED')
  })

  test('holds nothing of the machine it was recorded on, nor of what people wrote', () => {
    const text = readFileSync(file, 'utf8')
    const all = [text, ...payloadsIn(historyOf(file))].join('\n')
    for (const trace of [homedir(), process.cwd()]) expect(all).not.toContain(trace)
    // A short name is found in any base64; as a word it is not.
    expect(all.split(/[^\w.-]+/)).not.toContain(hostname())
    expect(all).not.toMatch(/\d@|\/(home|root|Users|tmp|var)\/|node_modules/)
    expect(all).not.toMatch(/Hello|weather_report|rains|print\(/)
    expect(text.length).toBeLessThan(40_000)
  })
})

test('a history of something else is refused', async () => {
  const history = historyOf('test/histories/text.json')
  const text = JSON.stringify(history).replaceAll('"modelTurn"', '"somethingElse"')
  expect(text).toContain('somethingElse')
  await expect(replay(JSON.parse(text) as History)).rejects.toMatchObject({
    name: 'DeterminismViolationError',
  })
})

interface History {
  events: { eventType: string }[]
}

async function replay(history: History): Promise<void> {
  await Worker.runReplayHistory({ workflowBundle: bundle }, history, 'run_replayed')
}

function historyOf(file: string): History {
  // Written by the recorder.
  return JSON.parse(readFileSync(file, 'utf8')) as History
}

/** What the payloads of a history say, which in JSON are base64. */
function payloadsIn(value: unknown): string[] {
  if (typeof value !== 'object' || value === null) return []
  return Object.entries(value).flatMap(([key, inner]: [string, unknown]) =>
    key === 'data' && typeof inner === 'string'
      ? [Buffer.from(inner, 'base64').toString()]
      : payloadsIn(inner),
  )
}
