import { describe, expect, test } from 'vitest'
import type { z } from 'zod'
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
import { parse, parseQuery } from '../../api/validation.ts'
import type { Accepts, Holds, SameKeys } from '../../api/validation.ts'
import { ApiError } from '../../wire/errors.ts'

const run = { assistant_id: 'asst_1' }
const user = { role: 'user', content: 'Hello' }
const functions = (count: number) =>
  Array.from({ length: count }, (_, i) => ({ type: 'function', function: { name: `f${i}` } }))
const pairs = (count: number) =>
  Object.fromEntries(Array.from({ length: count }, (_, i) => [`k${i}`, 'v']))

describe('defaults', () => {
  test('an assistant needs a model and nothing else', () => {
    expect(parse(CreateAssistant, { model: 'm' })).toEqual({
      model: 'm',
      tools: [],
      temperature: 1,
      top_p: 1,
      response_format: 'auto',
    })
  })

  test('a thread needs no body', () => {
    expect(parse(CreateThread, undefined)).toEqual({ messages: [] })
  })

  test('a run has those that do not depend on its assistant, and null asks for them too', () => {
    const expected = {
      assistant_id: 'asst_1',
      truncation_strategy: { type: 'auto', last_messages: null },
      tool_choice: 'auto',
      parallel_tool_calls: true,
    }
    const asked = { truncation_strategy: null, tool_choice: null, parallel_tool_calls: null }
    expect(parse(CreateRun, run)).toEqual(expected)
    expect(parse(CreateRun, { ...run, ...asked })).toEqual(expected)
  })

  test('a modify has none, so that what is not said stays', () => {
    for (const schema of [ModifyAssistant, ModifyThread, ModifyMessage, ModifyRun]) {
      expect(parse(schema, {})).toEqual({})
    }
  })

  test('an image has detail auto', () => {
    const content = [{ type: 'image_file', image_file: { file_id: 'file-1' } }]
    expect(parse(CreateMessage, { role: 'user', content }).content).toEqual([
      { type: 'image_file', image_file: { file_id: 'file-1', detail: 'auto' } },
    ])
  })

  test('a function that returns nothing answers with empty text', () => {
    const body = { tool_outputs: [{ tool_call_id: 'call_1' }] }
    expect(parse(SubmitToolOutputs, body).tool_outputs).toEqual([
      { tool_call_id: 'call_1', output: '' },
    ])
  })
})

const nullable = {
  assistant:
    'name description instructions reasoning_effort tool_resources metadata temperature top_p response_format',
  run: 'model reasoning_effort instructions additional_instructions additional_messages tools metadata temperature top_p stream max_prompt_tokens max_completion_tokens response_format expires_after_seconds on_active_run',
}

describe('null', () => {
  test.each(nullable.assistant.split(' '))('is kept in the %s of an assistant', (key) => {
    expect(parse(CreateAssistant, { model: 'm', [key]: null })).toHaveProperty(key, null)
    expect(parse(ModifyAssistant, { [key]: null })).toHaveProperty(key, null)
  })

  test.each(nullable.run.split(' '))('is kept in the %s of a run', (key) => {
    expect(parse(CreateRun, { ...run, [key]: null })).toHaveProperty(key, null)
    expect(parse(CreateThreadAndRun, { ...run, [key]: null })).toHaveProperty(key, null)
  })

  test('removes a key of metadata in a modify, and is refused in a create', () => {
    const body = { metadata: { gone: null, empty: '', kept: 'v' } }
    for (const schema of [ModifyAssistant, ModifyThread, ModifyMessage, ModifyRun]) {
      expect(parse(schema, body)).toEqual(body)
    }
    expect(() => parse(CreateThread, body)).toThrow(ApiError)
  })
})

describe('what is accepted', () => {
  test('content stays as it was sent: a string or parts', () => {
    const content = [
      { type: 'text', text: 'What is this?' },
      { type: 'image_url', image_url: { url: 'https://example.com/a.png', detail: 'low' } },
      { type: 'image_url', image_url: { url: 'data:image/png;base64,AAAA', detail: 'high' } },
    ]
    expect(parse(CreateMessage, { role: 'user', content }).content).toEqual(content)
    expect(parse(CreateMessage, user).content).toBe('Hello')
  })

  test('every kind of tool, with its options', () => {
    const tools = [
      { type: 'code_interpreter' },
      {
        type: 'file_search',
        file_search: {
          max_num_results: 50,
          ranking_options: { ranker: 'default_2024_08_21', score_threshold: 0.5 },
        },
      },
      {
        type: 'function',
        function: {
          name: 'get_weather',
          description: 'The weather',
          strict: null,
          parameters: { type: 'object', properties: { constructor: { type: 'string' } } },
        },
      },
    ]
    expect(parse(CreateAssistant, { model: 'm', tools }).tools).toEqual(tools)
    expect(parse(CreateRun, { ...run, tools }).tools).toEqual(tools)
  })

  test('every response format', () => {
    const formats = [
      'auto',
      { type: 'text' },
      { type: 'json_object' },
      { type: 'json_schema', json_schema: { name: 'n', schema: { any: [1] }, strict: true } },
    ]
    for (const response_format of formats) {
      const body = { model: 'm', response_format }
      expect(parse(CreateAssistant, body).response_format).toEqual(response_format)
    }
  })

  test('every tool choice', () => {
    const choices = [
      'none',
      'auto',
      'required',
      { type: 'file_search' },
      { type: 'function', function: { name: 'f' } },
    ]
    for (const tool_choice of choices) {
      expect(parse(CreateRun, { ...run, tool_choice }).tool_choice).toEqual(tool_choice)
    }
  })

  test('a run that brings its thread, with what the published schema forgot', () => {
    const body = {
      ...run,
      thread: {
        messages: [
          { ...user, attachments: [{ file_id: 'file-1', tools: [{ type: 'file_search' }] }] },
        ],
        tool_resources: { file_search: { vector_stores: [{ file_ids: ['file-1'] }] } },
      },
      tool_resources: { code_interpreter: { file_ids: ['file-1'] } },
      reasoning_effort: 'low',
      additional_instructions: 'Be brief.',
      additional_messages: [user],
      expires_after_seconds: 7_776_000,
      on_active_run: 'enqueue',
    }
    expect(parse(CreateThreadAndRun, body)).toMatchObject(body)
  })

  test('file_search without stores, which leaves what was there', () => {
    const body = { tool_resources: { file_search: {} } }
    expect(parse(ModifyAssistant, body)).toEqual(body)
    expect(parse(CreateThread, body).tool_resources).toEqual(body.tool_resources)
  })

  test('limits themselves, and emoji counted as one character each', () => {
    const body = {
      model: 'm',
      name: '🙂'.repeat(256),
      description: 'd'.repeat(512),
      instructions: 'i'.repeat(256_000),
      tools: functions(128),
      metadata: { ...pairs(15), ['k'.repeat(64)]: 'v'.repeat(512) },
      temperature: 2,
      top_p: 0,
    }
    expect(parse(CreateAssistant, body)).toMatchObject(body)
    const budget = { ...run, max_prompt_tokens: 16, max_completion_tokens: 16 }
    expect(parse(CreateRun, budget)).toMatchObject(budget)
  })
})

type Refusal = [string, z.ZodType, unknown, string, string, string]
const unknown = (path: string) =>
  [`Unknown parameter: '${path}'.`, path, 'unknown_parameter'] as const
const missing = (path: string) =>
  [`Missing required parameter: '${path}'.`, path, 'missing_required_parameter'] as const

const stores = (file_search: unknown) => ({ tool_resources: { file_search } })
const chunks = (max_chunk_size_tokens: number, chunk_overlap_tokens: number) =>
  stores({
    vector_stores: [
      {
        chunking_strategy: {
          type: 'static',
          static: { max_chunk_size_tokens, chunk_overlap_tokens },
        },
      },
    ],
  })
const fileSearch = 'tool_resources.file_search'
const chunking = `${fileSearch}.vector_stores[0].chunking_strategy.static`

const refusals: Refusal[] = [
  ['v1 file_ids', CreateAssistant, { model: 'm', file_ids: [] }, ...unknown('file_ids')],
  ['v1 file_ids on a message', CreateMessage, { ...user, file_ids: [] }, ...unknown('file_ids')],
  [
    'file_ids in file_search',
    CreateThread,
    stores({ file_ids: [] }),
    ...unknown(`${fileSearch}.file_ids`),
  ],
  [
    'the helper on a modify',
    ModifyThread,
    stores({ vector_stores: [] }),
    ...unknown(`${fileSearch}.vector_stores`),
  ],
  ['resources on a run', CreateRun, { ...run, tool_resources: {} }, ...unknown('tool_resources')],
  ['defaults of Object', CreateThread, { constructor: 1 }, ...unknown('constructor')],
  ['no model', CreateAssistant, {}, ...missing('model')],
  ['no assistant', CreateRun, {}, ...missing('assistant_id')],
  ['no role', CreateMessage, { content: 'x' }, ...missing('role')],
  ['no content', CreateMessage, { role: 'user' }, ...missing('content')],
  ['no outputs', SubmitToolOutputs, {}, ...missing('tool_outputs')],
  [
    'an output for no call',
    SubmitToolOutputs,
    { tool_outputs: [{ output: 'x' }] },
    ...missing('tool_outputs[0].tool_call_id'),
  ],
  [
    'an attachment for no tool',
    CreateMessage,
    { ...user, attachments: [{ file_id: 'file-1' }] },
    ...missing('attachments[0].tools'),
  ],
  [
    'a tool without a type',
    CreateAssistant,
    { model: 'm', tools: [{}] },
    ...missing('tools[0].type'),
  ],
  [
    'a function without a name',
    CreateAssistant,
    { model: 'm', tools: [{ type: 'function', function: {} }] },
    ...missing('tools[0].function.name'),
  ],
  [
    'a choice of no function',
    CreateRun,
    { ...run, tool_choice: { type: 'function' } },
    ...missing('tool_choice.function'),
  ],
  [
    'the last how many messages',
    CreateRun,
    { ...run, truncation_strategy: { type: 'last_messages' } },
    ...missing('truncation_strategy.last_messages'),
  ],
  [
    "v1's retrieval tool",
    CreateAssistant,
    { model: 'm', tools: [{ type: 'code_interpreter' }, { type: 'retrieval' }] },
    "Invalid value: 'retrieval'. Supported values are: 'code_interpreter', 'file_search', and 'function'.",
    'tools[1].type',
    'invalid_value',
  ],
  [
    'a system message',
    CreateThread,
    { messages: [{ role: 'system', content: 'x' }] },
    "Invalid value: 'system'. Supported values are: 'user' and 'assistant'.",
    'messages[0].role',
    'invalid_value',
  ],
  [
    'a tool type that is no string',
    CreateAssistant,
    { model: 'm', tools: [{ type: 1 }] },
    "Invalid type for 'tools[0].type': expected one of 'code_interpreter', 'file_search', or 'function', but got an integer instead.",
    'tools[0].type',
    'invalid_type',
  ],
  [
    'content of a wrong type',
    CreateMessage,
    { role: 'user', content: { text: 'x' } },
    "Invalid type for 'content': expected one of a string or array of objects, but got an object instead.",
    'content',
    'invalid_type',
  ],
  [
    'no parts',
    CreateMessage,
    { role: 'user', content: [] },
    "Invalid 'content': empty array. Expected an array with minimum length 1, but got an empty array instead.",
    'content',
    'empty_array',
  ],
  [
    'a part that echoes our own answer',
    CreateMessage,
    { role: 'user', content: [{ type: 'text', text: { value: 'x', annotations: [] } }] },
    "Invalid type for 'content[0].text': expected a string, but got an object instead.",
    'content[0].text',
    'invalid_type',
  ],
  [
    'an image that is nowhere',
    CreateMessage,
    { role: 'user', content: [{ type: 'image_url', image_url: { url: '/a.png' } }] },
    "Invalid 'content[0].image_url.url'. Expected a valid URL, but got a value with an invalid format.",
    'content[0].image_url.url',
    'invalid_value',
  ],
  [
    'too much text',
    CreateMessage,
    { role: 'user', content: 'x'.repeat(256_001) },
    "Invalid 'content': string too long. Expected a string with maximum length 256000, but got a string with length 256001 instead.",
    'content',
    'string_above_max_length',
  ],
  [
    'too many tools',
    CreateRun,
    { ...run, tools: functions(129) },
    "Invalid 'tools': array too long. Expected an array with maximum length 128, but got an array with length 129 instead.",
    'tools',
    'array_above_max_length',
  ],
  [
    'a function name with a space',
    CreateAssistant,
    { model: 'm', tools: [{ type: 'function', function: { name: 'a b' } }] },
    "Invalid 'tools[0].function.name': string does not match pattern. Expected a string that matches the pattern '^[a-zA-Z0-9_-]+$'.",
    'tools[0].function.name',
    'invalid_value',
  ],
  [
    'an empty function name',
    CreateAssistant,
    { model: 'm', tools: [{ type: 'function', function: { name: '' } }] },
    "Invalid 'tools[0].function.name': empty string. Expected a string with minimum length 1, but got an empty string instead.",
    'tools[0].function.name',
    'empty_string',
  ],
  [
    'too much metadata',
    CreateThread,
    { metadata: pairs(17) },
    "Invalid 'metadata': too many properties. Expected an object with at most 16 properties, but got an object with 17 properties instead.",
    'metadata',
    'object_above_max_properties',
  ],
  [
    'a long key of metadata',
    CreateThread,
    { metadata: { ['k'.repeat(65)]: 'v' } },
    `Invalid property name in 'metadata': '${'k'.repeat(65)}' is too long. Expected a string with maximum length 64, but got a string with length 65 instead.`,
    'metadata',
    'string_above_max_length',
  ],
  [
    'a number in metadata',
    ModifyRun,
    { metadata: { k: 1 } },
    "Invalid type for 'metadata.k': expected a string, but got an integer instead.",
    'metadata.k',
    'invalid_type',
  ],
  [
    'too hot',
    CreateRun,
    { ...run, temperature: 2.5 },
    "Invalid 'temperature': decimal above maximum value. Expected a value <= 2, but got 2.5 instead.",
    'temperature',
    'decimal_above_max_value',
  ],
  [
    'too cold',
    CreateRun,
    { ...run, top_p: -0.5 },
    "Invalid 'top_p': decimal below minimum value. Expected a value >= 0, but got -0.5 instead.",
    'top_p',
    'decimal_below_min_value',
  ],
  [
    'a temperature in words',
    CreateRun,
    { ...run, temperature: '1' },
    "Invalid type for 'temperature': expected a decimal, but got a string instead.",
    'temperature',
    'invalid_type',
  ],
  [
    'a budget that allows nothing',
    CreateRun,
    { ...run, max_completion_tokens: 15 },
    "Invalid 'max_completion_tokens': integer below minimum value. Expected a value >= 16, but got 15 instead.",
    'max_completion_tokens',
    'integer_below_min_value',
  ],
  [
    'half a token',
    CreateRun,
    { ...run, max_prompt_tokens: 16.5 },
    "Invalid type for 'max_prompt_tokens': expected an integer, but got a decimal number instead.",
    'max_prompt_tokens',
    'invalid_type',
  ],
  [
    'more than a column holds',
    CreateRun,
    { ...run, max_prompt_tokens: 3_000_000_000 },
    "Invalid 'max_prompt_tokens': integer above maximum value. Expected a value <= 2147483647, but got 3000000000 instead.",
    'max_prompt_tokens',
    'integer_above_max_value',
  ],
  [
    'a run of a century',
    CreateRun,
    { ...run, expires_after_seconds: 7_776_001 },
    "Invalid 'expires_after_seconds': integer above maximum value. Expected a value <= 7776000, but got 7776001 instead.",
    'expires_after_seconds',
    'integer_above_max_value',
  ],
  [
    'a rule for busy threads that we do not have',
    CreateThreadAndRun,
    { ...run, on_active_run: 'wait' },
    "Invalid value: 'wait'. Supported values are: 'reject', 'enqueue', 'interrupt', and 'rollback'.",
    'on_active_run',
    'invalid_value',
  ],
  [
    'stores both ways',
    CreateThread,
    stores({ vector_store_ids: ['vs_1'], vector_stores: [{}] }),
    `Mutually exclusive parameters: '${fileSearch}'. Ensure you are only providing one of: 'vector_store_ids' or 'vector_stores'.`,
    fileSearch,
    'mutually_exclusive_parameters',
  ],
  [
    'two stores',
    ModifyAssistant,
    stores({ vector_store_ids: ['vs_1', 'vs_2'] }),
    `Invalid '${fileSearch}.vector_store_ids': array too long. Expected an array with maximum length 1, but got an array with length 2 instead.`,
    `${fileSearch}.vector_store_ids`,
    'array_above_max_length',
  ],
  [
    'a store by its name',
    ModifyAssistant,
    stores({ vector_store_ids: ['docs'] }),
    `Invalid '${fileSearch}.vector_store_ids[0]': 'docs'. Expected an ID that begins with 'vs'.`,
    `${fileSearch}.vector_store_ids[0]`,
    'invalid_value',
  ],
  [
    'chunks that overlap by more than half',
    CreateThread,
    chunks(201, 101),
    `Invalid '${chunking}.chunk_overlap_tokens': integer above maximum value. Expected a value <= 100, but got 101 instead.`,
    `${chunking}.chunk_overlap_tokens`,
    'integer_above_max_value',
  ],
  [
    'chunks that are too small',
    CreateThread,
    chunks(99, 0),
    `Invalid '${chunking}.max_chunk_size_tokens': integer below minimum value. Expected a value >= 100, but got 99 instead.`,
    `${chunking}.max_chunk_size_tokens`,
    'integer_below_min_value',
  ],
  [
    'an assistant by its name',
    CreateRun,
    { assistant_id: 'helper' },
    "Invalid 'assistant_id': 'helper'. Expected an ID that begins with 'asst'.",
    'assistant_id',
    'invalid_value',
  ],
  [
    'a response format of no kind',
    CreateAssistant,
    { model: 'm', response_format: 'json' },
    "Invalid value: 'json'. Supported values are: 'auto'.",
    'response_format',
    'invalid_value',
  ],
  [
    'tools as null on an assistant',
    CreateAssistant,
    { model: 'm', tools: null },
    "Invalid type for 'tools': expected an array of objects, but got null instead.",
    'tools',
    'invalid_type',
  ],
]

test.each(refusals)(
  '%s: refused in the original words',
  (_, schema, body, message, param, code) => {
    expect(() => parse(schema, body)).toThrow(
      expect.objectContaining({ status: 400, type: 'invalid_request_error', message, param, code }),
    )
  },
)

test('a message without text has words of its own', () => {
  expect(() => parse(CreateMessage, { role: 'user', content: '' })).toThrow(
    expect.objectContaining({
      status: 400,
      message: 'Message content must be non-empty.',
      param: 'content',
      code: null,
    }),
  )
})

describe('lists', () => {
  test('have 20 items, newest first, unless asked otherwise', () => {
    expect(parseQuery(ListQuery, {})).toEqual({ limit: 20, order: 'desc' })
    expect(parseQuery(ListQuery, { limit: '100', order: 'asc', after: 'msg_1' })).toEqual({
      limit: 100,
      order: 'asc',
      after: 'msg_1',
    })
  })

  const bad: [string, string, string, string][] = [
    [
      'limit=101',
      "Invalid 'limit': integer above maximum value. Expected a value <= 100, but got 101 instead.",
      'limit',
      'integer_above_max_value',
    ],
    [
      'limit=0',
      "Invalid 'limit': integer below minimum value. Expected a value >= 1, but got 0 instead.",
      'limit',
      'integer_below_min_value',
    ],
    [
      'limit=ten',
      "Invalid type for 'limit': expected an integer, but got a string instead.",
      'limit',
      'invalid_type',
    ],
    [
      'limit=1&limit=2',
      "Invalid type for 'limit': expected an integer, but got an array instead.",
      'limit',
      'invalid_type',
    ],
    [
      'order=up',
      "Invalid value: 'up'. Supported values are: 'asc' and 'desc'.",
      'order',
      'invalid_value',
    ],
    ['offset=3', "Unknown parameter: 'offset'.", 'offset', 'unknown_parameter'],
  ]
  test.each(bad)('?%s is refused', (query, message, param, code) => {
    expect(() => parseQuery(ListQuery, new URLSearchParams(query))).toThrow(
      expect.objectContaining({ status: 400, message, param, code }),
    )
  })

  test('of messages can be those of one run', () => {
    expect(parseQuery(ListMessagesQuery, { run_id: 'run_1' }).run_id).toBe('run_1')
    expect(() => parseQuery(ListMessagesQuery, { run_id: 'thread_1' })).toThrow(
      "Invalid 'run_id': 'thread_1'. Expected an ID that begins with 'run'.",
    )
  })

  const content = 'step_details.tool_calls[*].file_search.results[*].content'
  test.each([
    `include[]=${content}`,
    `include%5B%5D=${encodeURIComponent(content)}`,
    `include=${content}`,
    `include[0]=${content}`,
  ])('?%s asks for the content of search results', (query) => {
    expect(parseQuery(ListStepsQuery, new URLSearchParams(query)).include).toEqual([content])
    expect(parseQuery(IncludeQuery, new URLSearchParams(query)).include).toEqual([content])
  })

  test('cannot include what does not exist', () => {
    const query = new URLSearchParams(`include[]=${content}&include[]=usage`)
    expect(() => parseQuery(IncludeQuery, query)).toThrow(
      expect.objectContaining({
        message: `Invalid value: 'usage'. Supported values are: '${content}'.`,
        param: 'include[1]',
      }),
    )
  })
})

/** The ties of the schema files are worth what these lines are: each must fail to compile without its comment. */
export type TiesHold = [
  // @ts-expect-error the package has a key that we lack
  Holds<SameKeys<{ a: 1; b?: 2 }, { a: 1 }>>,
  // @ts-expect-error we have a key that the package lacks
  Holds<SameKeys<{ a: 1 }, { a: 1; b?: 2 }>>,
  Holds<SameKeys<{ a: 1 }, { a: 1; b?: 2 }, 'b'>>,
  // @ts-expect-error the package's client sends what we refuse
  Holds<Accepts<{ a: 'x' | 'y' }, { a: 'x' }>>,
  // @ts-expect-error no schema's input is `any`
  Holds<Accepts<{ model: 1 }, z.input<typeof CreateAssistant>>>,
  // @ts-expect-error nor is what a list takes
  Holds<Accepts<{ model: ''; tools: [1] }, z.input<typeof CreateAssistant>>>,
]
