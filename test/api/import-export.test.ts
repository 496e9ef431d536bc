import { once } from 'node:events'
import { request, type ClientRequest, type IncomingMessage } from 'node:http'

import { Client } from 'pg'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'

import { createLogger } from '../../log.ts'
import { openStore, type Store } from '../../store/index.ts'
import { eventually } from '../local/scratch.ts'
import { takeViolations } from '../support/http-capture.ts'
import { call, say } from '../support/model.ts'
import { startServer, type TestServer } from '../support/server.ts'
import { createCaller, refusal, type Answer, type Body, type Caller } from './caller.ts'
import { field, filePart, form } from './form.ts'

let server: TestServer
let api: Caller
let apiKey: string
/** Of projects that have nothing yet. */
let projects: Caller[]
beforeAll(async () => {
  server = await startServer()
  server.model.respond(() => say('It is noted.'))
  await using store = await openedStore()
  const callers = []
  for (const name of ['one', 'two', 'three', 'four', 'five']) {
    const project = await store.keys.createProject(name)
    const { key } = await store.keys.createKey(project.id, name)
    callers.push(createCaller(server, key))
    if (name === 'one') apiKey = key
  }
  ;[api, ...projects] = callers as [Caller, ...Caller[]]
})
afterAll(() => server[Symbol.asyncDispose]())

function openedStore(): Promise<Store> {
  const { databaseUrl } = server
  return openStore({ databaseUrl, log: createLogger('error'), maxConnections: 2 })
}

/** An import whose lines are sent one after the other. */
function beginImport(): ClientRequest {
  return request(`${server.baseUrl}/threads/import`, {
    method: 'POST',
    headers: {
      authorization: `Bearer ${apiKey}`,
      'openai-beta': 'assistants=v2',
      'content-type': 'application/jsonl',
    },
  })
}

async function answerTo(sent: ClientRequest): Promise<{ status: number; body: Body }> {
  const [answer] = (await once(sent, 'response')) as [IncomingMessage]
  const text = (await answer.toArray()).join('')
  return { status: answer.statusCode ?? 0, body: JSON.parse(text) as Body }
}

async function newFile(caller: Caller): Promise<string> {
  const parts = [field('purpose', 'assistants'), filePart('Some text.')]
  const { status, body } = await caller.post('/files', undefined, form(parts))
  expect(status).toBe(200)
  return body.id
}

function imports(caller: Caller, raw: string, headers = {}): Promise<Answer> {
  return caller.post('/threads/import', undefined, {
    raw,
    headers: { 'content-type': 'application/jsonl', ...headers },
  })
}

function lines(...objects: object[]): string {
  return objects.map((object) => `${JSON.stringify(object)}\n`).join('')
}

async function exported(caller: Caller): Promise<{ text: string; lines: Body[] }> {
  const { status, text, headers } = await caller.get('/export')
  expect(status).toBe(200)
  expect(headers.get('content-type')).toMatch(/^application\/jsonl/)
  const all = text.split('\n').filter((line) => line !== '')
  return { text, lines: all.map((line) => JSON.parse(line) as Body) }
}

async function messagesOf(caller: Caller, threadId: string): Promise<Body[]> {
  return (await caller.read(`/threads/${threadId}/messages?order=asc&limit=100`)).data
}

function nothing(changes: object): object {
  return {
    object: 'thread.import',
    imported: 0,
    existing: 0,
    ignored: 0,
    failed: 0,
    errors: [],
    ...changes,
  }
}

describe('an import', () => {
  test('takes the files of a message as the first version of the API printed them', async () => {
    const message = { role: 'user', content: 'Read it.', file_ids: ['file-abc123'] }
    expect((await imports(api, lines({ id: 'thread_v1', messages: [message] }))).body).toEqual(
      nothing({ imported: 1 }),
    )
    const options = { headers: { 'openai-beta': 'assistants=v1' } }
    const { body } = await api.get('/threads/thread_v1/messages', options)
    expect(body.data[0]?.['file_ids']).toEqual(['file-abc123'])
  })

  test('refuses a thread that has lost its messages: later they could not be added', async () => {
    const { body } = await imports(api, lines({ id: 'thread_lost', object: 'thread' }))
    expect(body).toMatchObject({
      imported: 0,
      failed: 1,
      errors: [{ id: 'thread_lost', error: "Missing required parameter: 'messages'." }],
    })
    expect((await api.get('/threads/thread_lost')).status).toBe(404)
  })

  test('takes what the original printed: a thread, and its messages as they were listed', async () => {
    const thread = {
      id: 'thread_abc123',
      object: 'thread',
      created_at: 1_699_014_083,
      metadata: { user: 'u_1' },
      tool_resources: { code_interpreter: { file_ids: [] } },
    }
    const messages = [
      {
        id: 'msg_question',
        object: 'thread.message',
        created_at: 1_699_017_614,
        assistant_id: null,
        thread_id: 'thread_abc123',
        run_id: null,
        role: 'user',
        content: [
          { type: 'text', text: { value: 'What is in it?', annotations: [] } },
          { type: 'image_file', image_file: { file_id: 'file-abc123', detail: 'high' } },
        ],
        attachments: [{ file_id: 'file-abc123', tools: [{ type: 'file_search' }] }],
        metadata: { channel: 'web' },
      },
      {
        id: 'msg_answer',
        object: 'thread.message',
        created_at: 1_699_017_614,
        assistant_id: 'asst_abc123',
        thread_id: 'thread_abc123',
        run_id: 'run_abc123',
        role: 'assistant',
        content: [
          {
            type: 'text',
            text: {
              value: 'A cat【0】.',
              annotations: [
                {
                  type: 'file_citation',
                  text: '【0】',
                  start_index: 5,
                  end_index: 8,
                  file_citation: { file_id: 'file-abc123' },
                },
              ],
            },
          },
        ],
        attachments: [],
        metadata: {},
      },
    ]
    const { body } = await imports(api, lines({ ...thread, messages }))
    expect(body).toEqual(nothing({ imported: 1 }))
    expect(await api.read('/threads/thread_abc123')).toEqual(thread)
    const whole = { status: 'completed', incomplete_details: null, incomplete_at: null }
    expect(await messagesOf(api, 'thread_abc123')).toEqual(
      messages.map((message) => ({ ...message, ...whole, completed_at: message.created_at })),
    )
  })

  test('takes what a client would write, and the thread is one like others', async () => {
    const content = [
      { type: 'text', text: 'Look:' },
      { type: 'image_url', image_url: { url: 'https://example.com/a.png' } },
    ]
    const thread = {
      metadata: { tag: 'short' },
      messages: [
        { role: 'user', content: 'Hello' },
        { role: 'user', content },
      ],
    }
    expect((await imports(api, JSON.stringify(thread))).body).toMatchObject({ imported: 1 })
    const [found] = (await api.read('/threads?metadata[tag]=short')).data
    const messages = await messagesOf(api, String(found?.id))
    expect(messages.map((message) => message['content'])).toEqual([
      [{ type: 'text', text: { value: 'Hello', annotations: [] } }],
      [
        { type: 'text', text: { value: 'Look:', annotations: [] } },
        { type: 'image_url', image_url: { url: 'https://example.com/a.png', detail: 'auto' } },
      ],
    ])
    const assistant = await api.make('/assistants', { model: 'm' })
    const run = await api.make(`/threads/${found?.id}/runs`, { assistant_id: assistant.id })
    expect((await api.settled(found?.id, run.id))['status']).toBe('completed')
  })

  test('tells of bad lines, each by its number, and takes the others', async () => {
    const good = { id: 'thread_good', messages: [] }
    const bad = { id: 'thread_bad', messages: [{ role: 'robot', content: 'x' }] }
    const raw = `${lines(bad)}\n{"id": \n${lines(good)}[]\n${lines({ id: 'message_1' })}`
    const { status, body } = await imports(api, raw)
    expect(status).toBe(200)
    expect(body).toMatchObject({ imported: 1, existing: 0, failed: 4 })
    const errors = body['errors'] as { line: number; id: string | null; error: string }[]
    expect(errors.map(({ line, id }) => [line, id])).toEqual([
      [1, 'thread_bad'],
      [3, null],
      [5, null],
      [6, 'message_1'],
    ])
    expect(errors[0]?.error).toBe(
      "Invalid value: 'robot'. Supported values are: 'user' and 'assistant'.",
    )
    expect((await api.get('/threads/thread_bad')).status).toBe(404)
    expect((await api.get('/threads/thread_good')).status).toBe(200)
  })

  test('tells of a hundred errors, and counts the others', async () => {
    const { body } = await imports(api, '{}}\n'.repeat(150))
    expect(body).toMatchObject({ failed: 150 })
    expect(body['errors']).toHaveLength(100)
  })

  test('leaves a thread alone that is there already, so that it can be repeated', async () => {
    const raw = lines({ id: 'thread_twice', messages: [{ role: 'user', content: 'Once' }] })
    expect((await imports(api, raw)).body).toEqual(nothing({ imported: 1 }))
    expect((await imports(api, raw)).body).toEqual(nothing({ existing: 1 }))
    expect(await messagesOf(api, 'thread_twice')).toHaveLength(1)
  })

  test('that broke off in a long thread is completed by the same lines', async () => {
    const id = 'thread_cut'
    const message = (n: number) => ({ id: `msg_cut${n}`, role: 'user', content: `${n}` })
    const more = (...ns: number[]) => ({
      object: 'thread.messages',
      thread_id: id,
      messages: ns.map(message),
    })
    const whole = [{ id, messages: [message(1), message(2)] }, more(3, 4), more(5, 6)]
    expect((await imports(api, lines(...whole.slice(0, 2)))).body).toEqual(nothing({ imported: 1 }))
    for (const _ of ['completed', 'complete']) {
      expect((await imports(api, lines(...whole))).body).toEqual(nothing({ existing: 1 }))
      const messages = await messagesOf(api, id)
      expect(messages.map((one) => one.id)).toEqual([1, 2, 3, 4, 5, 6].map((n) => `msg_cut${n}`))
    }
    await imports(api, lines({ id: 'thread_cut2', messages: [] }))
    const foreign = { object: 'thread.messages', thread_id: 'thread_cut2', messages: [message(7)] }
    const taken = { ...foreign, messages: [message(8), message(1)] }
    expect((await imports(api, lines(taken, foreign))).body).toMatchObject({
      failed: 1,
      errors: [{ line: 1, id: 'thread_cut2' }],
    })
    expect((await messagesOf(api, 'thread_cut2')).map((one) => one.id)).toEqual(['msg_cut7'])
  })

  test('tells of messages that it cannot place', async () => {
    await imports(api, lines({ id: 'thread_whole', messages: [] }))
    const messages = [{ role: 'user', content: 'Again?' }]
    const more = (thread_id: string) => ({ object: 'thread.messages', thread_id, messages })
    const { body } = await imports(
      api,
      lines({ id: 'thread_whole', messages: [] }, more('thread_whole'), more('thread_nowhere')),
    )
    expect(body).toMatchObject({
      existing: 1,
      failed: 2,
      errors: [
        { line: 2, id: 'thread_whole' },
        { line: 3, id: 'thread_nowhere' },
      ],
    })
    expect(await messagesOf(api, 'thread_whole')).toEqual([])
  })

  test('goes on where a thread is deleted before its messages have come', async () => {
    const sent = beginImport()
    const answer = answerTo(sent)
    sent.write(lines({ id: 'thread_fleeting', messages: [] }))
    await eventually(async () => (await api.get('/threads/thread_fleeting')).status === 200)
    await api.delete('/threads/thread_fleeting')
    const messages = [{ role: 'user', content: 'Too late' }]
    const more = { object: 'thread.messages', thread_id: 'thread_fleeting', messages }
    sent.end(lines(more, { id: 'thread_lasting', messages: [] }))
    expect(await answer).toMatchObject({
      status: 200,
      body: {
        imported: 2,
        failed: 1,
        errors: [
          { line: 2, id: 'thread_fleeting', error: "No thread found with id 'thread_fleeting'." },
        ],
      },
    })
  })

  test('that fails is answered before its end', async () => {
    const client = new Client({ connectionString: server.databaseUrl })
    await client.connect()
    await client.query(`ALTER TABLE threads ADD CONSTRAINT never CHECK (id <> 'thread_never')`)
    await client.end()
    const sent = beginImport()
    sent.write(lines({ id: 'thread_never', messages: [] }))
    const { status, body } = await answerTo(sent)
    expect(status).toBe(500)
    expect(body.error.type).toBe('server_error')
    sent.destroy()
  })

  test('loses nothing, however its path is written', async () => {
    const paths = ['/threads/import/', '/threads/Import']
    for (const [n, path] of paths.entries()) {
      const raw = lines({ id: `thread_spelled${n}`, messages: [] })
      expect((await api.post(path, undefined, { raw })).body).toEqual(nothing({ imported: 1 }))
      expect((await api.get(`/threads/thread_spelled${n}`)).status).toBe(200)
      // No document knows such a path.
      await eventually(() => takeViolations().length > 0)
    }
  })

  test('keeps of what a thread names that which the project has', async () => {
    const other = projects[3]
    const [mine, theirs] = [await newFile(api), await newFile(other as Caller)]
    const storeOf = async (caller: Caller, file: string): Promise<string> => {
      const tool_resources = { file_search: { vector_stores: [{ file_ids: [file] }] } }
      const thread = await caller.make('/threads', { tool_resources })
      await caller.delete(`/threads/${thread.id}`)
      const { file_search: search } = thread['tool_resources'] as {
        file_search: { vector_store_ids: [string] }
      }
      return search.vector_store_ids[0]
    }
    const [store, theirStore] = [await storeOf(api, mine), await storeOf(other as Caller, theirs)]
    const named = (id: string, vector_store_id: string) => ({
      id,
      tool_resources: {
        code_interpreter: { file_ids: ['file-gone', theirs, mine] },
        file_search: { vector_store_ids: [vector_store_id] },
      },
      messages: [
        {
          role: 'user',
          content: 'Look.',
          attachments: [{ file_id: theirs, tools: [{ type: 'file_search' }] }],
        },
      ],
    })
    const raw = lines(
      named('thread_naming1', store),
      named('thread_naming2', theirStore),
      named('thread_naming3', 'vs_gone'),
    )
    expect((await imports(api, raw)).body).toEqual(nothing({ imported: 3 }))
    for (const [id, vector_store_ids] of [
      ['thread_naming1', [store]],
      ['thread_naming2', []],
      ['thread_naming3', []],
    ]) {
      expect((await api.read(`/threads/${String(id)}`))['tool_resources']).toEqual({
        code_interpreter: { file_ids: [mine] },
        file_search: { vector_store_ids },
      })
      const [message] = await messagesOf(api, String(id))
      expect(message?.['attachments']).toEqual([
        { file_id: theirs, tools: [{ type: 'file_search' }] },
      ])
    }
  })

  test('says that an id is taken, and not by whom', async () => {
    const thread = {
      id: 'thread_theirs',
      messages: [{ id: 'msg_theirs', role: 'user', content: 'x' }],
    }
    await imports(api, lines(thread))
    const [mine] = projects
    const again = async (caller: Caller, object: object) =>
      (await imports(caller, lines(object))).body
    const message = { ...thread, id: 'thread_other' }
    const taken = nothing({
      failed: 1,
      errors: [
        {
          line: 1,
          id: expect.stringMatching(/^thread_/),
          error: 'An id of this thread or of its messages is taken on this server.',
        },
      ],
    })
    expect(await again(mine as Caller, thread)).toEqual(taken)
    expect(await again(mine as Caller, message)).toEqual(taken)
    expect(await again(api, message)).toEqual(taken)
    expect((await api.get('/threads/thread_other')).status).toBe(404)
    expect((await (mine as Caller).get('/threads/thread_theirs')).status).toBe(404)
  })

  test('gives threads without an id the same one again under the same Idempotency-Key', async () => {
    const raw = lines(
      { metadata: { tag: 'keyed' }, messages: [] },
      { metadata: { tag: 'keyed' }, messages: [] },
    )
    const headers = { 'idempotency-key': 'an import' }
    expect((await imports(api, raw, headers)).body).toMatchObject({ imported: 2 })
    expect((await imports(api, raw, headers)).body).toMatchObject({ imported: 0, existing: 2 })
    expect((await api.read('/threads?metadata[tag]=keyed')).data).toHaveLength(2)
  })

  test('refuses a line of more than 32 MiB, and goes on behind it', async () => {
    const content = 'x'.repeat(33 * 1024 * 1024)
    const raw = lines(
      { id: 'thread_huge', messages: [{ role: 'user', content }] },
      { id: 'thread_next', messages: [] },
    )
    const { body } = await imports(api, raw)
    expect(body).toMatchObject({ imported: 1, failed: 1, errors: [{ line: 1, id: null }] })
    expect((await api.get('/threads/thread_next')).status).toBe(200)
  })

  test('needs a key like everything else', async () => {
    const headers = { authorization: undefined }
    expect(refusal(await api.post('/threads/import', {}, { headers })).status).toBe(401)
    expect(refusal(await api.get('/export', { headers })).status).toBe(401)
  })
})

describe('an export', () => {
  test('of an empty project is empty', async () => {
    expect((await exported(projects[1] as Caller)).text).toBe('')
  })

  test('has everything that was made, and is taken back by an import elsewhere', async () => {
    const [from, to] = [projects[0], projects[2]] as [Caller, Caller]
    server.model.script(call({ name: 'f', arguments: { a: 1 } }), say('It was called.'))
    const tools = [{ type: 'function', function: { name: 'f' } }]
    const assistant = await from.make('/assistants', { model: 'm', name: 'Mine', tools })
    const thread = await from.make('/threads', {
      metadata: { a: 'b' },
      messages: Array.from({ length: 30 }, (_, n) => ({ role: 'user', content: `${n}` })),
    })
    const run = await from.make(`/threads/${thread.id}/runs`, { assistant_id: assistant.id })
    const action = (await from.settled(thread.id, run.id))['required_action'] as {
      submit_tool_outputs: { tool_calls: { id: string }[] }
    }
    const [asked] = action.submit_tool_outputs.tool_calls
    const path = `/threads/${thread.id}/runs/${run.id}`
    await from.make(`${path}/submit_tool_outputs`, {
      tool_outputs: [{ tool_call_id: asked?.id, output: 'yes' }],
    })
    await from.settled(thread.id, run.id)
    // As lists show it: what a run is doing is on the read of a single one.
    const [ended] = (await from.read(`/threads/${thread.id}/runs`)).data
    const empty = await from.make('/threads')

    const { text, lines: all } = await exported(from)
    const messages = await messagesOf(from, thread.id)
    const steps = (await from.read(`${path}/steps?order=asc`)).data
    expect(messages).toHaveLength(31)
    expect(all).toEqual([
      assistant,
      { ...thread, messages },
      { ...ended, steps },
      { ...empty, messages: [] },
    ])

    // In this database their ids are taken; elsewhere they would not be.
    const renamed = text.replaceAll(/"(thread|msg|run)_(\w{24})"/g, '"$1_x$2"')
    expect((await imports(to, renamed)).body).toEqual(nothing({ imported: 2, ignored: 2 }))
    const again = await exported(to)
    expect(again.lines).toEqual(
      renamed
        .split('\n')
        .filter((line) => line.includes('"object":"thread"'))
        .map((line) => JSON.parse(line)),
    )
  })

  test('holds no more than a few messages, where they are large', async () => {
    await using store = await openedStore()
    const project = await store.keys.createProject('large')
    const caller = createCaller(server, (await store.keys.createKey(project.id, 'large')).key)
    const sizeBytes = 7_000_000
    const messages = [1, 2, 3].map((n) => ({
      role: 'user',
      content: `${n}`.repeat(sizeBytes),
    }))
    const small = [{ role: 'user', content: 'Small' }]
    await imports(
      caller,
      lines(
        { id: 'thread_before', created_at: 1, messages: small },
        { id: 'thread_large', created_at: 2, messages },
        { id: 'thread_behind', created_at: 3, messages: small },
      ),
    )
    const pages: [string, string[]][] = []
    for await (const { thread, messages: read } of store.exports.threads(project.id)) {
      for await (const page of read) {
        const texts = page.flatMap(({ content }) =>
          content.map((part) => (part.type === 'text' ? part.text.value.slice(0, 5) : part.type)),
        )
        pages.push([thread.id, texts])
      }
    }
    // 16 MB are read at once.
    expect(pages).toEqual([
      ['thread_before', ['Small']],
      ['thread_large', ['11111', '22222']],
      ['thread_large', ['33333']],
      ['thread_behind', ['Small']],
    ])
  })

  test('of a thread that is longer than a line may be is taken back whole', async () => {
    await using other = await startServer()
    await using elsewhere = await startServer()
    const [from, to] = [createCaller(other), createCaller(elsewhere)]
    const text = 'x'.repeat(250_000)
    const message = (n: number) => ({ role: 'user', content: `${n} ${text}` })
    const id = 'thread_long'
    // Three times 20 MB: no line of an import may hold that.
    const parts = [0, 1, 2].map((part) =>
      Array.from({ length: 80 }, (_, n) => message(80 * part + n)),
    )
    const raw = lines(
      { id, messages: parts[0] },
      { object: 'thread.messages', thread_id: id, messages: parts[1] },
      { object: 'thread.messages', thread_id: id, messages: parts[2] },
      { id: 'thread_after', messages: [] },
    )
    expect((await imports(from, raw)).body).toEqual(nothing({ imported: 2 }))
    const whole = await exported(from)
    expect((await imports(to, whole.text)).body).toEqual(nothing({ imported: 2 }))
    expect((await exported(to)).text).toBe(whole.text)
    const numbers = whole.lines.flatMap((line) =>
      (line['messages'] as { content: [{ text: { value: string } }] }[]).map(
        ({ content }) => content[0].text.value.split(' ', 1)[0],
      ),
    )
    expect(numbers).toEqual(Array.from({ length: 240 }, (_, n) => `${n}`))
  })
})
