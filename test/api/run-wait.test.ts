import { afterAll, beforeAll, expect, test } from 'vitest'

import { call, say, stallAfter, type ModelRequest } from '../support/model.ts'
import { startServer, type TestServer } from '../support/server.ts'
import { createCaller, refusal, refused, type Body, type Caller } from './caller.ts'

let server: TestServer
let api: Caller
beforeAll(async () => {
  server = await startServer()
  api = createCaller(server)
})
afterAll(() => server[Symbol.asyncDispose]())

/** A run whose model stands still until the request is released. */
async function stalledRun(): Promise<{ path: string; request: ModelRequest }> {
  const { model } = server
  model.script(stallAfter(1, 'Not yet, but soon.'))
  const calls = model.calls
  const run = await runOf(await api.make('/assistants', { model: 'm' }))
  return {
    path: `/threads/${String(run['thread_id'])}/runs/${run.id}`,
    request: await model.called(calls + 1),
  }
}

async function runOf(assistant: Body): Promise<Body> {
  const thread = { messages: [{ role: 'user', content: 'Hi' }] }
  return api.make('/threads/runs', { assistant_id: assistant.id, thread })
}

test('the answer is held until the run has ended', async () => {
  const { path, request } = await stalledRun()
  const held = api.read(`${path}?wait=60`)
  // Asked later and answered sooner: the first is being held.
  expect((await api.read(`${path}?wait=0`))['status']).toBe('in_progress')
  request.release()
  expect((await held)['status']).toBe('completed')
})

test('the answer is held until the run waits for its client', async () => {
  server.model.script(call({ name: 'f', arguments: {} }))
  const tools = [{ type: 'function', function: { name: 'f' } }]
  const run = await runOf(await api.make('/assistants', { model: 'm', tools }))
  const path = `/threads/${String(run['thread_id'])}/runs/${run.id}`
  expect((await api.read(`${path}?wait=60`))['status']).toBe('requires_action')
})

test('when the time has passed the run is shown as it is', async () => {
  const { path, request } = await stalledRun()
  expect((await api.read(`${path}?wait=1`))['status']).toBe('in_progress')
  request.release()
  expect((await api.read(`${path}?wait=60`))['status']).toBe('completed')
})

test('a run that has ended is shown at once', async () => {
  server.model.script(say('Done.'))
  const run = await runOf(await api.make('/assistants', { model: 'm' }))
  const ended = await api.settled(run['thread_id'], run.id)
  const path = `/threads/${String(run['thread_id'])}/runs/${run.id}`
  expect(await api.read(`${path}?wait=60`)).toEqual(ended)
})

test('nobody waits longer than a minute, nor for a run that is not there', async () => {
  const { path, request } = await stalledRun()
  request.release()
  expect(refusal(await api.get(`${path}?wait=61`))).toEqual(
    refused(
      400,
      "Invalid 'wait': integer above maximum value. Expected a value <= 60, but got 61 instead.",
      'wait',
      'integer_above_max_value',
    ),
  )
  expect(refusal(await api.get(`${path}?wait=-1`))).toMatchObject({ status: 400, param: 'wait' })
  expect(refusal(await api.get(`${path}?wait=soon`))).toMatchObject({ status: 400, param: 'wait' })
  const { id } = await api.make('/threads')
  expect((await api.get(`/threads/${id}/runs/run_nobody?wait=60`)).status).toBe(404)
})
