import { afterAll, beforeAll, expect, inject, test } from 'vitest'

import { answersIn, lookUp, newThread } from '../support/cluster.ts'
import { checkEvents, parsed, postStream, runIdOf } from '../support/event-stream.ts'
import { call, say, stallAfter } from '../support/model.ts'
import { terminateWorkflow } from '../support/own-parts.ts'
import { startServer, type TestServer } from '../support/server.ts'

let server: TestServer
beforeAll(async () => {
  server = await startServer({ RECONCILE_S: '1' })
})
afterAll(async () => {
  await server[Symbol.asyncDispose]()
})

test('a run whose workflow is terminated in mid-stream is begun again', async () => {
  const { client, model, baseUrl } = server
  model.script(stallAfter(3, ['Cut ', 'off ', 'by ', 'force.']), say('Whole.'))
  const { threadId, assistantId } = await newThread(client)
  const stream = await postStream(`${baseUrl}/threads/${threadId}/runs`, {
    assistant_id: assistantId,
  })
  await stream.saw('thread.message.delta')
  const request = await model.called(1)
  await terminateWorkflow(runIdOf(stream), inject('temporalAddress'))

  expect(await stream.ended).toBe('done')
  expect(await request.closed).toBe('closed by the client')
  expect(await checkEvents(parsed(stream.frames))).toMatchObject({
    runStatus: 'completed',
    texts: ['Cut off by ', 'Whole.'],
  })
  expect(model.calls).toBe(2)
  expect(await answersIn(client, threadId)).toEqual(['Whole.'])
})

test('a run whose workflow is terminated while it waits still takes its tool outputs', async () => {
  const { client, model } = server
  const before = model.calls
  model.script(call({ name: 'look_up', arguments: {} }), say('It is 42.'))
  const { threadId, assistantId } = await newThread(client, 'What is it?', [lookUp])
  const parked = await client.beta.threads.runs.createAndPoll(threadId, {
    assistant_id: assistantId,
  })
  const [pending] = parked.required_action?.submit_tool_outputs.tool_calls ?? []
  await terminateWorkflow(parked.id, inject('temporalAddress'))

  // At once, so that the signal finds nobody.
  const run = await client.beta.threads.runs.submitToolOutputsAndPoll(parked.id, {
    thread_id: threadId,
    tool_outputs: [{ tool_call_id: pending?.id ?? '', output: '42' }],
  })
  expect(run.status).toBe('completed')
  expect(model.calls - before).toBe(2)
  expect(model.requests.at(-1)?.toolResults).toEqual(['42'])
  expect(await answersIn(client, threadId)).toEqual(['It is 42.'])
})

test('a run whose workflow is terminated can be cancelled, and its thread is free again', async () => {
  const { client, model } = server
  model.script(call({ name: 'look_up', arguments: {} }), say('Free.'))
  const { threadId, assistantId } = await newThread(client, 'What is it?', [lookUp])
  const parked = await client.beta.threads.runs.createAndPoll(threadId, {
    assistant_id: assistantId,
  })
  await terminateWorkflow(parked.id, inject('temporalAddress'))
  await client.beta.threads.runs.cancel(parked.id, { thread_id: threadId })

  const run = await client.beta.threads.runs.poll(parked.id, { thread_id: threadId })
  expect(run.status).toBe('cancelled')
  const next = await client.beta.threads.runs.createAndPoll(threadId, { assistant_id: assistantId })
  expect(next.status).toBe('completed')
})
