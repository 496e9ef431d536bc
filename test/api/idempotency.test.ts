import { randomUUID } from 'node:crypto'

import { afterAll, beforeAll, expect, test } from 'vitest'

import { say } from '../support/model.ts'
import { startServer, type TestServer } from '../support/server.ts'

let server: TestServer
beforeAll(async () => {
  server = await startServer()
})
afterAll(async () => {
  await server[Symbol.asyncDispose]()
})

function post(path: string, body: object, key: string): Promise<Response> {
  return fetch(`${server.baseUrl}${path}`, {
    method: 'POST',
    headers: {
      authorization: 'Bearer test',
      'content-type': 'application/json',
      'openai-beta': 'assistants=v2',
      'idempotency-key': key,
    },
    body: JSON.stringify(body),
  })
}

test('a POST that is repeated under its key is carried out once and answered alike', async () => {
  const key = randomUUID()
  const first = await post('/assistants', { model: 'gpt-4o' }, key)
  const again = await post('/assistants', { model: 'gpt-4o' }, key)
  expect(await again.json()).toEqual(await first.json())
  expect(first.headers.get('idempotency-replayed')).toBeNull()
  expect(again.headers.get('idempotency-replayed')).toBe('true')
})

test('a key cannot be used for another request', async () => {
  const key = randomUUID()
  await post('/assistants', { model: 'gpt-4o' }, key)
  const other = await post('/assistants', { model: 'gpt-4o-mini' }, key)
  expect(other.status).toBe(400)
  expect(await other.json()).toMatchObject({ error: { code: 'idempotency_error' } })
})

test('a refused request leaves its key free', async () => {
  const key = randomUUID()
  const refused = await post('/assistants', { model: 7 }, key)
  expect(refused.status).toBe(400)
  const mended = await post('/assistants', { model: 'gpt-4o' }, key)
  expect(mended.status).toBe(200)
})

test('of two requests at once one is carried out and the other told to try again, or answered alike', async () => {
  const key = randomUUID()
  const answers = await Promise.all([1, 2].map(() => post('/assistants', { model: 'gpt-4o' }, key)))
  const statuses = answers.map(({ status }) => status)
  expect(statuses).toContain(200)
  expect(statuses.every((status) => status === 200 || status === 409)).toBe(true)
  const { data } = await server.client.beta.assistants.list()
  const ids = await Promise.all(
    answers
      .filter(({ status }) => status === 200)
      .map(async (answer) => ((await answer.json()) as { id: string }).id),
  )
  expect(new Set(ids).size).toBe(1)
  expect(data.filter(({ id }) => ids.includes(id))).toHaveLength(1)
})

test('a streamed run that is repeated under its key is the same run, streamed from its beginning', async () => {
  const { client, model } = server
  model.script(say('One answer.'))
  const assistant = await client.beta.assistants.create({ model: 'gpt-4o' })
  const body = {
    assistant_id: assistant.id,
    stream: true,
    thread: { messages: [{ role: 'user', content: 'Hi' }] },
  }
  const key = randomUUID()
  const first = await (await post('/threads/runs', body, key)).text()
  const again = await (await post('/threads/runs', body, key)).text()
  expect(again).toBe(first)
  expect(first).toContain('event: thread.run.completed')
})
