import { afterAll, beforeAll, expect, test } from 'vitest'

import { answersIn, lookUp, newThread, startCluster } from '../support/cluster.ts'
import { checkEvents, parsed, postStream, runIdOf } from '../support/event-stream.ts'
import { call, say, stallAfter } from '../support/model.ts'
import { startServer, type TestServer } from '../support/server.ts'

let server: TestServer
beforeAll(async () => {
  server = await startServer()
})
afterAll(async () => {
  await server[Symbol.asyncDispose]()
})

const text = ['Half ', 'of ', 'it ', 'and ', 'the ', 'rest.']

/** A run whose model has written half of its answer, all of which has reached the client, and is silent since. */
async function halfWritten(body: object = {}) {
  const { client, model, baseUrl } = server
  const before = model.calls
  model.script(stallAfter(3, text))
  const { threadId, assistantId } = await newThread(client)
  const stream = await postStream(`${baseUrl}/threads/${threadId}/runs`, {
    assistant_id: assistantId,
    ...body,
  })
  const request = await model.called(before + 1)
  await stream.saw('thread.message.delta')
  return { stream, request, threadId, assistantId, runId: runIdOf(stream) }
}

test('a run that is cancelled while it streams ends and keeps its text', async () => {
  const { client, model } = server
  const { stream, request, threadId, assistantId, runId } = await halfWritten()

  const answer = await client.beta.threads.runs.cancel(runId, { thread_id: threadId })
  expect(answer.status).toBe('cancelling')
  expect(await stream.ended).toBe('done')

  expect(await request.closed).toBe('closed by the client')
  const { events, runStatus, texts } = await checkEvents(parsed(stream.frames))
  expect(runStatus).toBe('cancelled')
  expect(events.slice(-4)).toEqual([
    'thread.run.cancelling',
    'thread.message.incomplete',
    'thread.run.step.cancelled',
    'thread.run.cancelled',
  ])
  expect(texts).toEqual(['Half of it '])
  expect(await answersIn(client, threadId)).toEqual(['Half of it '])

  // The lock went with the run.
  model.script(say('Anew.'))
  const next = await client.beta.threads.runs.createAndPoll(threadId, { assistant_id: assistantId })
  expect(next.status).toBe('completed')
})

test('a run that waits for tool outputs can be cancelled', async () => {
  const { client, model } = server
  const before = model.calls
  model.script(call({ name: 'look_up', arguments: {} }))
  const { threadId, assistantId } = await newThread(client, 'What is it?', [lookUp])
  const parked = await client.beta.threads.runs.createAndPoll(threadId, {
    assistant_id: assistantId,
  })
  expect(parked.status).toBe('requires_action')

  await client.beta.threads.runs.cancel(parked.id, { thread_id: threadId })
  const run = await client.beta.threads.runs.poll(parked.id, { thread_id: threadId })
  expect(run).toMatchObject({ status: 'cancelled', required_action: null })
  const steps = await client.beta.threads.runs.steps.list(parked.id, { thread_id: threadId })
  expect(steps.data.map(({ status }) => status)).toEqual(['cancelled'])

  model.script(say('Never mind.'))
  const next = await client.beta.threads.runs.createAndPoll(threadId, { assistant_id: assistantId })
  expect(next.status).toBe('completed')
  expect(model.calls - before).toBe(2)
})

test('a run past its deadline in mid-stream expires with what was written', async () => {
  const { client } = server
  const beganAt = performance.now()
  const { stream, request, threadId } = await halfWritten({ expires_after_seconds: 2 })
  expect(await stream.ended).toBe('done')
  const tookMs = performance.now() - beganAt
  expect(tookMs).toBeGreaterThan(1900)

  expect(await request.closed).toBe('closed by the client')
  const { events } = await checkEvents(parsed(stream.frames))
  expect(events.slice(-3)).toEqual([
    'thread.message.incomplete',
    'thread.run.step.expired',
    'thread.run.expired',
  ])
  const messages = await client.beta.threads.messages.list(threadId)
  expect(messages.data[0]).toMatchObject({
    role: 'assistant',
    status: 'incomplete',
    incomplete_details: { reason: 'run_expired' },
    content: [{ type: 'text', text: { value: 'Half of it ' } }],
  })
})

test('a run that waits for tool outputs past its deadline expires', async () => {
  const { client, model } = server
  model.script(call({ name: 'look_up', arguments: {} }))
  const { threadId, assistantId } = await newThread(client, 'What is it?', [lookUp])
  const body = { assistant_id: assistantId, expires_after_seconds: 2 }
  const parked = await client.beta.threads.runs.createAndPoll(threadId, body)
  expect(parked.status).toBe('requires_action')
  const run = await expect
    .poll(() => client.beta.threads.runs.retrieve(parked.id, { thread_id: threadId }), {
      timeout: 6000,
    })
    .toMatchObject({ status: 'expired', required_action: null })
    .then(() => client.beta.threads.runs.list(threadId))
  expect(run.data).toHaveLength(1)
})

test('a run that no worker has begun can be cancelled, and the model is never asked', async () => {
  await using cluster = await startCluster()
  const { model } = cluster
  const { client } = await cluster.spawn('api')
  const { threadId, assistantId } = await newThread(client)
  const queued = await client.beta.threads.runs.create(threadId, { assistant_id: assistantId })
  expect(queued.status).toBe('queued')

  await client.beta.threads.runs.cancel(queued.id, { thread_id: threadId })

  await cluster.spawn('worker')
  const run = await client.beta.threads.runs.poll(queued.id, { thread_id: threadId })
  expect(run.status).toBe('cancelled')
  expect(model.calls).toBe(0)
  expect(await cluster.sql('SELECT 1 FROM runs WHERE holds_lock')).toEqual([])
})

test('a run that no worker ever begins expires all the same, and unlocks its thread', async () => {
  await using cluster = await startCluster()
  const { client } = await cluster.spawn('api')
  const { threadId, assistantId } = await newThread(client)
  const body = { assistant_id: assistantId, expires_after_seconds: 1 }
  const { id } = await client.beta.threads.runs.create(threadId, body)

  await expect
    .poll(() => client.beta.threads.runs.retrieve(id, { thread_id: threadId }), { timeout: 10_000 })
    .toMatchObject({ status: 'expired' })
  const next = await client.beta.threads.runs.create(threadId, { assistant_id: assistantId })
  expect(next.status).toBe('queued')
})
