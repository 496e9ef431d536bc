import { expect } from 'vitest'

import { isTerminal, type RunStatus } from '../../../wire/run-status.ts'
import type { Answer, Body, createCaller } from '../../api/caller.ts'
import { lookUp } from '../../support/cluster.ts'
import { checkEvents } from '../../support/event-stream.ts'
import type { Random } from '../../support/random.ts'

export type Caller = ReturnType<typeof createCaller>

/** What a client on a thread may do next. */
export interface Walker {
  random: Random
  caller: Caller
  threadId: string
  assistantId: string
  /** Sends a request and holds its answer against what may be answered; a 200 only where `refusals` are not all there is. */
  ask(
    method: string,
    path: string,
    body: unknown,
    rules: { refusals: RegExp[]; isValid: boolean },
  ): Promise<Answer>
}

type Command = (walker: Walker) => Promise<void>

const gone = /^No (thread|run|message) found with id '\w+'\.$/
const locked = /^Thread thread_\w+ already has an active run /
const lockedForMessages = /^Can't add messages to thread_\w+ while a run run_\w+ is active\.$/
const notAccepted =
  /^Runs in status "(queued|in_progress|cancelling|completed|incomplete|failed|cancelled|expired)" do not accept tool outputs\.$/
const doNotMatch = /^Expected tool outputs for call_ids \[/
const cannotCancel =
  /^Cannot cancel run with status '(completed|incomplete|failed|cancelled|expired)'\.$/

const modes = ['reject', 'enqueue', 'interrupt', 'rollback', undefined] as const

/** Weighed so that runs are created about as often as they are ended. */
export const commands: [weight: number, command: Command][] = [
  [18, createRun],
  [10, createStreamedRun],
  [3, createRunWithMessages],
  [3, createInvalidRun],
  [20, submit],
  [5, submitStreamed],
  [5, submitWrong],
  [4, submitPart],
  [7, cancel],
  [6, wait],
  [6, retrieve],
  [4, listAll],
  [7, postMessage],
  [3, modifyRun],
  [3, modifyMessage],
  [2, deleteMessage],
]

async function createRun(walker: Walker): Promise<void> {
  await ask(walker, 'POST', '/runs', newRun(walker), [locked, gone])
}

async function createRunWithMessages(walker: Walker): Promise<void> {
  const additional_messages = [{ role: 'user', content: 'And this.' }]
  const body = { ...newRun(walker), additional_messages }
  await ask(walker, 'POST', '/runs', body, [locked, lockedForMessages, gone])
}

async function createStreamedRun(walker: Walker): Promise<void> {
  const body = { ...newRun(walker), stream: true }
  const answer = await ask(walker, 'POST', '/runs', body, [locked, gone])
  if (answer.status === 200) await checkStream(walker, answer)
}

async function createInvalidRun(walker: Walker): Promise<void> {
  const [body, refusal] = walker.random.pick([
    [{ ...newRun(walker), assistant_id: 'asst_none' }, /^No assistant found with id/],
    [{ ...newRun(walker), model: 7 }, /^Invalid type for 'model'/],
    [{ ...newRun(walker), colour: 'red' }, /^Unknown parameter: 'colour'/],
    [{ ...newRun(walker), on_active_run: 'shout' }, /^Invalid value: 'shout'/],
  ] as const)
  await refuse(walker, 'POST', '/runs', body, [refusal, locked, gone])
}

async function submit(walker: Walker): Promise<void> {
  const { runId, outputs } = await pendingRun(walker)
  if (!runId) return
  const body = { tool_outputs: outputs }
  const refusals = [notAccepted, doNotMatch, gone]
  await ask(walker, 'POST', `/runs/${runId}/submit_tool_outputs`, body, refusals)
}

async function submitStreamed(walker: Walker): Promise<void> {
  const { runId, outputs } = await pendingRun(walker)
  if (!runId) return
  const body = { tool_outputs: outputs, stream: true }
  const refusals = [notAccepted, doNotMatch, gone]
  const path = `/runs/${runId}/submit_tool_outputs`
  const answer = await ask(walker, 'POST', path, body, refusals)
  if (answer.status === 200) await checkStream(walker, answer, { continues: true })
}

async function submitWrong(walker: Walker): Promise<void> {
  const { runId } = await pendingRun(walker)
  if (!runId) return
  const body = { tool_outputs: [{ tool_call_id: 'call_of_nobody', output: 'x' }] }
  const refusals = [notAccepted, doNotMatch, gone]
  await refuse(walker, 'POST', `/runs/${runId}/submit_tool_outputs`, body, refusals)
}

async function submitPart(walker: Walker): Promise<void> {
  const { runId, outputs } = await pendingRun(walker)
  if (!runId || outputs.length < 2) return
  const body = { tool_outputs: outputs.slice(1) }
  const refusals = [notAccepted, doNotMatch, gone]
  await refuse(walker, 'POST', `/runs/${runId}/submit_tool_outputs`, body, refusals)
}

async function cancel(walker: Walker): Promise<void> {
  const run = await anyRun(walker)
  if (!run) return
  const path = `/runs/${run.id}/cancel`
  const answer = await ask(walker, 'POST', path, undefined, [cannotCancel, gone])
  if (answer.status !== 200) return
  expect(['cancelling', 'cancelled']).toContain(answer.body['status'])
}

async function wait(walker: Walker): Promise<void> {
  const run = await anyRun(walker)
  if (run) checkRun((await ask(walker, 'GET', `/runs/${run.id}?wait=1`, undefined, [gone])).body)
}

async function retrieve(walker: Walker): Promise<void> {
  const run = await anyRun(walker)
  if (!run) return
  const { body, status } = await ask(walker, 'GET', `/runs/${run.id}`, undefined, [gone])
  checkRun(body)
  // What is over stays as it is.
  if (status === 200 && isTerminal(run['status'] as RunStatus)) {
    expect(body['status']).toBe(run['status'])
  }
}

async function listAll(walker: Walker): Promise<void> {
  const runs = await ask(walker, 'GET', '/runs?limit=100', undefined, [gone])
  runs.body.data?.forEach(checkRun)
  await ask(walker, 'GET', '/messages?limit=100', undefined, [gone])
  const run = await anyRun(walker)
  if (run) await ask(walker, 'GET', `/runs/${run.id}/steps?limit=100`, undefined, [gone])
}

async function postMessage(walker: Walker): Promise<void> {
  const body = { role: 'user', content: `Question number ${walker.random.integer(1000)}?` }
  await ask(walker, 'POST', '/messages', body, [lockedForMessages, gone])
}

async function modifyRun(walker: Walker): Promise<void> {
  const run = await anyRun(walker)
  const metadata = { step: String(walker.random.integer(1000)) }
  if (run) await ask(walker, 'POST', `/runs/${run.id}`, { metadata }, [gone])
}

async function modifyMessage(walker: Walker): Promise<void> {
  const message = await anyMessage(walker)
  const metadata = { step: String(walker.random.integer(1000)) }
  if (message) await ask(walker, 'POST', `/messages/${message.id}`, { metadata }, [gone])
}

async function deleteMessage(walker: Walker): Promise<void> {
  const message = await anyMessage(walker)
  if (message) await ask(walker, 'DELETE', `/messages/${message.id}`, undefined, [gone])
}

function newRun({ random, assistantId }: Walker): object {
  const mode = random.pick(modes)
  return {
    assistant_id: assistantId,
    ...(mode && { on_active_run: mode }),
    ...(random.chance(0.3) && { tools: [] }),
    ...(random.chance(0.3) && { expires_after_seconds: 1 + random.integer(2) }),
    ...(random.chance(0.1) && { max_steps: 1 + random.integer(2) }),
    ...(random.chance(0.2) && { tools: [lookUp, { type: 'code_interpreter' }] }),
  }
}

/** A run that waits for its client, or else any: its outputs are then made up. */
async function pendingRun(walker: Walker) {
  const runs = await newestRuns(walker)
  const waiting = runs.filter(({ status }) => status === 'requires_action')
  const [run] = waiting.length > 0 ? [walker.random.pick(waiting)] : runs
  const action = run?.['required_action'] as RequiredAction | null | undefined
  const calls = action?.submit_tool_outputs.tool_calls ?? [{ id: 'call_made_up' }]
  return {
    runId: run?.id,
    outputs: calls.map(({ id }) => ({ tool_call_id: id, output: `Output of ${id}` })),
  }
}

interface RequiredAction {
  submit_tool_outputs: { tool_calls: { id: string }[] }
}

async function anyRun(walker: Walker): Promise<Body | undefined> {
  const runs = await newestRuns(walker)
  return runs.length > 0 ? walker.random.pick(runs) : undefined
}

async function newestRuns(walker: Walker): Promise<Body[]> {
  return (await ask(walker, 'GET', '/runs?limit=5', undefined, [gone])).body.data ?? []
}

async function anyMessage(walker: Walker): Promise<Body | undefined> {
  const answer = await ask(walker, 'GET', '/messages?limit=5', undefined, [gone])
  const messages = answer.body.data ?? []
  return messages.length > 0 ? walker.random.pick(messages) : undefined
}

function ask(
  walker: Walker,
  method: string,
  path: string,
  body: unknown,
  refusals: RegExp[],
): Promise<Answer> {
  return walker.ask(method, `/threads/${walker.threadId}${path}`, body, { refusals, isValid: true })
}

async function refuse(
  walker: Walker,
  method: string,
  path: string,
  body: unknown,
  refusals: RegExp[],
): Promise<void> {
  await walker.ask(method, `/threads/${walker.threadId}${path}`, body, { refusals, isValid: false })
}

/** What holds for a run whenever somebody looks at it. */
export function checkRun(run: Body): void {
  if (run['object'] !== 'thread.run') return
  const status = run['status'] as RunStatus
  const facts = {
    hasAction: run['required_action'] !== null,
    hasUsage: run['usage'] !== null,
    hasEnd: ['completed_at', 'failed_at', 'cancelled_at'].some((name) => run[name] !== null),
    hasError: run['last_error'] !== null,
  }
  expect(facts, `the run as it was answered, ${run.id}, ${status}`).toEqual({
    hasAction: status === 'requires_action',
    hasUsage: isTerminal(status),
    hasEnd: isTerminal(status) && status !== 'expired',
    hasError: status === 'failed',
  })
}

async function checkStream(walker: Walker, { text }: Answer, options = {}): Promise<void> {
  const frames = text.split('\n\n').filter((frame) => frame !== '')
  const isWhole = /^event: done/m.test(frames.at(-1) ?? '')
  if (!isWhole || frames.some((frame) => /^event: error/m.test(frame))) {
    const { status } = await ask(walker, 'GET', '', undefined, [gone])
    expect(status, 'a stream broke off although its thread is there').toBe(404)
    return
  }
  const events = frames
    .slice(0, -1)
    .filter((frame) => /^event: /m.test(frame))
    .map((frame) => ({
      event: /^event: (.*)$/m.exec(frame)?.[1] ?? '',
      data: JSON.parse(/^data: (.*)$/m.exec(frame)?.[1] ?? 'null') as unknown,
    }))
  await checkEvents(events, options)
}
