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

test('a run answers on its thread', async () => {
  const { client, model } = server
  model.script(say('Hello there.'))
  const assistant = await client.beta.assistants.create({ model: 'gpt-4o' })
  const run = await client.beta.threads.createAndRunPoll({
    assistant_id: assistant.id,
    thread: { messages: [{ role: 'user', content: 'Hi' }] },
  })
  expect(run.status).toBe('completed')
  const messages = await client.beta.threads.messages.list(run.thread_id)
  expect(messages.data.map(({ role }) => role)).toEqual(['assistant', 'user'])
})
