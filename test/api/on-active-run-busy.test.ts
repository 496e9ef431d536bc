import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'

import { queryOnce, textOf } from '../support/cluster.ts'
import { postStream } from '../support/event-stream.ts'
import { say, stallAfter, type ModelRequest } from '../support/model.ts'
import { startServer, type TestServer } from '../support/server.ts'
import { createCaller, refusal, refused, type Body, type Caller } from './caller.ts'

let server: TestServer
let api: Caller
beforeAll(async () => {
  server = await startServer()
  api = createCaller(server)
})
afterAll(() => server[Symbol.asyncDispose]())
beforeEach(() => server.model.respond(() => say('Later.')))

const waits = { 'longrun-on-active-run': 'enqueue' }

/** A thread whose run has begun to write its answer, as clients can see, and stands still. */
async function busyThread(): Promise<{
  thread: string
  assistantId: string
  run: Body
  request: ModelRequest
}> {
  const { model } = server
  const before = model.calls
  model.script(stallAfter(1, ['An ', 'answer.']))
  const assistant = await api.make('/assistants', { model: 'm' })
  const run = await api.make('/threads/runs', {
    assistant_id: assistant.id,
    thread: { messages: [{ role: 'user', content: 'A question?' }] },
  })
  const request = await model.called(before + 1)
  const thread = `/threads/${String(run['thread_id'])}`
  await expect.poll(async () => (await api.read(`${thread}/messages`)).data.length).toBe(2)
  return { thread, assistantId: assistant.id, run, request }
}

async function post(thread: string, content: string): Promise<Body> {
  const answer = await api.post(`${thread}/messages`, { role: 'user', content }, { headers: waits })
  expect(answer.status).toBe(200)
  return answer.body
}

async function settled({ id, thread_id }: Body): Promise<Body> {
  return api.settled(thread_id, id)
}

test.each(['asc', 'desc'] as const)(
  'a pager that is under way while held messages are let go misses none (%s)',
  async (order) => {
    // The messages come before the answer has begun, so that it is written after them.
    const { model } = server
    const calls = model.calls
    model.script(
      stallAfter(0, { calls: [{ name: 'nobody', arguments: {} }] }),
      stallAfter(1, ['An ', 'answer.']),
    )
    const assistant = await api.make('/assistants', { model: 'm' })
    const question = { messages: [{ role: 'user', content: 'A question?' }] }
    const run = await api.make('/threads/runs', { assistant_id: assistant.id, thread: question })
    const thread = `/threads/${String(run['thread_id'])}`
    const first = await model.called(calls + 1)
    for (const content of ['b', 'c', 'd']) await post(thread, content)
    first.release()
    const request = await model.called(calls + 2)
    await expect.poll(async () => (await api.read(`${thread}/messages`)).data.length).toBe(5)
    const whole = async () => (await api.read(`${thread}/messages?order=${order}`)).data
    const before = (await whole()).map(({ id }) => id)
    const threadId = thread.replace('/threads/', '')
    // Wherever the pager stands when the run ends: here after the first, the second ... object.
    const pagers = []
    for (let seen = 1; seen < before.length; seen += 1) {
      pagers.push({
        ids: before.slice(0, seen),
        page: await server.client.beta.threads.messages.list(threadId, { order, limit: seen }),
      })
    }
    request.release()
    expect((await settled(run))['status']).toBe('completed')
    expect((await whole()).map(({ id }) => id)).toEqual(before)
    for (const { ids, page } of pagers) {
      expect(page.data.map(({ id }) => id)).toEqual(ids)
      const rest: string[] = []
      for await (const { id } of page) rest.push(id)
      expect(rest).toEqual(before)
    }
  },
)

test('a held message can be read, changed and deleted', async () => {
  const { thread, run, request } = await busyThread()
  const [kept, dropped] = [await post(thread, 'kept'), await post(thread, 'dropped')]
  const metadata = { mood: 'calm' }
  expect((await api.make(`${thread}/messages/${kept.id}`, { metadata }))['metadata']).toEqual(
    metadata,
  )
  expect((await api.delete(`${thread}/messages/${dropped.id}`)).status).toBe(200)
  request.release()
  await settled(run)
  const after = await api.read(`${thread}/messages/${kept.id}`)
  expect(after).toEqual({ ...kept, metadata })
  const threadId = thread.replace('/threads/', '')
  const list = await server.client.beta.threads.messages.list(threadId, { order: 'asc' })
  expect(list.data.map(textOf)).toEqual(['A question?', 'An answer.', 'kept'])
})

test('of twenty runs that are asked for at once and may not wait one begins, and the others are told of it', async () => {
  const gate = Promise.withResolvers<void>()
  server.model.respond(async () => {
    await gate.promise
    return say('Mine.')
  })
  const { id: assistant_id } = await api.make('/assistants', { model: 'm' })
  const { id: threadId } = await api.make('/threads')
  const answers = await Promise.all(
    Array.from({ length: 20 }, () => api.post(`/threads/${threadId}/runs`, { assistant_id })),
  )
  const begun = answers.filter(({ status }) => status === 200)
  expect(begun).toHaveLength(1)
  const winner = begun[0]?.body as Body
  for (const answer of answers.filter(({ status }) => status !== 200)) {
    expect(refusal(answer)).toEqual(
      refused(400, `Thread ${threadId} already has an active run ${winner.id}.`),
    )
  }
  gate.resolve()
  expect((await settled(winner))['status']).toBe('completed')
})

test('a request that is repeated waits once', async () => {
  const { thread, assistantId: assistant_id, run, request } = await busyThread()
  const ask = () =>
    api.post(
      `${thread}/runs`,
      { assistant_id, additional_messages: [{ role: 'user', content: 'Once.' }] },
      { headers: { ...waits, 'idempotency-key': `wait-${run.id}` } },
    )
  const [first, again] = [await ask(), await ask()]
  expect(first.status).toBe(200)
  expect(again.body).toEqual(first.body)
  expect((await api.read(`${thread}/runs`)).data).toHaveLength(2)
  expect((await api.read(`${thread}/messages`)).data).toHaveLength(3)
  request.release()
  expect((await settled(first.body))['status']).toBe('completed')
})

test('a thread that is deleted takes the runs that wait for it along, and their streams end', async () => {
  const { thread, assistantId: assistant_id, request } = await busyThread()
  const { calls } = server.model
  const stream = await postStream(`${server.baseUrl}${thread}/runs`, {
    assistant_id,
    on_active_run: 'enqueue',
  })
  await stream.saw('thread.run.queued')
  const plain = await api.make(`${thread}/runs`, { assistant_id, on_active_run: 'enqueue' })
  expect((await api.delete(thread)).status).toBe(200)
  await stream.ended
  expect(await request.closed).toBe('closed by the client')
  expect((await api.get(`${thread}/runs/${plain.id}`)).status).toBe(404)
  const left = await queryOnce(server.databaseUrl, 'SELECT id FROM runs WHERE thread_id = $1', [
    thread.replace('/threads/', ''),
  ])
  expect(left).toEqual([])
  expect(server.model.calls).toBe(calls)
})

test('clients of v1 say it in the same words', async () => {
  const { thread, assistantId: assistant_id, request } = await busyThread()
  const v1 = createCaller(server, 'any', 'v1')
  const run = await v1.make(`${thread}/runs`, { assistant_id, on_active_run: 'enqueue' })
  expect(run['status']).toBe('queued')
  request.release()
  expect((await settled(run))['status']).toBe('completed')
})

test('a header that says nothing we know is refused in the words for bodies', async () => {
  const { thread, assistantId: assistant_id, run, request } = await busyThread()
  const headers = { 'longrun-on-active-run': 'later' }
  const message =
    "Invalid value: 'later'. Supported values are: 'reject', 'enqueue', 'interrupt', and 'rollback'."
  const body = { role: 'user', content: 'x' }
  for (const answer of [
    await api.post(`${thread}/runs`, { assistant_id }, { headers }),
    await api.post(`${thread}/messages`, body, { headers }),
  ]) {
    expect(refusal(answer)).toMatchObject({ status: 400, message, code: 'invalid_value' })
  }
  request.release()
  await settled(run)
})
