import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'

import { call, say, silence, stallAfter } from '../support/model.ts'
import { startServer, type TestServer } from '../support/server.ts'
import { createCaller, type Body, type Caller } from './caller.ts'

let server: TestServer
let api: Caller
let assistantId: string
beforeAll(async () => {
  server = await startServer()
  api = createCaller(server)
  assistantId = (await api.make('/assistants', { model: 'm' })).id
})
afterAll(() => server[Symbol.asyncDispose]())
beforeEach(() => server.model.respond(() => say('Hello there.')))

const poll = { headers: { 'x-stainless-poll-helper': 'true' } }

describe('every answer', () => {
  test.each([
    ['that is fine', '/assistants', {}],
    ['that is an error', '/threads/thread_none', {}],
    ['without a key', '/assistants', { authorization: undefined }],
    ['for a route that is none', '/nothing', {}],
  ])('%s has the headers of the original', async (_, path, headers) => {
    const [one, other] = await Promise.all([api.get(path, { headers }), api.get(path, { headers })])
    expect(one.headers.get('x-request-id')).toMatch(/^req_[0-9a-f]{32}$/)
    expect(other.headers.get('x-request-id')).not.toBe(one.headers.get('x-request-id'))
    expect(one.headers.get('openai-version')).toBe('2020-10-01')
    expect(one.headers.get('openai-processing-ms')).toMatch(/^\d+$/)
    expect(one.headers.get('openai-organization')).toBeTruthy()
    expect(one.headers.get('x-content-type-options')).toBe('nosniff')
    expect(one.headers.get('content-type')).toMatch(/^application\/json/)
  })

  test('names the project of its key', async () => {
    const { headers } = await api.get('/assistants')
    expect(headers.get('openai-project')).toMatch(/^proj_\w+$/)
  })

  test('carries the request id to clients that look for it', async () => {
    const { _request_id } = await server.client.beta.threads.create()
    expect(_request_id).toMatch(/^req_/)
    await expect(server.client.beta.threads.retrieve('thread_none')).rejects.toMatchObject({
      status: 404,
      requestID: expect.stringMatching(/^req_/),
    })
  })
})

describe('an answer about a run', () => {
  test('says where an operator sees it, and how soon to ask again', async () => {
    const thread = await api.make('/threads')
    const made = await api.post(`/threads/${thread.id}/runs`, { assistant_id: assistantId })
    const path = `/threads/${thread.id}/runs/${made.body.id}`
    await api.settled(thread.id, made.body.id)
    for (const answer of [made, await api.get(path), await api.post(path, {})]) {
      expect(answer.headers.get('x-run-inspect-url')).toBe(
        `http://127.0.0.1:8233/namespaces/longrun/workflows/${made.body.id}`,
      )
      expect(Number(answer.headers.get('openai-poll-after-ms'))).toBeGreaterThan(0)
      expect(Number(answer.headers.get('openai-poll-after-ms'))).toBeLessThanOrEqual(500)
    }
  })

  test('that streams says so, keeps proxies from holding it, and is inspected too', async () => {
    const body = { assistant_id: assistantId, stream: true }
    const { headers, text } = await api.post('/threads/runs', body)
    expect(headers.get('content-type')).toBe('text/event-stream; charset=utf-8')
    expect(headers.get('cache-control')).toContain('no-cache')
    expect(headers.get('x-accel-buffering')).toBe('no')
    expect(headers.get('x-run-inspect-url')).toMatch(/\/workflows\/run_\w+$/)
    expect(headers.get('x-request-id')).toMatch(/^req_/)
    expect(text.endsWith('event: done\ndata: [DONE]\n\n')).toBe(true)
  })

  test('is JSON though a stream would be accepted', async () => {
    const headers = { accept: 'application/json, text/event-stream' }
    const answer = await api.post('/threads/runs', { assistant_id: assistantId }, { headers })
    expect(answer.headers.get('content-type')).toMatch(/^application\/json/)
    expect(answer.body['object']).toBe('thread.run')
    await api.settled(answer.body['thread_id'], answer.body.id)
  })
})

describe('a poll that says it is one', () => {
  /** A run whose model has begun and waits to be released. */
  async function begun() {
    server.model.respond(() => stallAfter(1, 'Hello there.'))
    const asked = server.model.called(server.model.calls + 1)
    const run = await api.make('/threads/runs', { assistant_id: assistantId })
    return { run, path: pathOf(run), request: await server.model.tokensOut(await asked, 1) }
  }

  test('is held until the run is over', async () => {
    const { path, request } = await begun()
    let isAnswered = false
    const polled = api.get(path, poll).finally(() => (isAnswered = true))
    expect((await api.read(path))['status']).toBe('in_progress')
    expect(isAnswered).toBe(false)
    request.release()
    expect((await polled).body['status']).toBe('completed')
  })

  test('is answered when the run waits for the client', async () => {
    server.model.respond(() => call({ name: 'f', arguments: {} }))
    const tools = [{ type: 'function', function: { name: 'f' } }]
    const run = await api.make('/threads/runs', { assistant_id: assistantId, tools })
    const { body } = await api.get(pathOf(run), poll)
    expect(body['status']).toBe('requires_action')
    expect((await api.get(pathOf(run), poll)).body['status']).toBe('requires_action')
    await api.make(`${pathOf(run)}/cancel`)
  })

  test('is answered when the run is cancelled', async () => {
    const { path } = await begun()
    const polled = api.get(path, poll)
    await api.make(`${path}/cancel`)
    expect((await polled).body['status']).toBe('cancelled')
  })

  test('is answered at once for a run that is over', async () => {
    const run = await api.make('/threads/runs', { assistant_id: assistantId })
    await api.settled(run['thread_id'], run.id)
    expect((await api.get(pathOf(run), poll)).body['status']).toBe('completed')
  })

  test('is answered for all who hold one', async () => {
    const { path, request } = await begun()
    const polled = Array.from({ length: 20 }, () => api.get(path, poll))
    expect((await api.read(path))['status']).toBe('in_progress')
    request.release()
    const statuses = (await Promise.all(polled)).map(({ body }) => body['status'])
    expect(new Set(statuses)).toEqual(new Set(['completed']))
  })

  test('is answered with the run as it is when nothing happens for long', async () => {
    server.model.respond(() => silence())
    const run = await api.make('/threads/runs', { assistant_id: assistantId })
    const { body, status } = await api.get(pathOf(run), poll)
    expect(status).toBe(200)
    expect(body['status']).toBe('in_progress')
    await api.post(`${pathOf(run)}/cancel`)
  })

  test('of a run that is not there is a 404', async () => {
    const thread = await api.make('/threads')
    expect((await api.get(`/threads/${thread.id}/runs/run_none`, poll)).status).toBe(404)
  })
})

function pathOf(run: Body): string {
  return `/threads/${String(run['thread_id'])}/runs/${run.id}`
}
