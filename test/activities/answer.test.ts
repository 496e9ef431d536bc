import { describe, expect, test } from 'vitest'

import { createAnswer, isWholeJson } from '../../activities/answer.ts'
import type { ChatCompletionChunk } from '../../wire/openai.ts'

type Delta = ChatCompletionChunk.Choice.Delta
type CallPiece = NonNullable<Delta['tool_calls']>[number]

function chunk(delta: Delta, given: Partial<ChatCompletionChunk> = {}): ChatCompletionChunk {
  const base = { id: 'x', object: 'chat.completion.chunk', created: 0, model: 'm' } as const
  return { ...base, choices: [{ index: 0, delta, finish_reason: null }], ...given }
}

const says = (content: string) => chunk({ content })
const calls = (...tool_calls: CallPiece[]) => chunk({ tool_calls })
const opens = (index: number, name: string, id: string): CallPiece => ({
  index,
  id,
  type: 'function',
  function: { name, arguments: '' },
})
const goesOn = (index: number, args: string): CallPiece => ({
  index,
  function: { arguments: args },
})

describe('text', () => {
  test('is said piece by piece, and is whole in the end', () => {
    const answer = createAnswer()
    expect(['Hel', '', 'lo'].flatMap((piece) => answer.read(says(piece)))).toEqual([
      { kind: 'text', index: 0, type: 'text', text: 'Hel', first: true },
      { kind: 'text', index: 0, type: 'text', text: 'lo', first: false },
    ])
    expect(answer.content()).toEqual([{ type: 'text', text: { value: 'Hello', annotations: [] } }])
  })

  test('and a refusal are two parts, in the order in which they began', () => {
    const answer = createAnswer()
    const additions = [
      ...answer.read(chunk({ refusal: 'I can' })),
      ...answer.read(says('Hm.')),
      ...answer.read(chunk({ refusal: 'not.' })),
    ]
    expect(
      additions.map((one) => (one.kind === 'text' ? [one.type, one.index, one.first] : [])),
    ).toEqual([
      ['refusal', 0, true],
      ['text', 1, true],
      ['refusal', 0, false],
    ])
    expect(answer.content()).toEqual([
      { type: 'refusal', refusal: 'I cannot.' },
      { type: 'text', text: { value: 'Hm.', annotations: [] } },
    ])
  })

  test('that is cut in the middle of a character is joined again', () => {
    const answer = createAnswer()
    const [high = '', low = ''] = '🙂'.split('')
    expect(answer.read(says(`a${high}`))).toMatchObject([{ text: 'a' }])
    expect(answer.read(says(`${low}b`))).toMatchObject([{ text: '🙂b' }])
    expect(answer.content()).toEqual([{ type: 'text', text: { value: 'a🙂b', annotations: [] } }])
  })

  test('that begins with half a character waits for the other half', () => {
    const answer = createAnswer()
    const [high = '', low = ''] = '🙂'.split('')
    expect(answer.read(says(high))).toEqual([])
    expect(answer.read(says(low))).toMatchObject([{ text: '🙂', first: true }])
  })

  test('may come as a list of parts, of which only texts are said', () => {
    const answer = createAnswer()
    const parts = [{ type: 'text', text: 'ar' }, { type: 'image_url' }, null, { text: 'r' }]
    // What arrives is not always what the types say.
    expect(answer.read(says(parts as unknown as string))).toMatchObject([{ text: 'arr' }])
    expect(answer.read(says([] as unknown as string))).toEqual([])
    expect(answer.content()).toMatchObject([{ text: { value: 'arr' } }])
  })

  test('never holds what the database cannot keep', () => {
    const answer = createAnswer()
    const sent = ['a\0b', '\udc00c', '\ud83d', 'd']
    const additions = sent.flatMap((piece) => answer.read(says(piece)))
    const said = additions.map((one) => (one.kind === 'text' ? one.text : '')).join('')
    expect(said).toBe('a\u{fffd}b\u{fffd}c\u{fffd}d')
    expect(answer.content()).toEqual([{ type: 'text', text: { value: said, annotations: [] } }])
  })
})

describe('calls', () => {
  test('are opened by their names and filled by fragments', () => {
    const answer = createAnswer()
    const additions = [
      ...answer.read(calls(opens(0, 'add', 'call_1'))),
      ...answer.read(calls(goesOn(0, '{"a":'))),
      ...answer.read(calls(goesOn(0, '1}'))),
    ]
    expect(additions).toEqual([
      { kind: 'call', index: 0, name: 'add' },
      { kind: 'arguments', index: 0, text: '{"a":' },
      { kind: 'arguments', index: 0, text: '1}' },
    ])
    expect(answer.calls()).toEqual([{ name: 'add', arguments: '{"a":1}' }])
  })

  test('may come side by side, and in any order of their numbers', () => {
    const answer = createAnswer()
    for (const piece of [
      opens(1, 'b', 'call_b'),
      opens(0, 'a', 'call_a'),
      goesOn(1, '{"b":'),
      goesOn(0, '{"a":'),
      goesOn(0, '1}'),
      goesOn(1, '2}'),
    ])
      answer.read(calls(piece))
    expect(answer.calls()).toEqual([
      { name: 'b', arguments: '{"b":2}' },
      { name: 'a', arguments: '{"a":1}' },
    ])
  })

  test('may all be in one chunk', () => {
    const answer = createAnswer()
    const whole = (index: number, name: string): CallPiece => ({
      ...opens(index, name, `call_${name}`),
      function: { name, arguments: '{}' },
    })
    expect(answer.read(calls(whole(0, 'a'), whole(1, 'b')))).toHaveLength(4)
    expect(answer.calls().map(({ name }) => name)).toEqual(['a', 'b'])
  })

  test('are told apart though a server numbers them all 0', () => {
    const answer = createAnswer()
    for (const name of ['a', 'b']) {
      answer.read(calls(opens(0, name, `call_${name}`)))
      answer.read(calls(goesOn(0, '{}')))
    }
    expect(answer.calls()).toEqual([
      { name: 'a', arguments: '{}' },
      { name: 'b', arguments: '{}' },
    ])
  })

  test('stay one though a server repeats the name with each fragment', () => {
    const answer = createAnswer()
    for (const args of ['{"a"', ':1}']) {
      answer.read(
        calls({ ...opens(0, 'add', 'call_1'), function: { name: 'add', arguments: args } }),
      )
    }
    expect(answer.calls()).toEqual([{ name: 'add', arguments: '{"a":1}' }])
  })

  test('may be the one function call of old', () => {
    const answer = createAnswer()
    const additions = [
      chunk({ function_call: { name: 'add', arguments: '{"a"' } }),
      chunk({ function_call: { arguments: ':1}' } }),
    ].flatMap((piece) => answer.read(piece))
    expect(additions.map(({ kind }) => kind)).toEqual(['call', 'arguments', 'arguments'])
    expect(answer.calls()).toEqual([{ name: 'add', arguments: '{"a":1}' }])
  })

  test('are kept as the model wrote them, JSON or not', () => {
    const answer = createAnswer()
    answer.read(calls(opens(0, 'add', 'call_1'), goesOn(0, 'not json\0')))
    expect(answer.calls()).toEqual([{ name: 'add', arguments: 'not json\u{fffd}' }])
  })
})

describe('the end', () => {
  test('is known by its reason', () => {
    const answer = createAnswer()
    answer.read(says('Hi'))
    expect(answer.finishReason()).toBeNull()
    const choices = [{ index: 0, delta: {}, finish_reason: 'stop' as const }]
    expect(answer.read(chunk({}, { choices }))).toEqual([])
    expect(answer.finishReason()).toBe('stop')
  })

  test('brings the usage, in a chunk without choices', () => {
    const answer = createAnswer()
    expect(answer.usage()).toBeUndefined()
    const usage = {
      prompt_tokens: 10,
      completion_tokens: 5,
      total_tokens: 99,
      prompt_tokens_details: { cached_tokens: 4 },
      completion_tokens_details: { reasoning_tokens: 2 },
    }
    expect(answer.read(chunk({}, { choices: [], usage }))).toEqual([])
    expect(answer.usage()).toEqual({
      prompt_tokens: 10,
      completion_tokens: 5,
      total_tokens: 15,
      prompt_token_details: { cached_tokens: 4 },
      completion_tokens_details: { reasoning_tokens: 2 },
    })
  })

  test('may bring a usage without details', () => {
    const answer = createAnswer()
    const usage = { prompt_tokens: 1, completion_tokens: 2, total_tokens: 3 }
    answer.read(chunk({}, { choices: [], usage }))
    expect(answer.usage()).toMatchObject({
      prompt_token_details: { cached_tokens: 0 },
      completion_tokens_details: { reasoning_tokens: 0 },
    })
  })
})

test.each([
  ['numbered', 1],
  ['all numbered alike', 0],
])('calls beyond the most that were allowed are not heard of, %s', (_, second) => {
  const answer = createAnswer(1)
  const additions = [
    calls(opens(0, 'one', 'call_a'), goesOn(0, '{"at":')),
    calls(goesOn(0, '"A"}')),
    calls(opens(second, 'other', 'call_b'), goesOn(second, '{"at":"B"}')),
  ].flatMap((piece) => answer.read(piece))
  expect(additions.filter(({ kind }) => kind === 'call')).toEqual([
    { kind: 'call', index: 0, name: 'one' },
  ])
  expect(answer.calls()).toEqual([{ name: 'one', arguments: '{"at":"A"}' }])
  // They were written all the same, and are paid for.
  expect(answer.written()).toContain('"B"')
})

test.each([{}, { choices: null }, { choices: [{}] }, { choices: [{ delta: null }] }])(
  'a chunk like %j, as some servers send, adds nothing',
  (odd) => {
    // What arrives is not always what the types say.
    expect(createAnswer().read(odd as unknown as ChatCompletionChunk)).toEqual([])
  },
)

test.each([
  ['{}', true],
  ['{"a": [1]}', true],
  ['7', true],
  ['', false],
  ['{"a":', false],
  ['{} {}', false],
])('%j is whole JSON: %j', (text, expected) => {
  expect(isWholeJson(text)).toBe(expected)
})
