import { afterAll, beforeAll, expect, test } from 'vitest'

import { startServer, type TestServer } from '../support/server.ts'
import { createCaller, refusal, refused, type Caller } from './caller.ts'

let server: TestServer
let api: Caller
beforeAll(async () => {
  server = await startServer()
  api = createCaller(server)
})
afterAll(() => server[Symbol.asyncDispose]())

const anId = expect.stringMatching(/^asst_[0-9A-Za-z]{24}$/)
/** Seconds, and not milliseconds: no clock of a test is off by a day. */
const now = () => expect.closeTo(Date.now() / 1000, -4)

test('an assistant of nothing but a model has every other field at its default', async () => {
  const made = await api.make('/assistants', { model: 'gpt-4o' })
  expect(made).toEqual({
    id: anId,
    object: 'assistant',
    created_at: now(),
    name: null,
    description: null,
    model: 'gpt-4o',
    instructions: null,
    tools: [],
    tool_resources: {},
    metadata: {},
    temperature: 1,
    top_p: 1,
    reasoning_effort: null,
    response_format: 'auto',
  })
  expect(Number.isInteger(made['created_at'])).toBe(true)
  expect(await api.read(`/assistants/${made.id}`)).toEqual(made)
})

test('every field of an assistant comes back as it was sent', async () => {
  const fields = {
    model: 'o3-mini',
    name: 'Tutor',
    description: 'Für Mathe 🧮',
    instructions: 'Be brief.',
    tools: [
      { type: 'code_interpreter' },
      {
        type: 'function',
        function: {
          name: 'add',
          description: 'Adds.',
          parameters: {
            type: 'object',
            properties: { a: { type: 'number' } },
            required: ['a'],
            additionalProperties: false,
          },
          strict: true,
        },
      },
    ],
    metadata: { team: 'a', empty: '' },
    temperature: 0.2,
    top_p: 0.9,
    reasoning_effort: 'low',
    response_format: { type: 'json_schema', json_schema: { name: 'answer', schema: {} } },
  }
  const made = await api.make('/assistants', fields)
  expect(made).toMatchObject(fields)
  expect(await api.read(`/assistants/${made.id}`)).toEqual(made)
})

test('what a tool leaves out is filled in, as the original does', async () => {
  const { tools, tool_resources } = await api.make('/assistants', {
    model: 'gpt-4o',
    tools: [
      { type: 'function', function: { name: 'f' } },
      { type: 'file_search', file_search: { max_num_results: 7 } },
      { type: 'code_interpreter' },
    ],
  })
  expect(tools).toEqual([
    {
      type: 'function',
      function: { name: 'f', parameters: { type: 'object', properties: {} }, strict: false },
    },
    {
      type: 'file_search',
      file_search: {
        max_num_results: 7,
        ranking_options: {
          ranker: 'default_2024_08_21',
          score_threshold: 0,
          hybrid_search: null,
        },
      },
    },
    { type: 'code_interpreter' },
  ])
  expect(tool_resources).toEqual({ code_interpreter: { file_ids: [] } })
})

test('nullable fields may be null from the start', async () => {
  const nulls = {
    name: null,
    description: null,
    instructions: null,
    reasoning_effort: null,
    temperature: null,
    top_p: null,
  }
  const made = await api.make('/assistants', {
    model: 'gpt-4o',
    ...nulls,
    metadata: null,
    tool_resources: null,
    response_format: null,
  })
  expect(made).toMatchObject({
    ...nulls,
    metadata: {},
    tool_resources: {},
    response_format: 'auto',
  })
})

test('a modify changes what it names and leaves the rest', async () => {
  const made = await api.make('/assistants', {
    model: 'gpt-4o',
    name: 'Before',
    instructions: 'Stay.',
    temperature: 0.5,
    tools: [{ type: 'code_interpreter' }],
    metadata: { a: '1' },
  })
  const changed = await api.make(`/assistants/${made.id}`, { name: 'After', temperature: null })
  expect(changed).toEqual({ ...made, name: 'After', temperature: null })
  const empty = await api.make(`/assistants/${made.id}`, {})
  expect(empty).toEqual(changed)
  const replaced = await api.make(`/assistants/${made.id}`, {
    model: 'gpt-4.1',
    tools: [],
    response_format: { type: 'text' },
    instructions: null,
  })
  expect(replaced).toEqual({
    ...changed,
    model: 'gpt-4.1',
    tools: [],
    response_format: { type: 'text' },
    instructions: null,
  })
  expect(await api.read(`/assistants/${made.id}`)).toEqual(replaced)
})

test('metadata is merged, and a key that is null or empty in a modify goes', async () => {
  const { id } = await api.make('/assistants', { model: 'm', metadata: { a: '1', b: '2', c: '3' } })
  const change = async (metadata: unknown) =>
    (await api.make(`/assistants/${id}`, { metadata }))['metadata']
  expect(await change({ b: 'two', d: '4' })).toEqual({ a: '1', b: 'two', c: '3', d: '4' })
  expect(await change({ a: null, c: '' })).toEqual({ b: 'two', d: '4' })
  expect(await change(null)).toEqual({ b: 'two', d: '4' })
  expect(await change({})).toEqual({ b: 'two', d: '4' })
})

test("a tool's resources are replaced by those of the same tool, and kept where nothing is said", async () => {
  const { id } = await api.make('/assistants', {
    model: 'm',
    tools: [{ type: 'code_interpreter' }, { type: 'file_search' }],
  })
  const change = async (tool_resources: unknown) =>
    (await api.make(`/assistants/${id}`, { tool_resources }))['tool_resources']
  const before = await change({ code_interpreter: { file_ids: [] } })
  expect(await change({ file_search: {} })).toEqual(before)
  expect(await change(null)).toEqual(before)
})

test('a deleted assistant is gone, and cannot be deleted again', async () => {
  const { id } = await api.make('/assistants', { model: 'gpt-4o' })
  const answer = await api.delete(`/assistants/${id}`)
  expect(answer.status).toBe(200)
  expect(answer.body).toEqual({ id, object: 'assistant.deleted', deleted: true })
  const gone = refused(404, `No assistant found with id '${id}'.`)
  expect(refusal(await api.get(`/assistants/${id}`))).toEqual(gone)
  expect(refusal(await api.post(`/assistants/${id}`, { name: 'x' }))).toEqual(gone)
  expect(refusal(await api.delete(`/assistants/${id}`))).toEqual(gone)
})

test('sixteen pairs of metadata of the longest allowed text are kept', async () => {
  const metadata = Object.fromEntries(
    Array.from({ length: 16 }, (_, n) => [String(n).padEnd(64, 'k'), '🙂'.repeat(512)]),
  )
  const { id } = await api.make('/assistants', { model: 'm', metadata })
  expect((await api.read(`/assistants/${id}`))['metadata']).toEqual(metadata)
})
