import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { connect, createServer, type AddressInfo } from 'node:net'

import OpenAI from 'openai'
import { Client } from 'pg'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'

import { createLogger } from '../../log.ts'
import { openStore } from '../../store/index.ts'
import { eventually } from '../local/scratch.ts'
import { call, say } from '../support/model.ts'
import { startServer, type TestServer } from '../support/server.ts'
import { createCaller, refusal, refused, type Answer, type Body, type Caller } from './caller.ts'

let server: TestServer
let api: Caller
let db: Client
beforeAll(async () => {
  server = await startServer()
  api = createCaller(server)
  db = new Client({ connectionString: server.databaseUrl })
  await db.connect()
})
afterAll(async () => {
  await db.end()
  await server[Symbol.asyncDispose]()
})

function withKey(key: string, path: string, body: object, headers = {}): Promise<Answer> {
  return api.post(path, body, { headers: { 'idempotency-key': key, ...headers } })
}

/** As the official clients say that they have sent it before. */
function retried(path: string, body: object, headers = {}): Promise<Answer> {
  return api.post(path, body, { headers: { 'x-stainless-retry-count': '1', ...headers } })
}

async function messagesOf(threadId: string): Promise<string[]> {
  return (await api.read(`/threads/${threadId}/messages`)).data.map(({ id }) => id)
}

/** An assistant whose runs wait for their client, and so stay active. */
async function waitingAssistant(): Promise<Body> {
  server.model.respond(() => call({ name: 'f', arguments: {} }))
  return api.make('/assistants', {
    model: 'm',
    tools: [{ type: 'function', function: { name: 'f' } }],
  })
}

/** Keeps every writer of the thread waiting until `commit`; `and` is done by then. */
async function heldThread(id: string): Promise<{ commit: (and?: string) => Promise<void> }> {
  const holder = new Client({ connectionString: server.databaseUrl })
  await holder.connect()
  await holder.query('BEGIN')
  await holder.query('SELECT FROM threads WHERE id = $1 FOR UPDATE', [id])
  return {
    async commit(and) {
      if (and) await holder.query(and, [id])
      await holder.query('COMMIT')
      await holder.end()
    },
  }
}

async function requestsAtWork(count: number): Promise<void> {
  await eventually(async () => {
    const { rows } = await db.query(
      'SELECT FROM requests WHERE status IS NULL AND alive_at IS NOT NULL',
    )
    return rows.length === count
  })
}

describe('a POST with an Idempotency-Key', () => {
  test('is carried out once however often it is sent, and answered alike', async () => {
    const key = randomUUID()
    const first = await withKey(key, '/assistants', { model: 'gpt-4o' })
    const again = await withKey(key, '/assistants', { model: 'gpt-4o' })
    expect(again.body).toEqual(first.body)
    expect(first.headers.get('idempotency-replayed')).toBeNull()
    expect(again.headers.get('idempotency-replayed')).toBe('true')
  })

  test('does not lend its key to another request', async () => {
    const key = randomUUID()
    await withKey(key, '/assistants', { model: 'gpt-4o' })
    const other = refused(
      400,
      "The 'Idempotency-Key' header was used for another request before. Use a new key for a new request.",
      'Idempotency-Key',
      'idempotency_error',
    )
    expect(refusal(await withKey(key, '/assistants', { model: 'gpt-4o-mini' }))).toEqual(other)
    expect(refusal(await withKey(key, '/threads', { model: 'gpt-4o' }))).toEqual(other)
    const v1 = { 'openai-beta': 'assistants=v1' }
    expect(refusal(await withKey(key, '/assistants', { model: 'gpt-4o' }, v1))).toEqual(other)
  })

  test('leaves its key free when it is refused', async () => {
    const key = randomUUID()
    expect((await withKey(key, '/assistants', { model: 7 })).status).toBe(400)
    expect((await withKey(key, '/assistants', { model: 'gpt-4o' })).status).toBe(200)
  })

  test('is carried out once when it is sent twice at the same moment', async () => {
    for (const path of ['/assistants', '/threads']) {
      const key = randomUUID()
      const body =
        path === '/assistants' ? { model: 'm', metadata: { key } } : { metadata: { key } }
      const answers = await Promise.all([1, 2, 3].map(() => withKey(key, path, body)))
      expect(answers.map(({ status }) => status)).toEqual([200, 200, 200])
      expect(new Set(answers.map(({ text }) => text)).size).toBe(1)
      const { data } = await api.read(`${path}?limit=100`)
      const made = data.filter(({ metadata }) => (metadata as { key?: string }).key === key)
      expect(made.map(({ id }) => id)).toEqual([answers[0]?.body.id])
    }
  })

  test('waits for the one that is being carried out, and gets its answer', async () => {
    const { id } = await api.make('/threads')
    const held = await heldThread(id)
    const key = randomUUID()
    const send = () => withKey(key, `/threads/${id}/messages`, { role: 'user', content: 'Hi' })
    const first = send()
    await requestsAtWork(1)
    const second = send()
    await held.commit()
    expect((await second).body).toEqual((await first).body)
    expect(await messagesOf(id)).toEqual([(await first).body.id])
  })

  test('is carried out itself when the one that it waited for was refused', async () => {
    const { id } = await api.make('/threads')
    const held = await heldThread(id)
    const key = randomUUID()
    const send = () => withKey(key, `/threads/${id}/messages`, { role: 'user', content: 'Hi' })
    const first = send()
    await requestsAtWork(1)
    const second = send()
    await held.commit('DELETE FROM threads WHERE id = $1')
    const missing = refused(404, `No thread found with id '${id}'.`)
    expect(refusal(await first)).toEqual(missing)
    expect(refusal(await second)).toEqual(missing)
  })

  test('streams the same run from its beginning when it asks for a stream', async () => {
    server.model.respond(() => say('One answer.'))
    const assistant = await api.make('/assistants', { model: 'm' })
    const thread = { messages: [{ role: 'user', content: 'Hi' }] }
    const body = { assistant_id: assistant.id, stream: true, thread }
    const key = randomUUID()
    const first = await withKey(key, '/threads/runs', body)
    const again = await withKey(key, '/threads/runs', body)
    expect(again.text).toBe(first.text)
    expect(first.text).toContain('event: thread.run.completed')
  })
})

describe('a POST that says it is sent again', () => {
  test('gets the answer of the same request, and nothing is made twice', async () => {
    const { id } = await api.make('/threads')
    const path = `/threads/${id}/messages`
    const body = { role: 'user', content: 'Only once' }
    const first = await api.post(path, body)
    const again = await retried(path, body)
    expect(again.body).toEqual(first.body)
    expect(again.headers.get('idempotency-replayed')).toBe('true')
    expect(await messagesOf(id)).toEqual([first.body.id])
  })

  test('is carried out when the first never came', async () => {
    const { id } = await api.make('/threads')
    const path = `/threads/${id}/messages`
    const answer = await retried(path, { role: 'user', content: 'New' })
    expect(answer.status).toBe(200)
    // Its answer may be lost too.
    const again = await retried(path, { role: 'user', content: 'New' })
    expect(again.body).toEqual(answer.body)
    expect(await messagesOf(id)).toEqual([answer.body.id])
  })

  test('is another request when anything of it is another', async () => {
    const { id } = await api.make('/threads')
    const path = `/threads/${id}/messages`
    const body = { role: 'user', content: 'Once' }
    await api.make(path, body)
    const others = await Promise.all([
      retried(path, { ...body, content: 'Twice' }),
      retried(path, body, { authorization: 'Bearer another' }),
      api.post(path, body),
      retried(path, body, { 'x-stainless-retry-count': '0' }),
    ])
    expect(others.map((answer) => answer.headers.get('idempotency-replayed'))).toEqual(
      others.map(() => null),
    )
    expect(await messagesOf(id)).toHaveLength(5)
  })

  test("is another request where it could be anybody else's", async () => {
    for (const [path, body] of [
      ['/threads', {}],
      ['/assistants', { model: 'm' }],
    ] as const) {
      const first = await api.make(path, body)
      const second = await retried(path, body)
      expect(second.status).toBe(200)
      expect(second.body.id).not.toBe(first.id)
    }
  })

  test('is another request where something has happened in the thread since', async () => {
    server.model.respond(() => say('An answer.'))
    const assistant = await api.make('/assistants', { model: 'm' })
    const { id } = await api.make('/threads')
    const more = () => retried(`/threads/${id}/messages`, { role: 'user', content: 'More' })
    const run = () => retried(`/threads/${id}/runs`, { assistant_id: assistant.id })
    const first = { message: (await more()).body.id, run: (await run()).body.id }
    await api.settled(id, first.run)
    // The answer of the run is not of the client's making.
    expect((await run()).body.id).toBe(first.run)
    const second = { message: (await more()).body.id, run: (await run()).body.id }
    expect(second.message).not.toBe(first.message)
    expect(second.run).not.toBe(first.run)
    await api.settled(id, second.run)
    expect(await messagesOf(id)).toHaveLength(4)
  })

  test('is another request where what the first made is gone', async () => {
    const { id } = await api.make('/threads')
    const path = `/threads/${id}/messages`
    const body = { role: 'user', content: 'Gone' }
    const first = await api.make(path, body)
    await api.delete(`${path}/${first.id}`)
    const second = await retried(path, body)
    expect(await messagesOf(id)).toEqual([second.body.id])
  })

  test('gets the run that was begun, although a thread has one active run at a time', async () => {
    const assistant = await waitingAssistant()
    const { id } = await api.make('/threads')
    const body = { assistant_id: assistant.id }
    const run = await api.make(`/threads/${id}/runs`, body)
    const again = await retried(`/threads/${id}/runs`, body)
    expect([again.status, again.body.id]).toEqual([200, run.id])
    expect((await api.post(`/threads/${id}/runs`, body)).status).toBe(400)
    // The refused one has not taken the place of the first.
    expect((await retried(`/threads/${id}/runs`, body)).body.id).toBe(run.id)
  })

  test('gets the stream of the run that was begun', async () => {
    server.model.respond(() => say('Streamed.'))
    const assistant = await api.make('/assistants', { model: 'm' })
    const { id } = await api.make('/threads')
    const body = { assistant_id: assistant.id, stream: true }
    const first = await api.post(`/threads/${id}/runs`, body)
    expect((await retried(`/threads/${id}/runs`, body)).text).toBe(first.text)
  })

  test('waits for the first where that is still being carried out', async () => {
    const { id } = await api.make('/threads')
    const held = await heldThread(id)
    const path = `/threads/${id}/messages`
    const body = { role: 'user', content: 'Slow' }
    const first = api.post(path, body)
    await requestsAtWork(1)
    const second = retried(path, body)
    await held.commit()
    expect((await second).body).toEqual((await first).body)
    expect(await messagesOf(id)).toHaveLength(1)
  })

  test.each([false, true])(
    'gets what a process made that died before it could answer (stream: %s)',
    async (stream) => {
      const assistant = await waitingAssistant()
      const { id } = await api.make('/threads')
      const body = { assistant_id: assistant.id, stream }
      const made = await api.post(`/threads/${id}/runs`, body)
      // What it leaves behind: that the requests came, and nothing of how they ended.
      await db.query('UPDATE requests SET status = NULL, body = NULL, alive_at = NULL')
      const again = await retried(`/threads/${id}/runs`, body)
      const beginning = (answer: Answer) => (stream ? answer.text : answer.body.id)
      expect(beginning(again)).toBe(beginning(made))
      const { data } = await api.read(`/threads/${id}/runs`)
      expect(data).toHaveLength(1)
    },
  )

  test('is too late after two minutes', async () => {
    const { id } = await api.make('/threads')
    const path = `/threads/${id}/messages`
    const body = { role: 'user', content: 'Late' }
    const first = await api.make(path, body)
    await db.query(`UPDATE requests SET created_at = created_at - interval '2 minutes'`)
    expect((await retried(path, body)).body.id).not.toBe(first.id)
  })

  test('is answered after the connection of the first was cut', async () => {
    const assistant = await waitingAssistant()
    const { id } = await api.make('/threads')
    const body = JSON.stringify({ assistant_id: assistant.id })
    const { hostname, port } = new URL(server.baseUrl)
    const socket = connect(Number(port), hostname)
    socket.write(
      [
        `POST /v1/threads/${id}/runs HTTP/1.1`,
        `host: ${hostname}:${port}`,
        'authorization: Bearer any',
        'openai-beta: assistants=v2',
        'content-type: application/json',
        `content-length: ${body.length}`,
        '',
        body,
      ].join('\r\n'),
    )
    // Reading nothing of it, and gone as soon as the run is there.
    socket.pause()
    const [run] = await eventually(async () => {
      const { data } = await api.read(`/threads/${id}/runs`)
      return data.length > 0 && data
    })
    socket.destroy()
    const again = await retried(`/threads/${id}/runs`, { assistant_id: assistant.id })
    expect([again.status, again.body.id]).toEqual([200, run?.id])
  })

  test('is what the official client sends when its connection breaks', async () => {
    const assistant = await waitingAssistant()
    const { id } = await api.make('/threads')
    await using proxy = await cuttingProxy(server.baseUrl)
    const client = new OpenAI({ baseURL: proxy.baseUrl, apiKey: 'any', maxRetries: 2 })
    const run = await client.beta.threads.runs.create(id, { assistant_id: assistant.id })
    expect(proxy.cuts()).toBe(1)
    expect((await api.read(`/threads/${id}/runs`)).data.map((one) => one.id)).toEqual([run.id])
  })
})

describe('a POST whose process died after the commit and before it could say so', () => {
  /** What such a process leaves behind. */
  async function unheard(key: string): Promise<void> {
    await db.query(
      `UPDATE requests SET status = NULL, body = NULL, alive_at = now() - interval '1 minute' WHERE key = $1`,
      [key],
    )
  }

  test.each([{}, { stream: true }])('hands tool outputs in once: %j', async (more) => {
    const assistant = await waitingAssistant()
    const made = await api.make('/threads/runs', { assistant_id: assistant.id })
    const run = await api.settled(made['thread_id'], made.id)
    const action = run['required_action'] as {
      submit_tool_outputs: { tool_calls: { id: string }[] }
    }
    const tool_outputs = action.submit_tool_outputs.tool_calls.map(({ id }) => ({
      tool_call_id: id,
      output: 'done',
    }))
    server.model.respond(() => say('Thank you.'))
    const path = `/threads/${String(made['thread_id'])}/runs/${made.id}/submit_tool_outputs`
    const key = randomUUID()
    const first = await withKey(key, path, { tool_outputs, ...more })
    await api.settled(made['thread_id'], made.id)
    await unheard(key)
    const again = await withKey(key, path, { tool_outputs, ...more })
    expect([first.status, again.status]).toEqual([200, 200])
    // A stream is the same again; a run is shown as it is by now.
    const isSame = 'stream' in more ? again.text === first.text : again.body.id === made.id
    expect(isSame).toBe(true)

    // Other outputs for the same calls are as wrong as they were.
    const other = tool_outputs.map((one) => ({ ...one, output: 'other' }))
    expect(refusal(await withKey(randomUUID(), path, { tool_outputs: other }))).toEqual(
      refused(400, 'Runs in status "completed" do not accept tool outputs.'),
    )
  })

  test('cancels a run once', async () => {
    const assistant = await waitingAssistant()
    const made = await api.make('/threads/runs', { assistant_id: assistant.id })
    await api.settled(made['thread_id'], made.id)
    const path = `/threads/${String(made['thread_id'])}/runs/${made.id}/cancel`
    const key = randomUUID()
    await withKey(key, path, {})
    await api.settled(made['thread_id'], made.id)
    await unheard(key)
    const again = await withKey(key, path, {})
    expect(again.body).toMatchObject({ id: made.id, status: 'cancelled' })
  })
})

test('answers are kept for two minutes, and for a day under a key', async () => {
  const key = randomUUID()
  const { body } = await withKey(key, '/threads', {})
  await api.make(`/threads/${body.id}/messages`, { role: 'user', content: 'Hi' })
  await using store = await openStore({
    databaseUrl: server.databaseUrl,
    log: createLogger('error'),
    maxConnections: 2,
  })
  const kept = async () => {
    await store.idempotency.sweep()
    const { rows } = await db.query<{ key: string | null }>('SELECT key FROM requests')
    return rows.map((row) => row.key)
  }
  const age = (by: string) => db.query(`UPDATE requests SET created_at = now() - interval '${by}'`)
  await eventually(
    async () =>
      (await db.query('SELECT FROM requests WHERE status IS NULL AND alive_at IS NOT NULL'))
        .rowCount === 0,
  )
  expect(await kept()).toEqual(expect.arrayContaining([key, null]))
  await age('2 minutes')
  const withoutKeyless = await kept()
  expect(withoutKeyless).toContain(key)
  expect(withoutKeyless).not.toContain(null)
  await age('1 day')
  expect(await kept()).toEqual([])
})

/** Lets everything through, but cuts the first connection at the first byte of the server's answer. */
async function cuttingProxy(baseUrl: string) {
  const { hostname, port } = new URL(baseUrl)
  let cuts = 0
  const proxy = createServer((socket) => {
    const upstream = connect(Number(port), hostname)
    socket.on('error', () => upstream.destroy()).pipe(upstream)
    upstream.on('error', () => socket.destroy())
    if (cuts > 0) {
      upstream.pipe(socket)
      return
    }
    upstream.once('data', () => {
      cuts += 1
      socket.destroy()
      upstream.destroy()
    })
  })
  proxy.listen(0, '127.0.0.1')
  await once(proxy, 'listening')
  return {
    baseUrl: `http://127.0.0.1:${(proxy.address() as AddressInfo).port}/v1`,
    cuts: () => cuts,
    async [Symbol.asyncDispose]() {
      proxy.close()
    },
  }
}
