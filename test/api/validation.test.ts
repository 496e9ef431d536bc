import { describe, expect, test } from 'vitest'
import { z } from 'zod'
import { CreateAssistant, ModifyAssistant } from '../../api/assistants.schema.ts'
import {
  IncludeQuery,
  ListMessagesQuery,
  ListQuery,
  ListStepsQuery,
} from '../../api/lists.schema.ts'
import { CreateMessage, ModifyMessage } from '../../api/messages.schema.ts'
import {
  CreateRun,
  CreateThreadAndRun,
  ModifyRun,
  SubmitToolOutputs,
} from '../../api/runs.schema.ts'
import { CreateThread, ModifyThread } from '../../api/threads.schema.ts'
import { assertId, integer, list, parse, parseQuery, text } from '../../api/validation.ts'
import { ApiError } from '../../wire/errors.ts'

const bodies = {
  CreateAssistant,
  ModifyAssistant,
  CreateThread,
  ModifyThread,
  CreateMessage,
  ModifyMessage,
  CreateRun,
  CreateThreadAndRun,
  ModifyRun,
  SubmitToolOutputs,
}
const queries = { ListQuery, ListMessagesQuery, ListStepsQuery, IncludeQuery }

describe('of several errors the answer names one', () => {
  const Schema = z.strictObject({
    size: integer(1, 9),
    name: text(3),
    items: list(z.strictObject({ a: text(3), b: text(3) }), { of: 'objects' }).optional(),
  })

  test.each([
    ['an unknown key before a missing one', { extra: 1 }, "Unknown parameter: 'extra'."],
    ['a missing key before a wrong type', { size: 'x' }, "Missing required parameter: 'name'."],
    [
      'a wrong type before a wrong value',
      { size: 10, name: 1 },
      "Invalid type for 'name': expected a string, but got an integer instead.",
    ],
    [
      "of one kind the schema's first",
      { name: 1, size: 'x' },
      "Invalid type for 'size': expected an integer, but got a string instead.",
    ],
    [
      'of an array its first bad item',
      { size: 1, name: '', items: [{ a: '', b: '' }, { a: '', b: 1 }, {}] },
      "Invalid type for 'items[1].b': expected a string, but got an integer instead.",
    ],
    [
      'what cannot be stored before all',
      { extra: 'a\0' },
      "Invalid 'extra': the text contains the character U+0000, which cannot be stored.",
    ],
  ])('%s', (_, body, message) => {
    expect(() => parse(Schema, body)).toThrow(message)
  })
})

describe('a body that is no object', () => {
  test.each([
    [[], 'an array'],
    [null, 'null'],
    ['x', 'a string'],
    [1, 'an integer'],
    [1.5, 'a decimal number'],
    [true, 'a boolean'],
  ])('%j is refused', (body, got) => {
    const message = `Invalid type for 'body': expected an object, but got ${got} instead.`
    expect(() => parse(CreateThread, body)).toThrow(message)
  })
})

describe('text that the database refuses', () => {
  test.each([
    ['in a field', { role: 'user', content: 'a\0b' }, 'content'],
    ['in a part', { role: 'user', content: [{ type: 'text', text: '\0' }] }, 'content[0].text'],
    ['half of an emoji', { role: 'user', content: '\ud83d' }, 'content'],
    ['its other half', { role: 'user', content: '\ude42!' }, 'content'],
    ['in metadata', { role: 'user', content: 'x', metadata: { k: '\0' } }, 'metadata.k'],
    ['as a key', { role: 'user', content: 'x', metadata: { '\0': 'v' } }, 'metadata.\u{fffd}'],
    ['where nothing may be', { role: 'user', content: 'x', other: ['\0'] }, 'other[0]'],
  ])('%s is refused with its place', (_, body, param) => {
    expect(() => parse(CreateMessage, body)).toThrow(
      expect.objectContaining({
        status: 400,
        param,
        code: 'invalid_value',
        message: expect.stringContaining('cannot be stored'),
      }),
    )
  })

  test('deep inside a function is found too', () => {
    const parameters = { properties: { a: { enum: ['ok', '\0'] } } }
    const tools = [{ type: 'function', function: { name: 'f', parameters } }]
    expect(() => parse(CreateAssistant, { model: 'm', tools })).toThrow(
      expect.objectContaining({ param: 'tools[0].function.parameters.properties.a.enum[1]' }),
    )
  })

  test('in a query is found too', () => {
    expect(() => parseQuery(ListQuery, new URLSearchParams('after=%00'))).toThrow(
      "Invalid 'after': the text contains the character U+0000, which cannot be stored.",
    )
  })

  test('a whole emoji is fine', () => {
    expect(parse(CreateMessage, { role: 'user', content: '🙂' }).content).toBe('🙂')
  })
})

describe('a body made to break things', () => {
  test('nests a hundred thousand deep: refused', () => {
    for (const wrap of [(inner: unknown) => ({ a: inner }), (inner: unknown) => [inner]]) {
      const body = withParameters({ a: nested(100_000, wrap) })
      expect(() => parse(CreateAssistant, body)).toThrow('nested too deeply')
      expect(() => parse(CreateThread, nested(100_000, wrap))).toThrow('nested too deeply')
    }
  })

  test('nests as deep as real schemas do: accepted', () => {
    const body = withParameters({ a: nested(90, (inner) => ({ a: inner })) })
    expect(parse(CreateAssistant, body).tools).toEqual(body.tools)
  })

  test('names prototypes: refused, wherever the key is', () => {
    const sources = [
      '{"__proto__": {"model": "m"}}',
      '{"model": "m", "metadata": {"__proto__": "x"}}',
      '{"model": "m", "tools": [{"__proto__": {"type": "code_interpreter"}}]}',
    ]
    for (const source of sources) {
      expect(() => parse(CreateAssistant, JSON.parse(source))).toThrow(/Unknown .*__proto__'/)
    }
    expect(Object.prototype).not.toHaveProperty('model')
  })

  test('has metadata named like what every object has: accepted', () => {
    const metadata = { constructor: 'c', toString: 't', hasOwnProperty: 'h' }
    expect(parse(CreateThread, { metadata }).metadata).toEqual(metadata)
  })

  test('has a number beyond all numbers: refused', () => {
    const body: unknown = JSON.parse('{"assistant_id": "asst_1", "temperature": 1e999}')
    expect(() => parse(CreateRun, body)).toThrow(
      "Invalid 'temperature': the number is out of range.",
    )
  })

  test('has a million bad items: one error, and soon', () => {
    const million = Array.from({ length: 1_000_000 }, () => ({}))
    const started = performance.now()
    for (const body of [
      { messages: million },
      { messages: [{ role: 'user', content: million }] },
    ]) {
      expect(() => parse(CreateThread, body)).toThrow('Missing required parameter')
    }
    expect(() => parse(CreateAssistant, { model: 'm', tools: million })).toThrow('array too long')
    expect(performance.now() - started).toBeLessThan(5000)
  })

  test('has long names: the answer stays short', () => {
    const long = 'x'.repeat(1_000_000)
    const errors = [
      () => parse(CreateThread, { [long]: 1 }),
      () => parse(CreateThread, { metadata: { [long]: 'v' } }),
      () => parse(CreateThread, { messages: [{ role: long, content: 'x' }] }),
      () => parse(CreateRun, { assistant_id: long }),
      () => parseQuery(ListQuery, { [long]: '1', order: long }),
    ].map(thrown)
    for (const error of errors) {
      expect(error?.message.length).toBeLessThan(400)
      expect(error?.param?.length).toBeLessThan(200)
    }
  })
})

describe('an id in a path', () => {
  test('is refused when it cannot be one', () => {
    expect(() => assertId('thread_id', 'undefined', 'thread')).toThrow(
      expect.objectContaining({
        status: 400,
        message: "Invalid 'thread_id': 'undefined'. Expected an ID that begins with 'thread'.",
        param: 'thread_id',
        code: 'invalid_value',
      }),
    )
    expect(() => assertId('vector_store_id', 'vs_x:y', 'vector_store')).toThrow(
      "Invalid 'vector_store_id': 'vs_x:y'. Expected an ID that contains letters, numbers, underscores, or dashes, but this value contained additional characters.",
    )
    expect(() => assertId('run_id', `run_${'x'.repeat(100)}`, 'run')).toThrow('string too long')
    expect(() => assertId('run_id', 'run_\0', 'run')).toThrow(ApiError)
    expect(() => assertId('run_id', '', 'run')).toThrow(ApiError)
  })

  test('is accepted in all forms that the original has', () => {
    const ids = [
      ['asst_abc123', 'assistant'],
      ['file-3r2R5sAbC', 'file'],
      ['step_abc123', 'step'],
      ['vs_0123456789abcdef', 'vector_store'],
    ] as const
    for (const [id, kind] of ids) expect(() => assertId('id', id, kind)).not.toThrow()
  })
})

describe('a query', () => {
  test('may be what a router made of it, or URLSearchParams', () => {
    expect(parseQuery(ListQuery, { limit: '5', after: undefined })).toMatchObject({ limit: 5 })
    expect(parseQuery(ListQuery, new URLSearchParams('limit=5'))).toMatchObject({ limit: 5 })
  })

  test('says nothing where it is empty', () => {
    const query = new URLSearchParams('limit=&order=&after=&before=')
    expect(parseQuery(ListQuery, query)).toEqual({ limit: 20, order: 'desc' })
  })

  test('cannot reach a prototype', () => {
    for (const source of ['__proto__=1', '__proto__[]=1', 'constructor=1', '[]=1']) {
      expect(() => parseQuery(ListQuery, new URLSearchParams(source))).toThrow('Unknown parameter')
    }
  })
})

describe('whatever arrives, the answer is a value or a 400', () => {
  test.each(Object.entries(bodies))('%s', (_, schema) => {
    const random = seeded(20_240_501)
    const outcomes = { accepted: 0, refused: 0 }
    for (let i = 0; i < 3000; i += 1) {
      const body = randomValue(random, 6)
      const before = JSON.stringify(body)
      const error = thrown(() => parse(schema, body))
      expect(JSON.stringify(body)).toBe(before)
      if (error) expectRefusal(error, body)
      outcomes[error ? 'refused' : 'accepted'] += 1
    }
    expect(outcomes.refused).toBeGreaterThan(0)
  })

  test.each(Object.entries(bodies))('%s, when the body is almost right', (name, schema) => {
    const random = seeded(7)
    const outcomes = { accepted: 0, refused: 0 }
    for (let i = 0; i < 3000; i += 1) {
      const body = mutated(random, pick(random, almostRight[name] ?? []))
      const error = thrown(() => parse(schema, body))
      if (error) expectRefusal(error, body)
      outcomes[error ? 'refused' : 'accepted'] += 1
    }
    expect(outcomes.refused).toBeGreaterThan(100)
    expect(outcomes.accepted).toBeGreaterThan(10)
  })

  test.each(Object.entries(queries))('%s', (_, schema) => {
    const random = seeded(99)
    let refused = 0
    for (let i = 0; i < 3000; i += 1) {
      const query = new URLSearchParams()
      for (let n = random() * 4; n > 0; n -= 1) {
        query.append(pick(random, [...keys, 'include[]', '[', 'a[b]']), String(scalar(random)))
      }
      const error = thrown(() => parseQuery(schema, query))
      if (error) expectRefusal(error, query.toString())
      refused += error ? 1 : 0
    }
    expect(refused).toBeGreaterThan(100)
  })
})

function nested(depth: number, wrap: (inner: unknown) => unknown): unknown {
  let value: unknown = 1
  for (let i = 0; i < depth; i += 1) value = wrap(value)
  return value
}

function withParameters(parameters: unknown) {
  return { model: 'm', tools: [{ type: 'function', function: { name: 'f', parameters } }] }
}

/** What it throws, unless that is not an answer. */
function thrown(call: () => unknown): ApiError | undefined {
  try {
    call()
    return undefined
  } catch (error) {
    if (error instanceof ApiError) return error
    throw error
  }
}

function expectRefusal(error: ApiError, input: unknown): void {
  const facts = {
    status: error.status,
    type: error.type,
    said: error.message.length > 0 && error.message.isWellFormed(),
    // Such a text would mean that a schema speaks a language that errorOf() does not know.
    understood: !/undefined|another value|not acceptable|\[object/.test(error.message),
    short: error.message.length < 1500,
  }
  expect(facts, `${error.message} for ${JSON.stringify(input)?.slice(0, 500)}`).toEqual({
    status: 400,
    type: 'invalid_request_error',
    said: true,
    understood: true,
    short: true,
  })
}

type Random = () => number

/** mulberry32: the same values in every run, so that a failure can be looked at. */
function seeded(seed: number): Random {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
}

const keys =
  'model name description instructions tools tool_resources metadata temperature top_p response_format reasoning_effort messages role content attachments file_id type text image_file image_url url detail function parameters strict file_search code_interpreter vector_store_ids vector_stores file_ids chunking_strategy static max_chunk_size_tokens chunk_overlap_tokens max_num_results ranking_options score_threshold ranker json_schema schema assistant_id thread additional_messages tool_choice truncation_strategy last_messages parallel_tool_calls stream max_prompt_tokens tool_outputs tool_call_id output limit order after before include run_id __proto__ constructor prototype toString hasOwnProperty length 0'.split(
    ' ',
  )
const strings = [
  '',
  'a',
  'auto',
  'user',
  'function',
  'code_interpreter',
  'file_search',
  'text',
  'image_file',
  'image_url',
  'json_schema',
  'static',
  'last_messages',
  'required',
  'asst_1',
  'file-1',
  'vs_1',
  'run_1',
  'https://example.com/a.png',
  'http://',
  'data:image/png;base64,AAAA',
  '10',
  '1e3',
  '-1',
  '\0',
  '\ud800',
  '🙂',
  'x'.repeat(70),
  'x'.repeat(600),
]
const numbers = [0, 1, -1, 0.5, 2, 16, 100, 1e9, 1e21, -0, 1e-7, Infinity, 2 ** 53]

function pick<T>(random: Random, from: T[]): T {
  const value = from[Math.floor(random() * from.length)]
  if (value === undefined) throw new Error('there is nothing to pick from')
  return value
}

function scalar(random: Random): unknown {
  const kind = random()
  if (kind < 0.5) return pick(random, strings)
  if (kind < 0.75) return pick(random, numbers)
  return pick<unknown>(random, [null, true, false])
}

function randomValue(random: Random, depth: number): unknown {
  const kind = random()
  if (depth === 0 || kind < 0.3) return scalar(random)
  const size = Math.floor(random() * 5)
  if (kind < 0.5) return Array.from({ length: size }, () => randomValue(random, depth - 1))
  // fromEntries makes `__proto__` an own key, as JSON.parse does.
  return Object.fromEntries(
    Array.from({ length: size }, () => [pick(random, keys), randomValue(random, depth - 1)]),
  )
}

/** A copy with one place changed: another value, a key more, a key less, or nothing at all. */
function mutated(random: Random, value: unknown): unknown {
  if (random() < 0.15) return randomValue(random, 2)
  if (Array.isArray(value)) {
    const copy: unknown[] = [...value]
    const index = Math.floor(random() * (copy.length + 1))
    copy[index] = mutated(random, copy[index] ?? null)
    return copy
  }
  if (typeof value !== 'object' || value === null) return random() < 0.5 ? value : scalar(random)
  const entries: [string, unknown][] = Object.entries(value)
  const index = Math.floor(random() * (entries.length + 1))
  const entry = entries[index]
  if (!entry) entries.push([pick(random, keys), scalar(random)])
  else if (random() < 0.1) entries.splice(index, 1)
  else entry[1] = mutated(random, entry[1])
  return Object.fromEntries(entries)
}

const message = {
  role: 'user',
  content: [
    { type: 'text', text: 'Hello' },
    { type: 'image_file', image_file: { file_id: 'file-1', detail: 'low' } },
    { type: 'image_url', image_url: { url: 'https://example.com/a.png' } },
  ],
  attachments: [{ file_id: 'file-1', tools: [{ type: 'file_search' }] }],
  metadata: { key: 'value' },
}
const tools = [
  { type: 'code_interpreter' },
  {
    type: 'file_search',
    file_search: { max_num_results: 5, ranking_options: { score_threshold: 0.5 } },
  },
  {
    type: 'function',
    function: {
      name: 'f',
      strict: true,
      parameters: { type: 'object', properties: {}, additionalProperties: false },
    },
  },
]
const helper = {
  file_ids: ['file-1'],
  chunking_strategy: {
    type: 'static',
    static: { max_chunk_size_tokens: 800, chunk_overlap_tokens: 400 },
  },
}
const tool_resources = {
  code_interpreter: { file_ids: ['file-1'] },
  file_search: { vector_store_ids: ['vs_1'] },
}
const assistant = {
  model: 'm',
  name: 'Ada',
  tools,
  tool_resources,
  response_format: { type: 'json_schema', json_schema: { name: 'n', schema: {} } },
  temperature: 0.5,
  metadata: { key: 'value' },
}
const thread = {
  messages: [message, { role: 'assistant', content: 'Hi' }],
  tool_resources: { file_search: { vector_stores: [helper] } },
}
const run = {
  assistant_id: 'asst_1',
  additional_messages: [message],
  tools,
  truncation_strategy: { type: 'last_messages', last_messages: 3 },
  tool_choice: { type: 'function', function: { name: 'f' } },
  max_prompt_tokens: 1000,
  on_active_run: 'reject',
}
const change = { metadata: { key: null } }
const almostRight: Record<string, unknown[]> = {
  CreateAssistant: [assistant],
  ModifyAssistant: [assistant, change],
  CreateThread: [thread],
  ModifyThread: [{ tool_resources, ...change }],
  CreateMessage: [message],
  ModifyMessage: [change],
  CreateRun: [run],
  CreateThreadAndRun: [{ ...run, thread, tool_resources }],
  ModifyRun: [change],
  SubmitToolOutputs: [{ tool_outputs: [{ tool_call_id: 'call_1', output: 'x' }], stream: true }],
}
