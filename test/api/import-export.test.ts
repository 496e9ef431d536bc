import { afterAll, beforeAll, describe, expect, test } from 'vitest'

import { createLogger } from '../../log.ts'
import { openStore } from '../../store/index.ts'
import { call, say } from '../support/model.ts'
import { startServer, type TestServer } from '../support/server.ts'
import { createCaller, refusal, type Answer, type Body, type Caller } from './caller.ts'

let server: TestServer
let api: Caller
/** Of projects that have nothing yet. */
let projects: Caller[]
beforeAll(async () => {
  server = await startServer()
  server.model.respond(() => say('It is noted.'))
  await using store = await openStore({
    databaseUrl: server.databaseUrl,
    log: createLogger('error'),
    maxConnections: 2,
  })
  const callers = []
  for (const name of ['one', 'two', 'three', 'four']) {
    const project = await store.keys.createProject(name)
    callers.push(createCaller(server, (await store.keys.createKey(project.id, name)).key))
  }
  ;[api, ...projects] = callers as [Caller, ...Caller[]]
})
afterAll(() => server[Symbol.asyncDispose]())

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
    const raw = lines({ metadata: { tag: 'keyed' }, messages: [] }, { metadata: { tag: 'keyed' } })
    const headers = { 'idempotency-key': 'an import' }
    expect((await imports(api, raw, headers)).body).toMatchObject({ imported: 2 })
    expect((await imports(api, raw, headers)).body).toMatchObject({ imported: 0, existing: 2 })
    expect((await api.read('/threads?metadata[tag]=keyed')).data).toHaveLength(2)
  })

  test('refuses a line of more than 32 MiB, and goes on behind it', async () => {
    const content = 'x'.repeat(33 * 1024 * 1024)
    const raw = lines(
      { id: 'thread_huge', messages: [{ role: 'user', content }] },
      { id: 'thread_next' },
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
    const ended = await from.settled(thread.id, run.id)
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
      { id: 'thread_after' },
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
