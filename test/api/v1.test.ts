import { randomUUID } from 'node:crypto'

import { Client } from 'pg'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'

import { idFrom } from '../../wire/ids.ts'
import { call, refuse, say } from '../support/model.ts'
import { startServer, type TestServer } from '../support/server.ts'
import { createCaller, refusal, refused, type Body, type Caller } from './caller.ts'

let server: TestServer
let v1: Caller
let v2: Caller
let database: Client
beforeAll(async () => {
  server = await startServer()
  v1 = createCaller(server, 'any', 'v1')
  v2 = createCaller(server)
  database = new Client({ connectionString: server.databaseUrl })
  await database.connect()
})
afterAll(async () => {
  await database.end()
  await server[Symbol.asyncDispose]()
})
beforeEach(() => server.model.respond(() => say('Hello there.')))

const code = { type: 'code_interpreter' }
const retrieval = { type: 'retrieval' }
const model = 'gpt-4-turbo'

describe('an assistant of v1', () => {
  test('of nothing but a model has every other field at its default', async () => {
    const made = await v1.make('/assistants', { model })
    expect(made).toEqual({
      id: expect.stringMatching(/^asst_/),
      object: 'assistant',
      created_at: expect.any(Number),
      name: null,
      description: null,
      model,
      instructions: null,
      tools: [],
      file_ids: [],
      metadata: {},
      temperature: 1,
      top_p: 1,
      response_format: 'auto',
    })
    expect(await v1.read(`/assistants/${made.id}`)).toEqual(made)
    expect((await v1.read('/assistants')).data).toContainEqual(made)
  })

  test('gives its files to the tools that it has', async () => {
    const files = await makeFiles(2)
    const tools = [retrieval, code]
    const made = await v1.make('/assistants', { model, tools, file_ids: files })
    expect(made).toMatchObject({ tools, file_ids: files })
    const inV2 = await v2.read(`/assistants/${made.id}`)
    expect(inV2).toMatchObject({
      tools: [{ type: 'file_search' }, code],
      tool_resources: {
        code_interpreter: { file_ids: files },
        file_search: { vector_store_ids: [expect.stringMatching(/^vs_/)] },
      },
    })
    expect(inV2).not.toHaveProperty('file_ids')
    expect(await searched(made.id)).toEqual(files)
  })

  test('without tools keeps its files until one is turned on', async () => {
    const files = await makeFiles(2)
    const { id } = await v1.make('/assistants', { model, file_ids: files })
    expect((await v2.read(`/assistants/${id}`))['tool_resources']).toEqual({})
    const changed = await v1.make(`/assistants/${id}`, { tools: [code] })
    expect(changed).toMatchObject({ tools: [code], file_ids: files })
    expect(await codeFiles(id)).toEqual(files)
    await v1.make(`/assistants/${id}`, { tools: [retrieval] })
    expect(await searched(id)).toEqual(files)
  })

  test('loses in both dialects the files that a new list leaves out', async () => {
    const [a, b, c] = await makeFiles(3)
    const tools = [code, retrieval]
    const { id } = await v1.make('/assistants', { model, tools, file_ids: [a, b] })
    const changed = await v1.make(`/assistants/${id}`, { file_ids: [b, c] })
    expect(changed).toMatchObject({ tools, file_ids: [b, c] })
    expect(await codeFiles(id)).toEqual([b, c])
    expect(await searched(id)).toEqual([b, c])
  })

  test('keeps its files where a change does not speak of them', async () => {
    const files = await makeFiles(1)
    const { id } = await v1.make('/assistants', { model, tools: [code], file_ids: files })
    expect(await v1.make(`/assistants/${id}`, { name: 'Anna' })).toMatchObject({
      name: 'Anna',
      file_ids: files,
    })
    await v2.make(`/assistants/${id}`, { name: 'Berta' })
    expect(await v1.read(`/assistants/${id}`)).toMatchObject({ name: 'Berta', file_ids: files })
  })

  test('does not show what v2 does with the resources of its tools', async () => {
    const [a, b] = await makeFiles(2)
    const { id } = await v1.make('/assistants', { model, tools: [code], file_ids: [a] })
    const tool_resources = { code_interpreter: { file_ids: [b] } }
    await v2.make(`/assistants/${id}`, { tool_resources })
    expect(await v1.read(`/assistants/${id}`)).toMatchObject({ file_ids: [a] })
    expect(await codeFiles(id)).toEqual([b])
  })

  test('leaves what v2 gave to its tools where v1 changes another file', async () => {
    const [a, b, c] = await makeFiles(3)
    const tool_resources = { code_interpreter: { file_ids: [a] } }
    const { id } = await v2.make('/assistants', { model, tools: [code], tool_resources })
    await v1.make(`/assistants/${id}/files`, { file_id: b })
    await v1.make(`/assistants/${id}`, { file_ids: [c] })
    expect(await codeFiles(id)).toEqual([a, c])
  })

  test('puts its files into the vector store that v2 gave it, and into a new one where that is gone', async () => {
    const [a, b, c] = await makeFiles(3)
    const tool_resources = { file_search: { vector_stores: [{ file_ids: [a] }] } }
    const tools = [{ type: 'file_search' }]
    const made = await v2.make('/assistants', { model, tools, tool_resources })
    await v1.make(`/assistants/${made.id}/files`, { file_id: b })
    expect(await searched(made.id)).toEqual([a, b])
    await v1.make(`/assistants/${made.id}`, { file_ids: [c] })
    expect(await searched(made.id)).toEqual([a, c])
    const kept = await v2.read(`/assistants/${made.id}`)
    expect(kept['tool_resources']).toEqual(made['tool_resources'])

    await database.query(
      `DELETE FROM vector_stores WHERE id = (SELECT tool_resources -> 'file_search' -> 'vector_store_ids' ->> 0
         FROM assistants WHERE id = $1)`,
      [made.id],
    )
    await v1.make(`/assistants/${made.id}/files`, { file_id: b })
    expect(await searched(made.id)).toEqual([b])
  })

  test('has no files that do not exist, and is then not made', async () => {
    const [a] = await makeFiles(1)
    const before = (await v1.read('/assistants?limit=100')).data.length
    const answer = await v1.post('/assistants', { model, file_ids: [a, 'file-none'] })
    const reason = 'No such File object: file-none'
    expect(refusal(answer)).toEqual(refused(404, reason, 'file_ids[1]'))
    expect((await v1.read('/assistants?limit=100')).data).toHaveLength(before)
  })

  test('has as many files as its code interpreter takes, those of v2 included', async () => {
    const own = await makeFiles(20)
    const [one] = await makeFiles(1)
    const tool_resources = { code_interpreter: { file_ids: own } }
    const { id } = await v2.make('/assistants', { model, tools: [code], tool_resources })
    const answer = await v1.post(`/assistants/${id}/files`, { file_id: one })
    const reason =
      "Invalid 'file_ids': array too long. Expected an array with maximum length 20, " +
      'but got an array with length 21 instead.'
    expect(refusal(answer)).toEqual(refused(400, reason, 'file_ids', 'array_above_max_length'))
  })

  test('loses a File that is deleted', async () => {
    const [a, b] = await makeFiles(2)
    const { id } = await v1.make('/assistants', { model, file_ids: [a, b] })
    await database.query('DELETE FROM files WHERE id = $1', [a])
    expect(await v1.read(`/assistants/${id}`)).toMatchObject({ file_ids: [b] })
  })
})

describe('the files of an assistant', () => {
  test('are attached, listed, read and detached', async () => {
    const [a, b] = await makeFiles(2)
    const { id } = await v1.make('/assistants', { model, tools: [code, retrieval] })
    const attached = await v1.make(`/assistants/${id}/files`, { file_id: a })
    expect(attached).toEqual({
      id: a,
      object: 'assistant.file',
      created_at: expect.closeTo(Date.now() / 1000, -4),
      assistant_id: id,
    })
    expect(await v1.make(`/assistants/${id}/files`, { file_id: a })).toEqual(attached)
    await v1.make(`/assistants/${id}/files`, { file_id: b })
    expect(await v1.read(`/assistants/${id}`)).toMatchObject({ file_ids: [a, b] })
    expect(await codeFiles(id)).toEqual([a, b])
    expect(await searched(id)).toEqual([a, b])
    expect(await v1.read(`/assistants/${id}/files/${a}`)).toEqual(attached)

    const gone = await v1.delete(`/assistants/${id}/files/${a}`)
    expect(gone.body).toEqual({ id: a, object: 'assistant.file.deleted', deleted: true })
    expect(await codeFiles(id)).toEqual([b])
    expect(await searched(id)).toEqual([b])
    const { rows } = await database.query('SELECT id FROM files WHERE id = $1', [a])
    expect(rows).toHaveLength(1)
    for (const again of [
      await v1.get(`/assistants/${id}/files/${a}`),
      await v1.delete(`/assistants/${id}/files/${a}`),
    ]) {
      expect(refusal(again)).toEqual(refused(404, `No assistant file found with id '${a}'.`))
    }
  })

  test('are at most twenty', async () => {
    const files = await makeFiles(21)
    const { id } = await v1.make('/assistants', { model, file_ids: files.slice(1) })
    const reason =
      "Invalid 'file_ids': array too long. Expected an array with maximum length 20, " +
      'but got an array with length 21 instead.'
    const tooLong = refused(400, reason, 'file_ids', 'array_above_max_length')
    expect(refusal(await v1.post(`/assistants/${id}/files`, { file_id: files[0] }))).toEqual(
      tooLong,
    )
    expect(refusal(await v1.post('/assistants', { model, file_ids: files }))).toEqual(tooLong)
  })

  test('are listed page by page in both orders', async () => {
    const files = await makeFiles(4)
    const [a, b, c, d] = files
    const { id } = await v1.make('/assistants', { model, file_ids: files })
    const page = async (query: string) => {
      const { data, first_id, last_id, has_more } = await v1.read(`/assistants/${id}/files${query}`)
      expect([first_id, last_id]).toEqual([data[0]?.id ?? null, data.at(-1)?.id ?? null])
      return [data.map((file) => file.id), has_more]
    }
    expect(await page('')).toEqual([[d, c, b, a], false])
    expect(await page('?order=asc&limit=3')).toEqual([[a, b, c], true])
    expect(await page(`?order=asc&limit=3&after=${c}`)).toEqual([[d], false])
    expect(await page(`?order=asc&limit=1&before=${c}`)).toEqual([[b], true])
    expect(await page(`?after=${d}&before=${a}`)).toEqual([[c, b], false])
    expect(await page(`?order=asc&after=${c}&before=${b}`)).toEqual([[], false])
    const lost = await v1.get(`/assistants/${id}/files?after=file-none`)
    expect(refusal(lost)).toMatchObject({ status: 400, param: 'after' })
  })

  test('of an assistant that is not there are not there', async () => {
    const [a] = await makeFiles(1)
    const missing = refused(404, "No assistant found with id 'asst_none'.")
    for (const answer of [
      await v1.get('/assistants/asst_none/files'),
      await v1.post('/assistants/asst_none/files', { file_id: a }),
      await v1.post('/assistants/asst_none/files', {}),
      await v1.post('/assistants/asst_none/files', { file_id: 'file-none' }),
      await v1.get(`/assistants/asst_none/files/${a}`),
      await v1.delete(`/assistants/asst_none/files/${a}`),
    ]) {
      expect(refusal(answer)).toEqual(missing)
    }
  })

  test('must exist', async () => {
    const { id } = await v1.make('/assistants', { model })
    const answer = await v1.post(`/assistants/${id}/files`, { file_id: 'file-none' })
    expect(refusal(answer)).toEqual(refused(404, 'No such File object: file-none', 'file_id'))
  })

  test('that are attached side by side are all there', async () => {
    const files = await makeFiles(6)
    const { id } = await v1.make('/assistants', { model, tools: [code, retrieval] })
    await Promise.all(files.map((file_id) => v1.make(`/assistants/${id}/files`, { file_id })))
    const { file_ids } = await v1.read(`/assistants/${id}`)
    expect(new Set(file_ids as string[])).toEqual(new Set(files))
    expect(await codeFiles(id)).toEqual(file_ids)
    expect(await searched(id)).toEqual(file_ids)
  })

  test('are of its own project', async () => {
    await database.query(`INSERT INTO projects (id, name) VALUES ('proj_other', 'other')`)
    const [mine] = await makeFiles(1)
    const [theirs] = await makeFiles(1, 'proj_other')
    const { id } = await v1.make('/assistants', { model })
    const answer = await v1.post(`/assistants/${id}/files`, { file_id: theirs })
    const reason = `No such File object: ${theirs}`
    expect(refusal(answer)).toEqual(refused(404, reason, 'file_id'))

    await database.query(`UPDATE assistants SET project_id = 'proj_other' WHERE id = $1`, [id])
    const missing = refused(404, `No assistant found with id '${id}'.`)
    for (const lost of [
      await v1.get(`/assistants/${id}/files`),
      await v1.get(`/assistants/${id}/files/${mine}`),
      await v1.post(`/assistants/${id}/files`, { file_id: mine }),
      await v1.delete(`/assistants/${id}/files/${mine}`),
    ]) {
      expect(refusal(lost)).toEqual(missing)
    }
  })

  test.each(['GET', 'POST'])('are no path of v2: %s', async (method) => {
    const { id } = await v2.make('/assistants', { model })
    const answer = await v2.send(method, `/assistants/${id}/files`)
    expect(refusal(answer)).toEqual(refused(404, 'Not found'))
  })
})

describe('a message of v1', () => {
  test('has text, and files for the tools of its thread', async () => {
    const files = await makeFiles(2)
    const thread = await v1.make('/threads')
    const made = await v1.make(`/threads/${thread.id}/messages`, {
      role: 'user',
      content: 'Read these.',
      file_ids: files,
    })
    expect(made).toEqual({
      id: expect.stringMatching(/^msg_/),
      object: 'thread.message',
      created_at: expect.any(Number),
      thread_id: thread.id,
      status: 'completed',
      incomplete_details: null,
      completed_at: expect.any(Number),
      incomplete_at: null,
      role: 'user',
      content: [{ type: 'text', text: { value: 'Read these.', annotations: [] } }],
      file_ids: files,
      assistant_id: null,
      run_id: null,
      metadata: {},
    })
    expect(await v2.read(`/threads/${thread.id}/messages/${made.id}`)).toMatchObject({
      attachments: files.map((file_id) => ({ file_id, tools: [code, { type: 'file_search' }] })),
    })
    expect(await v2.read(`/threads/${thread.id}`)).toMatchObject({
      tool_resources: {
        code_interpreter: { file_ids: files },
        file_search: { vector_store_ids: [expect.stringMatching(/^vs_/)] },
      },
    })
  })

  test('lists its files', async () => {
    const files = await makeFiles(2)
    const [a, b] = files
    const messages = [{ role: 'user', content: 'Read these.', file_ids: files }]
    const thread = await v1.make('/threads', { messages })
    const [message] = (await v1.read(`/threads/${thread.id}/messages`)).data as [Body]
    const path = `/threads/${thread.id}/messages/${message.id}/files`
    const file = (id: unknown) => ({
      id,
      object: 'thread.message.file',
      created_at: message['created_at'],
      message_id: message.id,
    })
    expect(await v1.read(path)).toEqual({
      object: 'list',
      data: [file(b), file(a)],
      first_id: b,
      last_id: a,
      has_more: false,
    })
    expect(await v1.read(`${path}/${a}`)).toEqual(file(a))
    const lost = await v1.get(`${path}/file-none`)
    expect(refusal(lost)).toEqual(refused(404, "No message file found with id 'file-none'."))
    expect(refusal(await v2.get(path))).toEqual(refused(404, 'Not found'))
    const other = await v1.make('/threads')
    const astray = await v1.get(`/threads/${other.id}/messages/${message.id}/files`)
    expect(refusal(astray)).toEqual(refused(404, `No message found with id '${message.id}'.`))
    const nowhere = await v1.get(`/threads/thread_none/messages/${message.id}/files`)
    expect(refusal(nowhere)).toEqual(refused(404, "No thread found with id 'thread_none'."))
  })

  test('that v2 made of parts is read as texts', async () => {
    const content = [
      { type: 'text', text: 'What is this?' },
      { type: 'image_url', image_url: { url: 'https://example.com/a.png' } },
    ]
    const thread = await v2.make('/threads', { messages: [{ role: 'user', content }] })
    const [message] = (await v1.read(`/threads/${thread.id}/messages`)).data as [Body]
    expect(message['content']).toEqual([
      { type: 'text', text: { value: 'What is this?', annotations: [] } },
      { type: 'text', text: { value: 'https://example.com/a.png', annotations: [] } },
    ])
  })

  test('may be deleted, although v1 had no such call', async () => {
    const messages = [{ role: 'user', content: 'Hi' }]
    const thread = await v1.make('/threads', { messages })
    const [message] = (await v1.read(`/threads/${thread.id}/messages`)).data as [Body]
    const gone = await v1.delete(`/threads/${thread.id}/messages/${message.id}`)
    expect(gone.body).toMatchObject({ object: 'thread.message.deleted', deleted: true })
  })
})

test('a thread of v1 has no resources, and keeps those that v2 gave it', async () => {
  const [a] = await makeFiles(1)
  const tool_resources = { code_interpreter: { file_ids: [a] } }
  const { id } = await v2.make('/threads', { tool_resources })
  const changed = await v1.make(`/threads/${id}`, { metadata: { topic: 'x' } })
  expect(changed).toEqual({
    id,
    object: 'thread',
    created_at: expect.any(Number),
    metadata: { topic: 'x' },
  })
  expect(await v2.read(`/threads/${id}`)).toMatchObject({ tool_resources })
})

describe('a run of v1', () => {
  const toolsOfRun = [retrieval, { type: 'function', function: { name: 'add' } }]

  test('has the files that its assistant had at its beginning', async () => {
    const files = await makeFiles(2)
    const assistant = await v1.make('/assistants', { model, tools: [code], file_ids: files })
    const made = await v1.make('/threads/runs', {
      assistant_id: assistant.id,
      thread: { messages: [{ role: 'user', content: 'Hi' }] },
    })
    expect(made).toEqual({
      id: expect.stringMatching(/^run_/),
      object: 'thread.run',
      created_at: expect.any(Number),
      assistant_id: assistant.id,
      thread_id: expect.stringMatching(/^thread_/),
      status: 'queued',
      started_at: null,
      expires_at: expect.any(Number),
      cancelled_at: null,
      failed_at: null,
      completed_at: null,
      required_action: null,
      last_error: null,
      incomplete_details: null,
      model,
      instructions: null,
      tools: [code],
      file_ids: files,
      metadata: {},
      usage: null,
      temperature: 1,
      top_p: 1,
      max_prompt_tokens: null,
      max_completion_tokens: null,
      truncation_strategy: { type: 'auto', last_messages: null },
      tool_choice: 'auto',
      response_format: 'auto',
      longrun: expect.any(Object),
    })
    await v1.settled(made['thread_id'], made.id)
    await v1.make(`/assistants/${assistant.id}`, { file_ids: [] })
    const path = `/threads/${String(made['thread_id'])}/runs`
    expect(await v1.read(`${path}/${made.id}`)).toMatchObject({
      status: 'completed',
      file_ids: files,
    })
    expect((await v1.read(path)).data).toMatchObject([{ file_ids: files }])
    expect(await v2.read(`${path}/${made.id}`)).not.toHaveProperty('file_ids')
  })

  test('asks for functions and goes on with their outputs', async () => {
    server.model.script(call({ name: 'add', arguments: '{}' }))
    const { thread, run } = await begin({ tools: toolsOfRun, tool_choice: retrieval })
    expect(run).toMatchObject({
      tools: [retrieval, { type: 'function', function: { name: 'add' } }],
      tool_choice: retrieval,
    })
    const waiting = await v1.settled(thread, run.id)
    expect(waiting['status']).toBe('requires_action')
    const [asked] = callsOf(waiting)
    const path = `/threads/${thread}/runs/${run.id}`
    await v1.make(`${path}/submit_tool_outputs`, {
      tool_outputs: [{ tool_call_id: asked, output: '3' }],
    })
    expect(await v1.settled(thread, run.id)).toMatchObject({ status: 'completed' })
    const steps = (await v1.read(`${path}/steps`)).data
    expect(steps.map(({ type }) => type)).toEqual(['message_creation', 'tool_calls'])
    const step = await v1.read(`${path}/steps/${String(steps[1]?.id)}`)
    expect(step).toEqual(steps[1])
    expect(Object.keys(step['usage'] as object)).toHaveLength(3)
  })

  test('that is incomplete ends like a completed one, read or streamed', async () => {
    server.model.respond(() => say('Cut', { finishReason: 'length' }))
    const { thread, run } = await begin({ max_completion_tokens: 256 })
    const ended = {
      status: 'completed',
      incomplete_details: { reason: 'max_completion_tokens' },
      completed_at: expect.any(Number),
    }
    // The helper of the tests waits as the clients do: for a status that v1 knows.
    expect(await v1.settled(thread, run.id)).toMatchObject(ended)
    expect(await v2.read(`/threads/${thread}/runs/${run.id}`)).toMatchObject({
      status: 'incomplete',
    })
    const { events } = await stream(v1, { max_completion_tokens: 256 })
    expect(events.at(-2)).toMatchObject({ event: 'thread.run.completed', data: ended })
    expect(events.map(({ event }) => event)).not.toContain('thread.run.incomplete')
  })
})

describe('a stream of v1', () => {
  test('is the one of v2 in other words', async () => {
    const files = await makeFiles(1)
    const assistant = await v1.make('/assistants', { model, tools: [retrieval], file_ids: files })
    const { events } = await stream(v1, { assistant_id: assistant.id })
    const objects = events.filter(({ event }) => event !== 'done')
    expect(objects[0]).toMatchObject({ event: 'thread.created' })
    expect(objects[0]?.data).not.toHaveProperty('tool_resources')
    const runs = objects.filter(({ data }) => data['object'] === 'thread.run')
    expect(runs).toHaveLength(4)
    for (const { data } of runs) {
      expect(data).toMatchObject({ tools: [retrieval], file_ids: files })
      expect(data).not.toHaveProperty('parallel_tool_calls')
    }
    const message = objects.find(({ event }) => event === 'thread.message.completed')
    expect(message?.data).toMatchObject({ file_ids: [] })
    expect(message?.data).not.toHaveProperty('attachments')
    expect(events.at(-1)?.event).toBe('done')
  })

  test('says a refusal as text, in pieces that add up', async () => {
    server.model.respond(() => refuse(['I will ', 'not.']))
    const { events } = await stream(v1, {})
    const deltas = events.filter(({ event }) => event === 'thread.message.delta')
    const pieces = deltas.map(({ data }) => (data['delta'] as Body)['content'] as Body[])
    const values = pieces.flat().map(({ text }) => (text as { value: string }).value)
    expect(values.join('')).toBe('I will not.')
    const whole = events.find(({ event }) => event === 'thread.message.completed')
    expect(whole?.data['content']).toEqual([
      { type: 'text', text: { value: 'I will not.', annotations: [] } },
    ])
  })

  test('that is asked for again under its Idempotency-Key is again one of v1', async () => {
    const headers = { 'idempotency-key': randomUUID() }
    const assistant = await v1.make('/assistants', { model })
    const body = { assistant_id: assistant.id, stream: true }
    const first = await v1.post('/threads/runs', body, { headers })
    const again = await v1.post('/threads/runs', body, { headers })
    expect(again.text).toBe(first.text)
    expect(again.text).toContain('"file_ids":[]')
  })
})

describe('a body of v1', () => {
  const thread = '/threads/thread_none'
  test.each<[string, string, object, string, string, string]>([
    [
      'tools of v2',
      '/assistants',
      { model, tools: [code, { type: 'file_search' }] },
      "Invalid value: 'file_search'. Supported values are: 'code_interpreter', 'function', and 'retrieval'.",
      'tools[1].type',
      'invalid_value',
    ],
    [
      'resources of tools',
      '/assistants',
      { model, tool_resources: {} },
      "Unknown parameter: 'tool_resources'.",
      'tool_resources',
      'unknown_parameter',
    ],
    [
      'options of retrieval',
      '/assistants',
      { model, tools: [{ type: 'retrieval', retrieval: {} }] },
      "Unknown parameter: 'tools[0].retrieval'.",
      'tools[0].retrieval',
      'unknown_parameter',
    ],
    [
      'strict functions',
      '/assistants',
      { model, tools: [{ type: 'function', function: { name: 'f', strict: true } }] },
      "Unknown parameter: 'tools[0].function.strict'.",
      'tools[0].function.strict',
      'unknown_parameter',
    ],
    [
      'a JSON schema',
      '/assistants',
      { model, response_format: { type: 'json_schema' } },
      "Invalid value: 'json_schema'. Supported values are: 'text' and 'json_object'.",
      'response_format.type',
      'invalid_value',
    ],
    [
      'reasoning',
      '/threads/runs',
      { assistant_id: 'asst_a', reasoning_effort: 'low' },
      "Unknown parameter: 'reasoning_effort'.",
      'reasoning_effort',
      'unknown_parameter',
    ],
    [
      'calls side by side',
      '/threads/runs',
      { assistant_id: 'asst_a', parallel_tool_calls: false },
      "Unknown parameter: 'parallel_tool_calls'.",
      'parallel_tool_calls',
      'unknown_parameter',
    ],
    [
      'a required tool',
      '/threads/runs',
      { assistant_id: 'asst_a', tool_choice: 'required' },
      "Invalid value: 'required'. Supported values are: 'none' and 'auto'.",
      'tool_choice',
      'invalid_value',
    ],
    [
      'a message of parts',
      '/threads',
      { messages: [{ role: 'user', content: [{ type: 'text', text: 'Hi' }] }] },
      "Invalid type for 'messages[0].content': expected a string, but got an array instead.",
      'messages[0].content',
      'invalid_type',
    ],
    [
      'attachments',
      '/threads/runs',
      {
        assistant_id: 'asst_a',
        thread: { messages: [{ role: 'user', content: 'Hi', attachments: [] }] },
      },
      "Unknown parameter: 'thread.messages[0].attachments'.",
      'thread.messages[0].attachments',
      'unknown_parameter',
    ],
    [
      'eleven files in a message',
      '/threads',
      { messages: [{ role: 'user', content: 'Hi', file_ids: Array(11).fill('file-a') }] },
      "Invalid 'messages[0].file_ids': array too long. Expected an array with maximum length 10, but got an array with length 11 instead.",
      'messages[0].file_ids',
      'array_above_max_length',
    ],
  ])('may not hold %s', async (_, path, body, message, param, reason) => {
    expect(refusal(await v1.post(path, body))).toEqual(refused(400, message, param, reason))
  })

  test('is looked at after what its path names', async () => {
    const answer = await v1.post(`${thread}/messages`, { content: [] })
    expect(refusal(answer)).toEqual(refused(404, "No thread found with id 'thread_none'."))
  })

  test.each(['none', 'auto'])('may say %j of the form of the answer', async (response_format) => {
    const made = await v1.make('/assistants', { model, response_format })
    expect(made).toMatchObject({ response_format: 'auto' })
    expect(await v2.read(`/assistants/${made.id}`)).toMatchObject({ response_format: 'auto' })
  })

  test('of v2 may not speak of files as v1 did', async () => {
    const answer = await v2.post('/assistants', { model, file_ids: [] })
    const reason = "Unknown parameter: 'file_ids'."
    expect(refusal(answer)).toEqual(refused(400, reason, 'file_ids', 'unknown_parameter'))
  })
})

/** Rows as an upload leaves them, as far as anything here looks at them. */
async function makeFiles(count: number, project?: string): Promise<string[]> {
  const ids = Array.from({ length: count }, () => idFrom('file', randomUUID()))
  await database.query(
    `INSERT INTO files (id, project_id, bytes, filename, purpose, blob)
     SELECT f.id, p.id, 1, 'notes.txt', 'assistants', f.id
     FROM unnest($1::text[]) WITH ORDINALITY AS f (id, n), projects p
     WHERE p.id = $2 OR ($2 IS NULL AND p.id <> 'proj_other') ORDER BY n`,
    [ids, project],
  )
  return ids
}

/** What v2 says of an assistant's code interpreter. */
async function codeFiles(assistantId: string): Promise<unknown> {
  const { tool_resources } = await v2.read(`/assistants/${assistantId}`)
  return (tool_resources as { code_interpreter?: { file_ids: string[] } }).code_interpreter
    ?.file_ids
}

/** The files in the vector store of an assistant, in the order in which they came. */
async function searched(assistantId: string): Promise<string[]> {
  const { rows } = await database.query<{ file_id: string }>(
    `SELECT f.file_id FROM assistants a JOIN vector_store_files f
       ON f.vector_store_id = a.tool_resources -> 'file_search' -> 'vector_store_ids' ->> 0
     WHERE a.id = $1 ORDER BY f.seq`,
    [assistantId],
  )
  return rows.map(({ file_id }) => file_id)
}

async function begin(body: object): Promise<{ thread: string; run: Body }> {
  const assistant = await v1.make('/assistants', { model })
  const run = await v1.make('/threads/runs', { assistant_id: assistant.id, ...body })
  return { thread: String(run['thread_id']), run }
}

async function stream(api: Caller, body: object) {
  const assistant = await api.make('/assistants', { model })
  const answer = await api.post('/threads/runs', {
    assistant_id: assistant.id,
    ...body,
    stream: true,
  })
  const frames = answer.text.split('\n\n').filter((frame) => frame !== '')
  const events = frames.map((frame) => {
    const [, event = '', data = ''] = /event: (.*)\ndata: (.*)/.exec(frame) ?? []
    return { event, data: (data === '[DONE]' ? {} : JSON.parse(data)) as Body }
  })
  return { events }
}

function callsOf(run: Body): string[] {
  const action = run['required_action'] as {
    submit_tool_outputs: { tool_calls: { id: string }[] }
  }
  return action.submit_tool_outputs.tool_calls.map(({ id }) => id)
}
