import { describe, expect, test } from 'vitest'

import {
  builtInTool,
  chatRequest,
  declaresFunction,
  type PromptInput,
} from '../../activities/prompt.ts'
import type { ToolRow } from '../../store/rows.ts'
import { aCall, aMessage, aRoute, aRun } from './rows.ts'

function request(given: Partial<PromptInput> = {}) {
  return chatRequest({
    run: aRun(),
    route: aRoute(),
    turn: 0,
    thread: [aMessage('Hi')],
    own: { messages: [], calls: [] },
    ...given,
  })
}

const weather: ToolRow = {
  type: 'function',
  function: { name: 'weather', parameters: { type: 'object' }, strict: false },
}

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
      max_completion_tokens: 99,
    })
    expect(request({ run })).toMatchObject({
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

  test('are fitted to what the endpoint understands', () => {
    const run = aRun({ max_completion_tokens: 99, parallel_tool_calls: false, tools: [weather] })
    const route = aRoute({
      quirks: {
        no_parallel_tool_calls: true,
        no_stream_options: true,
        max_tokens_name: 'max_tokens',
      },
    })
    const fitted = request({ run, route })
    expect(fitted).toMatchObject({ max_tokens: 99 })
    for (const unknown of ['stream_options', 'parallel_tool_calls', 'max_completion_tokens']) {
      expect(fitted).not.toHaveProperty(unknown)
    }
    expect(request({ run })).toMatchObject({
      max_completion_tokens: 99,
      parallel_tool_calls: false,
    })
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
          { type: 'image_url', image_url: { url: 'https://example.com/a.png', detail: 'low' } },
        ],
      }),
    ]
    expect(request({ thread }).messages[0]?.content).toEqual([
      { type: 'text', text: 'What is it?' },
      { type: 'image_url', image_url: { url: 'https://example.com/a.png', detail: 'low' } },
    ])
  })

  test('has no empty messages of the assistant, which strict servers refuse', () => {
    const empty = aMessage('', { role: 'assistant', content: [] })
    expect(request({ thread: [aMessage('a'), empty, aMessage('b')] }).messages).toHaveLength(2)
  })

  test('is cut to its newest messages where the run asks for it', () => {
    const run = aRun({ truncation_strategy: { type: 'last_messages', last_messages: 2 } })
    const thread = ['a', 'b', 'c'].map((text) => aMessage(text))
    expect(textsIn(request({ run, thread }))).toEqual(['b', 'c'])
  })

  test('is cut at its old end where it would not fit the context', () => {
    const route = aRoute({ contextSize: 1000 })
    const thread = ['a', 'b', 'c', 'd'].map((text) => aMessage(text.repeat(1000)))
    const kept = textsIn(request({ route, thread }))
    expect(kept.length).toBeGreaterThan(0)
    expect(kept.length).toBeLessThan(4)
    expect(kept).toEqual(thread.slice(-kept.length).map((_, n) => letter(4 - kept.length + n)))
    // A token is rarely shorter than three characters.
    expect(kept.join('').length).toBeLessThanOrEqual(3 * 1000)
  })

  test('keeps its newest message whatever its size', () => {
    const route = aRoute({ contextSize: 10 })
    const thread = [aMessage('a'), aMessage('b'.repeat(10_000))]
    expect(textsIn(request({ route, thread }))).toEqual(['b'.repeat(10_000)])
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
    expect(request({ own, turn: 2 }).messages).toEqual([
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

  test('is never cut off, however long the thread is', () => {
    const own = { messages: [], calls: [aCall()] }
    const thread = Array.from({ length: 50 }, () => aMessage('x'.repeat(1000)))
    const { messages } = request({ own, thread, turn: 1, route: aRoute({ contextSize: 1000 }) })
    expect(messages.slice(-2).map(({ role }) => role)).toEqual(['assistant', 'tool'])
  })

  test('leaves the beginning of the request as it was, for the cache of the provider', () => {
    const run = aRun({ tools: [weather], instructions: 'Be brief.' })
    const first = request({ run })
    const second = request({ run, turn: 1, own: { messages: [], calls: [aCall()] } })
    expect(second.messages.slice(0, first.messages.length)).toEqual(first.messages)
    expect(second.tools).toEqual(first.tools)
  })
})

function textsIn({ messages }: ReturnType<typeof request>): unknown[] {
  return messages.map(({ content }) => content)
}

function letter(index: number): string {
  return 'abcd'.charAt(index).repeat(1000)
}
