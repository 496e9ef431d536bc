import { afterAll, beforeAll, describe, expect, test } from 'vitest'

import { isTerminal } from '../../wire/run-status.ts'
import { eventually } from '../local/scratch.ts'
import { answersIn, newThread } from '../support/cluster.ts'
import {
  checkEvents,
  gapFree,
  parsed,
  postStream,
  runIdOf,
  type Frame,
} from '../support/event-stream.ts'
import { closeGate } from '../support/gate.ts'
import { say } from '../support/model.ts'
import { noCode } from '../support/sandboxes.ts'
import { statusOfWorkflow } from '../support/own-parts.ts'
import { installationFor, victims, type Installation } from '../support/victims.ts'
import { answer, moments, type Moment, type Scene } from './kill-moments.ts'

/**
 * Once the victim is back, or from its kill where a supervisor brings it back. What takes longer is marked, and fails at twice
 * as long: other tests are at work on the same machine.
 */
const recoveryMs = 15_000

const matrix = new Map<string, string>()
afterAll(() => {
  process.stdout.write(`\nSeconds from the kill to the end of the run:\n${asTable()}\n`)
})

describe.each(victims)('when the %s is killed', (victim) => {
  // One for the whole row: what a cell leaves behind the next one meets.
  let installation: Installation
  beforeAll(async () => {
    installation = await installationFor(victim)
  })
  afterAll(async () => {
    await installation[Symbol.asyncDispose]()
  })

  test.for(moments)('$name: the run ends as it should, and once', async (moment, { skip }) => {
    skip(moment.name === 'during code' && noCode !== undefined, noCode)
    try {
      const { tookMs, sinceBackMs } = await expectRecovery(installation, moment)
      expect(sinceBackMs).toBeLessThan(2 * recoveryMs)
      const late = sinceBackMs > recoveryMs ? ' LATE' : ''
      matrix.set(victim + moment.name, `${(tookMs / 1000).toFixed(1)} ${moment.status}${late}`)
    } catch (error) {
      matrix.set(victim + moment.name, `FAILED: ${String(error).split('\n')[0]}`)
      throw error
    }
  })
})

/** Kills, and returns how long the run took to end: since the kill, and since the victim was back. */
async function expectRecovery(
  installation: Installation,
  moment: Moment,
): Promise<{ tookMs: number; sinceBackMs: number }> {
  const { victim, cluster, api, temporalAddress } = installation
  const { model, databaseUrl } = cluster
  await using gate = moment.gate && (await closeGate(databaseUrl, moment.gate))
  const callsBefore = model.calls
  model.respond((request, n) => moment.model(request, n - callsBefore))
  const { threadId, assistantId } = await newThread(api().client, 'When?', moment.tools)
  const stream = await postStream(`${api().baseUrl}/threads/${threadId}/runs`, {
    assistant_id: assistantId,
    ...moment.body,
  })
  await stream.saw('thread.run.created')
  const scene: Scene = { victim, api, cluster, threadId, runId: runIdOf(stream), stream, gate }
  await moment.reach(scene)

  const killedAt = performance.now()
  await installation.kill()
  await gate?.open()
  for (const request of model.requests) request.release()
  await installation.replace()
  const backAt = performance.now()
  await moment.goOn?.(scene)
  const status = await eventually(() => endOf(scene), 2 * recoveryMs)
  const endedAt = performance.now()

  expect(status).toBe(moment.status)
  expect(model.calls - callsBefore).toBe(moment.calls(victim))
  expect(model.requests.at(-1)?.toolResults.at(-1) ?? '').toMatch(moment.told?.(victim) ?? /^/)
  await expectOneAnswer(scene, moment)
  await expectUnbroken(scene, moment)
  await expectCounted(scene, moment)

  // Nothing is left of it, and its thread is free.
  const lock = 'SELECT id FROM runs WHERE thread_id = $1 AND holds_lock'
  expect(await cluster.sql(lock, [threadId])).toEqual([])
  const workflow = await eventually(() => workflowEnd(scene.runId, temporalAddress), 60_000)
  expect(workflow).toBe('COMPLETED')
  model.respond(() => say('Next.'))
  const { runs } = api().client.beta.threads
  const next = await runs.createAndPoll(threadId, { assistant_id: assistantId })
  expect(next.status).toBe('completed')
  await eventually(async () => (await cluster.sql('SELECT 1 FROM outbox')).length === 0)
  return { tookMs: endedAt - killedAt, sinceBackMs: endedAt - backAt }
}

/** As a client learns of it that asks until it is answered. */
async function endOf({ api, threadId, runId }: Scene): Promise<string | undefined> {
  try {
    const { runs } = api().client.beta.threads
    const { status } = await runs.retrieve(runId, { thread_id: threadId })
    return isTerminal(status) ? status : undefined
  } catch {
    return undefined
  }
}

/** Of a Temporal that may still be on its way back. */
async function workflowEnd(runId: string, address: string): Promise<string | undefined> {
  try {
    const status = await statusOfWorkflow(runId, address)
    return status === 'RUNNING' ? undefined : status
  } catch {
    return undefined
  }
}

async function expectOneAnswer({ api, threadId }: Scene, { status }: Moment): Promise<void> {
  const answers = await answersIn(api().client, threadId)
  if (status === 'completed') return expect(answers).toEqual([answer.join('')])
  // What was written until then, as one message.
  expect(answers).toHaveLength(1)
  expect(answers[0]).not.toBe('')
  expect(answer.join('').startsWith(answers[0] ?? '')).toBe(true)
}

/** The log is what every client gets that comes back, and the client that stayed has got the same. */
async function expectUnbroken(scene: Scene, { status, goOn, name }: Moment): Promise<void> {
  const { victim, cluster, runId, stream } = scene
  const log = await cluster.sql<Frame>(
    'SELECT seq, event, data FROM run_events WHERE run_id = $1 ORDER BY seq',
    [runId],
  )
  expect(log.map(({ seq }) => seq)).toEqual(gapFree([{ seq: 1 } as Frame, ...log.slice(1)]))
  const parkedAt = log.findIndex(({ event }) => event === 'thread.run.requires_action') + 1
  if (parkedAt > 0) await checkEvents(parsed(log.slice(0, parkedAt)))
  const { runStatus, texts } = await checkEvents(parsed(log.slice(parkedAt)), {
    continues: parkedAt > 0,
  })
  expect(runStatus).toBe(status)
  if (status === 'completed') expect(texts.at(-1)).toBe(answer.join(''))

  const isCut = victim === 'api' && !goOn && name !== 'just after submit'
  expect(await stream.ended).toBe(isCut ? 'broken' : 'done')
  const got = isCut ? stream.frames.length : parkedAt || log.length
  expect(stream.frames).toEqual(log.slice(0, got))
}

/** One row of usage for each call of the model, as told for what is committed; their sum is what the run says. */
async function expectCounted(
  { victim, cluster, runId }: Scene,
  { status, calls }: Moment,
): Promise<void> {
  const told = await cluster.sql<{ turn: number }>(
    'SELECT turn FROM usage WHERE run_id = $1 AND NOT estimated ORDER BY turn',
    [runId],
  )
  // An api asks no model, so with it no call is repeated: these are the turns.
  const turns = status === 'completed' ? calls('api') : 0
  expect(told).toEqual(Array.from({ length: turns }, (_, turn) => ({ turn })))
  const [sums] = await cluster.sql<{ rows: number; counted: number; said: number }>(
    `SELECT count(*)::int AS rows, sum(u.prompt_tokens + u.completion_tokens)::int AS counted,
       (r.usage ->> 'total_tokens')::int AS said
     FROM runs r JOIN usage u ON u.run_id = r.id WHERE r.id = $1 GROUP BY r.id`,
    [runId],
  )
  expect(sums?.rows).toBe(calls(victim))
  expect(sums?.said).toBe(sums?.counted)
}

function asTable(): string {
  const rows = [
    ['', ...moments.map(({ name }) => name)],
    ...victims.map((victim) => [
      victim,
      ...moments.map(({ name }) => matrix.get(victim + name) ?? 'not run'),
    ]),
  ]
  const widths = (rows[0] ?? []).map((_, at) =>
    Math.max(...rows.map((row) => (row[at] ?? '').length)),
  )
  const line = (row: string[]): string =>
    `| ${row.map((cell, at) => cell.padEnd(widths[at] ?? 0)).join(' | ')} |`
  const rule = line(widths.map((width) => '-'.repeat(width)))
  return [line(rows[0] ?? []), rule, ...rows.slice(1).map(line)].join('\n')
}
