import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'

import { createCaller, refusal, refused, type Body, type Caller } from '../api/caller.ts'
import { newThread, startCluster } from '../support/cluster.ts'
import { parsed, postStream, type RawStream } from '../support/event-stream.ts'
import { call, errorAfter, fail, say, sayAndCall, silence, stallAfter } from '../support/model.ts'
import { startServer, type TestServer } from '../support/server.ts'

/** What each state of a run shows, from state to state; what is in test/api/runs.test.ts already is not here. */

const patience = { timeout: 20_000 }
/** For tests that start processes, one after the other. */
const manyProcesses = { timeout: 180_000 }
const tools = [{ type: 'function' as const, function: { name: 'weather' } }]

let server: TestServer
let api: Caller
beforeAll(async () => {
  // A failed answer is not asked for again: the run fails with what it had written. A silent model is left alone until the
  // run's deadline.
  server = await startServer({ MODEL_ATTEMPTS: '1', MODEL_IDLE_TIMEOUT_S: '60' })
  api = createCaller(server)
})
afterAll(() => server[Symbol.asyncDispose]())
beforeEach(() => server.model.respond(() => say('Hello there.')))

test('a run that asks for functions shows in each state what belongs to it', async () => {
  const usages = [
    { promptTokens: 260, completionTokens: 12 },
    { promptTokens: 284, completionTokens: 42 },
  ]
  server.model.script(
    call({ name: 'weather', arguments: { at: 'A' } }, { usage: usages[0] ?? null }),
    say('Rain.', { usage: usages[1] ?? null }),
  )
  const asks = await streamed({ tools })
  const [created, queued, begun, waiting] = runsIn(asks)
  const never = { completed_at: null, cancelled_at: null, failed_at: null, last_error: null }
  const open = { ...never, usage: null, incomplete_details: null }
  const deadline = created?.['expires_at']
  expect(created).toMatchObject({ ...open, status: 'queued', started_at: null })
  expect(queued).toEqual(created)
  const startedAt = Number(begun?.['started_at'])
  expect(startedAt).toBeGreaterThanOrEqual(Number(created?.['created_at']))
  expect(begun).toEqual({ ...queued, status: 'in_progress', started_at: startedAt })
  expect(waiting).toEqual({
    ...begun,
    status: 'requires_action',
    required_action: { type: 'submit_tool_outputs', submit_tool_outputs: expect.anything() },
    longrun: expect.anything(),
  })
  expect(await stepsOf(waiting)).toMatchObject([
    {
      status: 'in_progress',
      completed_at: null,
      expires_at: deadline,
      usage: null,
      step_details: { tool_calls: [{ function: { name: 'weather', output: null } }] },
    },
  ])

  // Times are in seconds: the next start must be in another one.
  await expect.poll(() => Math.floor(Date.now() / 1000), patience).toBeGreaterThan(startedAt)
  const goesOn = await submitted(waiting)
  const [again, resumed, over] = runsIn(goesOn)
  expect(again).toMatchObject({
    ...open,
    status: 'queued',
    required_action: null,
    started_at: startedAt,
    expires_at: deadline,
  })
  expect(resumed).toMatchObject({ ...open, status: 'in_progress', expires_at: deadline })
  expect(Number(resumed?.['started_at'])).toBeGreaterThan(startedAt)
  expect(over).toMatchObject({
    ...never,
    status: 'completed',
    completed_at: expect.any(Number),
    started_at: resumed?.['started_at'],
    expires_at: null,
    // 260 + 284, 12 + 42.
    usage: { prompt_tokens: 544, completion_tokens: 54, total_tokens: 598 },
  })
  expect(await stepsOf(over)).toMatchObject([
    {
      type: 'tool_calls',
      status: 'completed',
      completed_at: expect.any(Number),
      usage: { prompt_tokens: 260, completion_tokens: 12, total_tokens: 272 },
      step_details: { tool_calls: [{ function: { name: 'weather', output: 'rain' } }] },
    },
    {
      type: 'message_creation',
      status: 'completed',
      completed_at: expect.any(Number),
      usage: { prompt_tokens: 284, completion_tokens: 42, total_tokens: 326 },
    },
  ])
})

describe('a run that ends otherwise', () => {
  test('incomplete, is completed at a time, and so is its step, but not its message', async () => {
    server.model.script(say('Cut', { finishReason: 'length' }))
    const over = last(await streamed())
    expect(over).toMatchObject({
      status: 'incomplete',
      completed_at: expect.any(Number),
      failed_at: null,
      cancelled_at: null,
      expires_at: null,
      incomplete_details: { reason: 'max_completion_tokens' },
      usage: { total_tokens: expect.any(Number) },
    })
    expect(await stepsOf(over)).toMatchObject([
      { status: 'completed', completed_at: expect.any(Number), failed_at: null },
    ])
    expect(await answersOf(over)).toMatchObject([
      {
        status: 'incomplete',
        incomplete_at: expect.any(Number),
        completed_at: null,
        incomplete_details: { reason: 'max_tokens' },
      },
    ])
  })

  test('failed while it wrote, closes its step and its message, whose text stays', async () => {
    server.model.script(errorAfter(1, ['Half ', 'of it.'], { message: 'Out of order.' }))
    const over = last(await streamed())
    const error = { code: 'server_error', message: expect.stringContaining('Out of order.') }
    expect(over).toMatchObject({
      status: 'failed',
      failed_at: expect.any(Number),
      completed_at: null,
      cancelled_at: null,
      expires_at: null,
      last_error: error,
    })
    expect(await stepsOf(over)).toMatchObject([
      { status: 'failed', failed_at: expect.any(Number), completed_at: null, last_error: error },
    ])
    expect(await answersOf(over)).toMatchObject([
      {
        status: 'incomplete',
        incomplete_at: expect.any(Number),
        incomplete_details: { reason: 'run_failed' },
        content: [{ text: { value: 'Half ' } }],
      },
    ])
  })

  test('cancelled while it waits for outputs, asks for them no longer', async () => {
    const waiting = await waitingRun()
    expect(await api.make(`${pathOf(waiting)}/cancel`)).toMatchObject({
      status: 'cancelling',
      cancelled_at: null,
      completed_at: null,
    })
    const over = await settled(waiting)
    expect(over).toMatchObject({
      status: 'cancelled',
      cancelled_at: expect.any(Number),
      completed_at: null,
      failed_at: null,
      expires_at: null,
      required_action: null,
    })
    expect(await stepsOf(over)).toMatchObject([
      {
        status: 'cancelled',
        cancelled_at: expect.any(Number),
        completed_at: null,
        step_details: { tool_calls: [{ function: { name: 'weather', output: null } }] },
      },
    ])
    await expectFree(over)
  })

  test('expired while it waits for outputs, keeps its deadline and asks for them no longer', async () => {
    const waiting = await waitingRun({ expires_after_seconds: 6 })
    const over = await ended(waiting)
    expect(over).toMatchObject({
      status: 'expired',
      expires_at: waiting['expires_at'],
      completed_at: null,
      cancelled_at: null,
      failed_at: null,
      required_action: null,
    })
    expect(await stepsOf(over)).toMatchObject([
      { status: 'expired', expired_at: expect.any(Number), completed_at: null },
    ])
    expect(refusal(await submit(waiting))).toEqual(outputsRefused('expired'))
    expect(refusal(await api.post(`${pathOf(over)}/cancel`))).toEqual(cancelRefused('expired'))
    await expectFree(over)
  })

  test('expired while it wrote, closes its step and its message, whose text stays', async () => {
    server.model.script(stallAfter(1, ['Half ', 'of it.']))
    const over = last(await streamed({ expires_after_seconds: 6 }))
    expect(over).toMatchObject({ status: 'expired', expires_at: expect.any(Number) })
    expect(await stepsOf(over)).toMatchObject([
      { status: 'expired', expired_at: expect.any(Number), expires_at: null },
    ])
    expect(await answersOf(over)).toMatchObject([
      {
        status: 'incomplete',
        incomplete_details: { reason: 'run_expired' },
        content: [{ text: { value: 'Half ' } }],
      },
    ])
    await expectFree(over)
  })

  test.each([
    ['failed', fail(400, { message: 'No such thing.' })],
    ['incomplete', say('Cut', { finishReason: 'length' })],
  ])('%s, takes neither outputs nor a cancel', async (status, step) => {
    server.model.script(step)
    const over = last(await streamed())
    expect(over['status']).toBe(status)
    const outputs = { tool_outputs: [{ tool_call_id: 'call_x', output: 'x' }] }
    expect(refusal(await api.post(`${pathOf(over)}/submit_tool_outputs`, outputs))).toEqual(
      outputsRefused(status),
    )
    expect(refusal(await api.post(`${pathOf(over)}/cancel`))).toEqual(cancelRefused(status))
    await expectFree(over)
  })

  test('cancelled, takes neither outputs nor another cancel', async () => {
    const waiting = await waitingRun()
    await api.make(`${pathOf(waiting)}/cancel`)
    await settled(waiting)
    expect(refusal(await submit(waiting))).toEqual(outputsRefused('cancelled'))
    expect(refusal(await api.post(`${pathOf(waiting)}/cancel`))).toEqual(cancelRefused('cancelled'))
  })
})

test(
  'the thread is locked in all four states of an active run, and late outputs name the state',
  manyProcesses,
  async () => {
    await using cluster = await startCluster()
    const { model } = cluster
    const { client, baseUrl = '' } = await cluster.spawn('api')
    const caller = createCaller({ baseUrl })
    const { threadId, assistantId } = await newThread(client, 'Rain?', tools)
    const run = await caller.make(`/threads/${threadId}/runs`, { assistant_id: assistantId })
    const given = { tool_outputs: [{ tool_call_id: 'call_x', output: 'x' }] }
    const outputs = `${pathOf(run)}/submit_tool_outputs`
    await expectLocked(caller, run, 'queued')
    expect(refusal(await caller.post(outputs, given))).toEqual(outputsRefused('queued'))

    model.script(sayAndCall('Let me see.', { name: 'weather', arguments: {} }), silence())
    const first = await cluster.spawn('worker')
    const waiting = await caller.settled(threadId, run.id)
    await expectLocked(caller, run, 'requires_action')
    const [callId = ''] = callsOf(waiting)
    expect(refusal(await caller.post(outputs, given))).toEqual(
      refused(400, `Expected tool outputs for call_ids ['${callId}'], got ['call_x']`),
    )

    // Without a worker the run stays queued, as it does for a moment with one.
    await first.kill('SIGTERM')
    const taken = { tool_outputs: [{ tool_call_id: callId, output: 'rain' }] }
    expect(await caller.make(outputs, taken)).toMatchObject({ status: 'queued' })
    await expectLocked(caller, run, 'queued')
    expect(refusal(await caller.post(outputs, taken))).toEqual(outputsRefused('queued'))

    const second = await cluster.spawn('worker')
    await model.called(2)
    await expectLocked(caller, run, 'in_progress')
    expect(refusal(await caller.post(outputs, taken))).toEqual(outputsRefused('in_progress'))

    await second.kill('SIGKILL')
    await caller.make(`${pathOf(run)}/cancel`)
    await expectLocked(caller, run, 'cancelling')
    expect(refusal(await caller.post(outputs, taken))).toEqual(outputsRefused('cancelling'))
    const { data: messages } = await caller.read(`/threads/${threadId}/messages?order=asc`)
    const deleted = await caller.delete(`/threads/${threadId}/messages/${messages[0]?.id}`)
    expect(deleted.body).toMatchObject({ deleted: true })
  },
)

test('a run that no worker has begun can be cancelled, and expires', manyProcesses, async () => {
  await using cluster = await startCluster({ env: { RECONCILE_S: '1' } })
  const { client, baseUrl = '' } = await cluster.spawn('api')
  const caller = createCaller({ baseUrl })
  const [one, other] = await Promise.all([newThread(client), newThread(client)])
  const cancelled = await caller.make(`/threads/${one.threadId}/runs`, {
    assistant_id: one.assistantId,
  })
  expect(await caller.make(`${pathOf(cancelled)}/cancel`)).toMatchObject({
    status: 'cancelling',
    cancelled_at: null,
  })
  // The sum over no step at all: only a run that is not over has none.
  const usage = { prompt_tokens: 0, completion_tokens: 0, total_tokens: 0 }
  const neverBegun = { started_at: null, completed_at: null, failed_at: null, usage }
  expect(await caller.settled(one.threadId, cancelled.id)).toMatchObject({
    ...neverBegun,
    status: 'cancelled',
    cancelled_at: expect.any(Number),
    expires_at: null,
  })

  const expired = await caller.make(`/threads/${other.threadId}/runs`, {
    assistant_id: other.assistantId,
    expires_after_seconds: 2,
  })
  const deadline = expired['expires_at']
  await expect
    .poll(() => caller.read(pathOf(expired)), patience)
    .toMatchObject({ ...neverBegun, status: 'expired', expires_at: deadline, cancelled_at: null })
  for (const run of [cancelled, expired]) {
    expect((await caller.read(`${pathOf(run)}/steps`)).data).toEqual([])
    const message = { role: 'user', content: 'And now?' }
    await caller.make(`/threads/${String(run['thread_id'])}/messages`, message)
  }
})

/** Nothing may be added to the thread; all else that the original allowed is. */
async function expectLocked(caller: Caller, run: Body, status: string): Promise<void> {
  const threadId = String(run['thread_id'])
  const path = `/threads/${threadId}`
  expect((await caller.read(pathOf(run)))['status']).toBe(status)
  const message = { role: 'user', content: 'And?' }
  expect(refusal(await caller.post(`${path}/messages`, message))).toEqual(
    refused(400, `Can't add messages to ${threadId} while a run ${run.id} is active.`),
  )
  const another = { assistant_id: run['assistant_id'], additional_messages: [message] }
  expect(refusal(await caller.post(`${path}/runs`, another))).toEqual(
    refused(400, `Thread ${threadId} already has an active run ${run.id}.`),
  )

  const metadata = { seen: status }
  expect(await caller.make(path, { metadata })).toMatchObject({ metadata })
  expect(await caller.make(pathOf(run), { metadata })).toMatchObject({ metadata, status })
  const { data: messages } = await caller.read(`${path}/messages?order=asc`)
  const [question] = messages
  expect(await caller.make(`${path}/messages/${question?.id}`, { metadata })).toMatchObject({
    metadata,
  })
  expect((await caller.read(`${path}/runs`)).data).toHaveLength(1)
  await caller.read(`${pathOf(run)}/steps`)
}

async function expectFree(run: Body): Promise<void> {
  const message = { role: 'user', content: 'And now?' }
  await api.make(`/threads/${String(run['thread_id'])}/messages`, message)
}

function outputsRefused(status: string) {
  return refused(400, `Runs in status "${status}" do not accept tool outputs.`)
}

function cancelRefused(status: string) {
  return refused(400, `Cannot cancel run with status '${status}'.`)
}

/** A run on a thread of its own, once its stream has ended. */
async function streamed(body: object = {}): Promise<RawStream> {
  const assistant = await api.make('/assistants', { model: 'm' })
  const thread = await api.make('/threads', { messages: [{ role: 'user', content: 'Hi' }] })
  const url = `${server.baseUrl}/threads/${thread.id}/runs`
  const stream = await postStream(url, { assistant_id: assistant.id, ...body })
  expect(await stream.ended).toBe('done')
  return stream
}

async function submitted(run: Body | undefined): Promise<RawStream> {
  const url = `${server.baseUrl}${pathOf(run)}/submit_tool_outputs`
  const stream = await postStream(url, { tool_outputs: outputsFor(run) })
  expect(await stream.ended).toBe('done')
  return stream
}

function submit(run: Body) {
  return api.post(`${pathOf(run)}/submit_tool_outputs`, { tool_outputs: outputsFor(run) })
}

async function waitingRun(body: object = {}): Promise<Body> {
  server.model.script(call({ name: 'weather', arguments: {} }))
  const waiting = last(await streamed({ tools, ...body }))
  expect(waiting['status']).toBe('requires_action')
  return waiting
}

/** The run as each of its events showed it. */
function runsIn({ frames }: RawStream): Body[] {
  return parsed(frames)
    .filter(({ event }) => /^thread\.run\.[a-z_]+$/.test(event))
    .map(({ data }) => data as Body)
}

function last(stream: RawStream): Body {
  const run = runsIn(stream).at(-1)
  if (!run) throw new Error('The stream had no run')
  return run
}

function settled(run: Body): Promise<Body> {
  return api.settled(run['thread_id'], run.id)
}

/** Of a run that is in requires_action, where polling would end. */
async function ended(run: Body): Promise<Body> {
  const statusOf = async () => (await api.read(pathOf(run)))['status']
  await expect.poll(statusOf, patience).not.toBe('requires_action')
  return settled(run)
}

async function stepsOf(run: Body | undefined): Promise<Body[]> {
  return (await api.read(`${pathOf(run)}/steps?order=asc`)).data
}

async function answersOf(run: Body): Promise<Body[]> {
  const path = `/threads/${String(run['thread_id'])}/messages`
  return (await api.read(`${path}?order=asc&run_id=${run.id}`)).data
}

function outputsFor(run: Body | undefined): object[] {
  return callsOf(run).map((id) => ({ tool_call_id: id, output: 'rain' }))
}

function callsOf(run: Body | undefined): string[] {
  const action = run?.['required_action'] as { submit_tool_outputs: { tool_calls: Body[] } } | null
  return (action?.submit_tool_outputs.tool_calls ?? []).map(({ id }) => id)
}

function pathOf(run: Body | undefined): string {
  return `/threads/${String(run?.['thread_id'])}/runs/${run?.id}`
}
