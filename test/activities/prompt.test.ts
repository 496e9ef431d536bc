import { describe, expect, test } from 'vitest'

import {
  builtInTool,
  chatRequest,
  declaresFunction,
  roundsOf,
  type PromptInput,
} from '../../activities/prompt.ts'
import { defaultQuirks, type ModelRoute } from '../../models.ts'
import type { ContentPart, ToolRow } from '../../store/rows.ts'
import { aCall, aMessage, aRoute, aRun } from './rows.ts'

function request(given: Partial<PromptInput> = {}) {
  return chatRequest({
    run: aRun(),
    route: aRoute(),
    turn: 0,
    thread: [aMessage('Hi')],
    rounds: [],
    images: new Map(),
    completionTokens: null,
    dataFiles: { given: [], written: [] },
    ...given,
  })
}

const image: ContentPart = {
  type: 'image_url',
  image_url: { url: 'https://example.com/a.png', detail: 'low' },
}
const shownImage = {
  type: 'image_url',
  image_url: { url: 'https://example.com/a.png', detail: 'low' },
}

const weather = {
  type: 'function' as const,
  function: { name: 'weather', parameters: { type: 'object' }, strict: false },
} satisfies ToolRow

describe('a plain request', () => {
  test('says no more than it must', () => {
    expect(request()).toEqual({
      model: 'upstream-m',
      stream: true,
      stream_options: { include_usage: true },
      messages: [{ role: 'user', content: 'Hi' }],
    })
  })

  test('begins with the instructions', () => {
    const { messages } = request({ run: aRun({ instructions: 'Be brief.' }) })
    expect(messages).toEqual([
      { role: 'system', content: 'Be brief.' },
      { role: 'user', content: 'Hi' },
    ])
  })
})

describe('settings', () => {
  test('are passed on where they are not the default', () => {
    const run = aRun({
      temperature: 0,
      top_p: 0.5,
      reasoning_effort: 'low',
      response_format: { type: 'json_object' },
    })
    expect(request({ run, completionTokens: 99 })).toMatchObject({
      temperature: 0,
      top_p: 0.5,
      reasoning_effort: 'low',
      response_format: { type: 'json_object' },
      max_completion_tokens: 99,
    })
  })

  test('that are null are not passed on', () => {
    const run = aRun({ temperature: null, top_p: null })
    expect(request({ run })).toEqual(request())
  })

  test('of an endpoint leave out what it refuses', () => {
    const run = aRun({
      parallel_tool_calls: false,
      tools: [{ type: 'function', function: { ...weather.function, strict: true } }],
      tool_choice: 'required',
      response_format: { type: 'json_object' },
    })
    const given = { run, completionTokens: 99 }
    const plain = request(given)
    expect(plain).toMatchObject({
      stream_options: { include_usage: true },
      max_completion_tokens: 99,
      parallel_tool_calls: false,
      tool_choice: 'required',
      response_format: { type: 'json_object' },
    })
    const fitted = request({
      ...given,
      route: quirky({
        no_parallel_tool_calls: true,
        no_stream_options: true,
        no_tool_choice: true,
        no_strict: true,
        no_response_format: true,
        max_tokens_name: 'max_tokens',
      }),
    })
    const { name, parameters } = weather.function
    expect(fitted).toEqual({
      model: 'upstream-m',
      stream: true,
      messages: plain.messages,
      tools: [{ type: 'function', function: { name, parameters } }],
      max_tokens: 99,
    })
  })

  test('of an endpoint say which role instructions have', () => {
    const run = aRun({ instructions: 'Be brief.' })
    const route = quirky({ system_role: 'developer' })
    expect(request({ run, route }).messages[0]).toEqual({ role: 'developer', content: 'Be brief.' })
  })

  test('of an endpoint without such a role put instructions before what the user says first', () => {
    const run = aRun({ instructions: 'Be brief.' })
    const route = quirky({ system_role: 'none' })
    const hello = aMessage('Hello', { role: 'assistant' })
    expect(
      request({ run, route, thread: [hello, aMessage('Hi'), aMessage('?')] }).messages,
    ).toEqual([
      { role: 'assistant', content: 'Hello' },
      { role: 'user', content: 'Be brief.\n\nHi' },
      { role: 'user', content: '?' },
    ])
    const [withImage] = request({
      run,
      route,
      thread: [aMessage('', { content: [image] })],
    }).messages
    expect(withImage?.content).toEqual([{ type: 'text', text: 'Be brief.' }, shownImage])
    expect(request({ run, route, thread: [hello] }).messages).toEqual([
      { role: 'user', content: 'Be brief.' },
      { role: 'assistant', content: 'Hello' },
    ])
  })

  test('of an endpoint that cannot see say so in place of every image', () => {
    const file = { type: 'image_file' as const, image_file: { file_id: 'file_a', detail: 'auto' } }
    const thread = [aMessage('', { content: [image, file] })]
    const images = new Map([['file_a', { url: 'data:image/png;base64,AA==' }]])
    const [message] = request({ thread, images, route: quirky({ no_images: true }) }).messages
    const words = { type: 'text', text: expect.stringContaining('cannot see images') as string }
    expect(message?.content).toEqual([words, words])
  })
})

describe('tools', () => {
  test('are functions, the built-in ones too', () => {
    const run = aRun({ tools: [weather, { type: 'code_interpreter' }, { type: 'file_search' }] })
    const { tools } = request({ run })
    expect(tools?.[0]).toEqual({ type: 'function', function: weather.function })
    expect(tools?.map((tool) => ('function' in tool ? tool.function.name : ''))).toEqual([
      'weather',
      'code_interpreter',
      'file_search',
    ])
  })

  test.each([
    ['required', 'required'],
    [
      { type: 'function', function: { name: 'weather' } },
      { type: 'function', function: { name: 'weather' } },
    ],
    [{ type: 'code_interpreter' }, { type: 'function', function: { name: 'code_interpreter' } }],
  ])('chosen by %j are demanded in the first turn only', (tool_choice, expected) => {
    const run = aRun({ tools: [weather, { type: 'code_interpreter' }], tool_choice })
    expect(request({ run }).tool_choice).toEqual(expected)
    expect(request({ run, turn: 1 })).not.toHaveProperty('tool_choice')
    expect(request({ run, turn: 1 }).tools).toHaveLength(2)
  })

  test('are not shown at all where the choice is none', () => {
    const run = aRun({ tools: [weather], tool_choice: 'none', parallel_tool_calls: false })
    expect(request({ run })).toEqual(request())
  })

  test('that are not there cannot be chosen', () => {
    expect(request({ run: aRun({ tool_choice: 'required' }) })).toEqual(request())
  })

  test('of ours are known by their names, and only where the run has them', () => {
    const tools: ToolRow[] = [weather, { type: 'code_interpreter' }]
    expect(builtInTool('code_interpreter', tools)).toBe('code_interpreter')
    expect(builtInTool('file_search', tools)).toBeUndefined()
    expect(builtInTool('weather', tools)).toBeUndefined()
    expect(builtInTool('function', tools)).toBeUndefined()
    expect(declaresFunction('weather', tools)).toBe(true)
    expect(declaresFunction('code_interpreter', tools)).toBe(false)
  })
})

describe('the thread', () => {
  test('is told in its order, with the roles it has', () => {
    const thread = [aMessage('a'), aMessage('b', { role: 'assistant' }), aMessage('c')]
    expect(request({ thread }).messages).toEqual([
      { role: 'user', content: 'a' },
      { role: 'assistant', content: 'b' },
      { role: 'user', content: 'c' },
    ])
  })

  test('is told with its images, where they can be seen', () => {
    const thread = [
      aMessage('', {
        content: [
          { type: 'text', text: { value: 'What is it?', annotations: [] } },
          image,
          { type: 'image_file', image_file: { file_id: 'file_a', detail: 'high' } },
          { type: 'image_file', image_file: { file_id: 'file_b', detail: 'auto' } },
        ],
      }),
    ]
    const images = new Map([
      ['file_a', { url: 'data:image/png;base64,AA==' }],
      ['file_b', { missing: 'the file file_b has been deleted' }],
    ])
    expect(request({ thread, images }).messages[0]?.content).toEqual([
      { type: 'text', text: 'What is it?' },
      shownImage,
      { type: 'image_url', image_url: { url: 'data:image/png;base64,AA==', detail: 'high' } },
      { type: 'text', text: '[There was an image here: the file file_b has been deleted.]' },
    ])
  })

  test('has no empty messages of the assistant, which strict servers refuse', () => {
    const empty = aMessage('', { role: 'assistant', content: [] })
    expect(request({ thread: [aMessage('a'), empty, aMessage('b')] }).messages).toHaveLength(2)
  })

  test('may be empty, which the model is told, since no endpoint takes an empty list', () => {
    expect(request({ thread: [] }).messages).toEqual([
      { role: 'user', content: expect.stringContaining('no messages') },
    ])
  })
})

describe('what the run itself has done', () => {
  test('follows the thread, turn by turn, with the outputs of its calls', () => {
    const own = {
      messages: [aMessage('Let me see.', { role: 'assistant', turn: 0, run_id: 'run_a' })],
      calls: [
        aCall({ id: 'call_a', arguments: '{"at":"A"}', output: 'rain' }),
        aCall({ id: 'call_b', idx: 1, output: 'sun' }),
        aCall({ id: 'call_c', turn: 1, name: 'code_interpreter', output: null }),
      ],
    }
    expect(request({ rounds: roundsOf(own), turn: 2 }).messages).toEqual([
      { role: 'user', content: 'Hi' },
      {
        role: 'assistant',
        content: 'Let me see.',
        tool_calls: [
          { id: 'call_a', type: 'function', function: { name: 'f', arguments: '{"at":"A"}' } },
          { id: 'call_b', type: 'function', function: { name: 'f', arguments: '{}' } },
        ],
      },
      { role: 'tool', tool_call_id: 'call_a', content: 'rain' },
      { role: 'tool', tool_call_id: 'call_b', content: 'sun' },
      {
        role: 'assistant',
        content: null,
        tool_calls: [
          {
            id: 'call_c',
            type: 'function',
            function: { name: 'code_interpreter', arguments: '{}' },
          },
        ],
      },
      { role: 'tool', tool_call_id: 'call_c', content: '' },
    ])
  })

  test('leaves the beginning of the request as it was, for the cache of the provider', () => {
    const run = aRun({ tools: [weather], instructions: 'Be brief.' })
    const first = request({ run })
    const rounds = roundsOf({ messages: [], calls: [aCall()] })
    const second = request({ run, turn: 1, rounds })
    expect(second.messages.slice(0, first.messages.length)).toEqual(first.messages)
    expect(second.tools).toEqual(first.tools)
  })
})

function quirky(quirks: Partial<ModelRoute['quirks']>) {
  return aRoute({ quirks: { ...defaultQuirks, ...quirks } })
}
