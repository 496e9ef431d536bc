import { afterAll, beforeAll, describe, expect, test } from 'vitest'

import { startServer, type TestServer } from '../support/server.ts'
import { createCaller, refusal, refused, type Caller } from './caller.ts'

let server: TestServer
let api: Caller
beforeAll(async () => {
  server = await startServer()
  api = createCaller(server)
})
afterAll(() => server[Symbol.asyncDispose]())

const now = () => expect.closeTo(Date.now() / 1000, -4)

describe('a thread', () => {
  test('may be made of no body at all', async () => {
    const { status, body } = await api.post('/threads')
    expect(status).toBe(200)
    expect(body).toEqual({
      id: expect.stringMatching(/^thread_[0-9A-Za-z]{24}$/),
      object: 'thread',
      created_at: now(),
      metadata: {},
      tool_resources: {},
    })
    expect(Number.isInteger(body['created_at'])).toBe(true)
    expect(await api.read(`/threads/${body.id}`)).toEqual(body)
  })

  test('may be made of a content type and no body', async () => {
    const headers = { 'content-type': 'application/json' }
    expect((await api.post('/threads', undefined, { headers })).status).toBe(200)
  })

  test('does not let its metadata grow past the limit by merging', async () => {
    const pairs = (from: number, to: number) =>
      Object.fromEntries(Array.from({ length: to - from }, (_, n) => [`k${from + n}`, 'v']))
    const { id } = await api.make('/threads', { metadata: pairs(0, 16) })
    const answer = await api.post(`/threads/${id}`, { metadata: pairs(16, 18) })
    expect(answer.status).toBe(400)
    expect(answer.body.error.param).toBe('metadata')
    expect((await api.get(`/threads/${id}`)).body['metadata']).toEqual(pairs(0, 16))
  })

  test('merges metadata in a modify, and keeps its resources where nothing is said', async () => {
    const { id } = await api.make('/threads', { metadata: { a: '1', b: '2' } })
    const changed = await api.make(`/threads/${id}`, { metadata: { b: null, c: '3' } })
    expect(changed['metadata']).toEqual({ a: '1', c: '3' })
    expect(await api.make(`/threads/${id}`, { tool_resources: { file_search: {} } })).toEqual(
      changed,
    )
    expect(await api.make(`/threads/${id}`)).toEqual(changed)
    expect(await api.read(`/threads/${id}`)).toEqual(changed)
  })

  test('keeps the order of the messages it was made with, though they share their second', async () => {
    const texts = Array.from({ length: 30 }, (_, n) => `message ${n}`)
    const { id } = await api.make('/threads', {
      messages: texts.map((content, n) => ({ role: n % 2 ? 'assistant' : 'user', content })),
    })
    const { data } = await api.read(`/threads/${id}/messages?order=asc&limit=100`)
    expect(data.map(textOf)).toEqual(texts)
    expect(data.map(({ role }) => role)).toEqual(
      texts.map((_, n) => (n % 2 ? 'assistant' : 'user')),
    )
  })

  test('takes its messages along when it is deleted', async () => {
    const { id } = await api.make('/threads', { messages: [{ role: 'user', content: 'Hi' }] })
    const { data } = await api.read(`/threads/${id}/messages`)
    const { body } = await api.delete(`/threads/${id}`)
    expect(body).toEqual({ id, object: 'thread.deleted', deleted: true })
    const gone = refused(404, `No thread found with id '${id}'.`)
    expect(refusal(await api.delete(`/threads/${id}`))).toEqual(gone)
    expect(refusal(await api.get(`/threads/${id}`))).toEqual(gone)
    expect(refusal(await api.get(`/threads/${id}/messages`))).toEqual(gone)
    expect(refusal(await api.get(`/threads/${id}/messages/${data[0]?.id}`))).toEqual(gone)
    expect(
      refusal(await api.post(`/threads/${id}/messages`, { role: 'user', content: 'x' })),
    ).toEqual(gone)
  })

  test('is made whole or not at all', async () => {
    const bad = {
      messages: [
        { role: 'user', content: 'fine' },
        { role: 'system', content: 'no' },
      ],
    }
    expect(refusal(await api.post('/threads', bad))).toMatchObject({
      status: 400,
      param: 'messages[1].role',
    })
  })
})

describe('a message', () => {
  test('of a user has every field', async () => {
    const { id: threadId } = await api.make('/threads')
    const made = await api.make(`/threads/${threadId}/messages`, { role: 'user', content: 'Hi 👋' })
    expect(made).toEqual({
      id: expect.stringMatching(/^msg_[0-9A-Za-z]{24}$/),
      object: 'thread.message',
      created_at: now(),
      assistant_id: null,
      thread_id: threadId,
      run_id: null,
      status: 'completed',
      incomplete_details: null,
      incomplete_at: null,
      completed_at: made['created_at'],
      role: 'user',
      content: [{ type: 'text', text: { value: 'Hi 👋', annotations: [] } }],
      attachments: [],
      metadata: {},
    })
    expect(await api.read(`/threads/${threadId}/messages/${made.id}`)).toEqual(made)
  })

  test('of parts keeps their order, and an image without detail has auto', async () => {
    const { id: threadId } = await api.make('/threads')
    const image = { url: 'https://example.com/a.png' }
    const { content } = await api.make(`/threads/${threadId}/messages`, {
      role: 'user',
      content: [
        { type: 'image_url', image_url: image },
        { type: 'text', text: 'What is this?' },
        { type: 'image_url', image_url: { ...image, detail: 'low' } },
      ],
    })
    expect(content).toEqual([
      { type: 'image_url', image_url: { ...image, detail: 'auto' } },
      { type: 'text', text: { value: 'What is this?', annotations: [] } },
      { type: 'image_url', image_url: { ...image, detail: 'low' } },
    ])
  })

  test('that a client writes as the assistant belongs to no run', async () => {
    const { id: threadId } = await api.make('/threads')
    const body = { role: 'assistant', content: 'I said so.', metadata: { a: '1' } }
    expect(await api.make(`/threads/${threadId}/messages`, body)).toMatchObject({
      role: 'assistant',
      assistant_id: null,
      run_id: null,
      metadata: { a: '1' },
    })
  })

  test('can have its metadata changed, and nothing else', async () => {
    const { id: threadId } = await api.make('/threads')
    const path = `/threads/${threadId}/messages`
    const made = await api.make(path, { role: 'user', content: 'Hi', metadata: { a: '1' } })
    const changed = await api.make(`${path}/${made.id}`, { metadata: { b: '2' } })
    expect(changed).toEqual({ ...made, metadata: { a: '1', b: '2' } })
    expect(refusal(await api.post(`${path}/${made.id}`, { content: 'x' }))).toEqual(
      refused(400, "Unknown parameter: 'content'.", 'content', 'unknown_parameter'),
    )
    expect(await api.read(`${path}/${made.id}`)).toEqual(changed)
  })

  test('that is deleted leaves the others', async () => {
    const { id: threadId } = await api.make('/threads', {
      messages: ['a', 'b', 'c'].map((content) => ({ role: 'user', content })),
    })
    const path = `/threads/${threadId}/messages`
    const { data } = await api.read(`${path}?order=asc`)
    const id = data[1]?.id
    const { body } = await api.delete(`${path}/${id}`)
    expect(body).toEqual({ id, object: 'thread.message.deleted', deleted: true })
    expect((await api.read(`${path}?order=asc`)).data.map(textOf)).toEqual(['a', 'c'])
    const gone = refused(404, `No message found with id '${id}'.`)
    expect(refusal(await api.get(`${path}/${id}`))).toEqual(gone)
    expect(refusal(await api.delete(`${path}/${id}`))).toEqual(gone)
  })

  test('of another thread is not found in this one', async () => {
    const [one, other] = await Promise.all([api.make('/threads'), api.make('/threads')])
    const { id } = await api.make(`/threads/${other.id}/messages`, { role: 'user', content: 'Hi' })
    const gone = refused(404, `No message found with id '${id}'.`)
    for (const call of [
      () => api.get(`/threads/${one.id}/messages/${id}`),
      () => api.post(`/threads/${one.id}/messages/${id}`, { metadata: { a: 'x' } }),
      () => api.delete(`/threads/${one.id}/messages/${id}`),
    ]) {
      expect(refusal(await call())).toEqual(gone)
    }
    expect((await api.read(`/threads/${other.id}/messages/${id}`))['metadata']).toEqual({})
  })

  test('of 256,000 characters is kept whole', async () => {
    const { id: threadId } = await api.make('/threads')
    const content = '🙂'.repeat(256_000)
    const made = await api.make(`/threads/${threadId}/messages`, { role: 'user', content })
    expect(textOf(made) === content).toBe(true)
  })
})

function textOf({ content }: Record<string, unknown>): string {
  // What these tests send is text.
  const parts = content as { text: { value: string } }[]
  return parts.map(({ text }) => text.value).join('')
}
