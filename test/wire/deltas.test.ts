import { describe, expect, test } from 'vitest'

import { contentOf, deltaEvent, mergeDeltas, type Delta } from '../../wire/deltas.ts'

const text = (value: string, given: Partial<Extract<Delta, { of: 'message' }>> = {}): Delta => ({
  of: 'message',
  id: 'msg_a',
  index: 0,
  type: 'text',
  text: value,
  first: false,
  ...given,
})
const args = (value: string, index = 0, stepId = 'step_a'): Delta => ({
  of: 'arguments',
  stepId,
  index,
  type: 'function',
  text: value,
})
const opened = (type: 'function' | 'code_interpreter' | 'file_search'): Delta => ({
  of: 'call',
  stepId: 'step_a',
  index: 1,
  opened: { id: 'call_a', type, name: 'f' },
})
const outputs: Delta = {
  of: 'outputs',
  stepId: 'step_a',
  index: 0,
  outputs: [
    { type: 'logs', logs: '2' },
    { type: 'image', image: { file_id: 'file-a' } },
  ],
}
const wire = (delta: Delta): unknown => JSON.parse(deltaEvent(delta).data)

describe('two deltas become one', () => {
  test('where the second goes on with the text of the first', () => {
    expect(mergeDeltas(text('a', { first: true }), text('b'))).toEqual(text('ab', { first: true }))
    expect(mergeDeltas(text('a'), text('b'))).toEqual(text('ab'))
  })

  test('where it goes on with the arguments of the same call', () => {
    expect(mergeDeltas(args('{"a"'), args(':1}'))).toEqual(args('{"a":1}'))
  })

  test.each([
    ['it begins a part', text('a'), text('b', { first: true })],
    ['it is of another message', text('a'), text('b', { id: 'msg_b' })],
    ['it is of another part', text('a'), text('b', { index: 1 })],
    ['it is a refusal', text('a'), text('b', { type: 'refusal' })],
    ['it is of another call', args('a'), args('b', 1)],
    ['it is of another step', args('a'), args('b', 0, 'step_b')],
    ['it is of another kind', text('a'), args('b')],
    ['it opens a call', args('a'), opened('function')],
    ['it follows the opening of a call', opened('function'), args('{', 1)],
    ['it brings outputs', outputs, outputs],
  ])('but not where %s', (_, a, b) => {
    expect(mergeDeltas(a, b)).toBeUndefined()
  })

  test('and neither of them is changed', () => {
    const [a, b] = [text('a'), text('b')]
    mergeDeltas(a, b)
    expect([a, b]).toEqual([text('a'), text('b')])
  })
})

describe('on the wire', () => {
  test('the first text of a part brings its annotations, later ones only text', () => {
    expect(deltaEvent(text('Hi', { first: true })).event).toBe('thread.message.delta')
    expect(wire(text('Hi', { first: true }))).toEqual({
      id: 'msg_a',
      object: 'thread.message.delta',
      delta: { content: [{ index: 0, type: 'text', text: { value: 'Hi', annotations: [] } }] },
    })
    expect(wire(text('Hi'))).toMatchObject({
      delta: { content: [{ index: 0, type: 'text', text: { value: 'Hi' } }] },
    })
    expect(JSON.stringify(wire(text('Hi')))).not.toContain('annotations')
  })

  test('a refusal is a part of its own', () => {
    expect(wire(text('No.', { type: 'refusal', index: 1 }))).toMatchObject({
      delta: { content: [{ index: 1, type: 'refusal', refusal: 'No.' }] },
    })
  })

  test('a function is opened with its id and its name, and goes on without them', () => {
    expect(deltaEvent(opened('function')).event).toBe('thread.run.step.delta')
    expect(wire(opened('function'))).toEqual({
      id: 'step_a',
      object: 'thread.run.step.delta',
      delta: {
        step_details: {
          type: 'tool_calls',
          tool_calls: [
            {
              index: 1,
              id: 'call_a',
              type: 'function',
              function: { name: 'f', arguments: '', output: null },
            },
          ],
        },
      },
    })
    const later = callIn(args('{"a"', 1))
    expect(later).toEqual({ index: 1, type: 'function', function: { arguments: '{"a"' } })
  })

  test('a code interpreter is opened with no input and no outputs, which then come', () => {
    expect(callIn(opened('code_interpreter'))).toEqual({
      index: 1,
      id: 'call_a',
      type: 'code_interpreter',
      code_interpreter: { input: '', outputs: [] },
    })
    const input: Delta = {
      of: 'arguments',
      stepId: 'step_a',
      index: 0,
      type: 'code_interpreter',
      text: 'x',
    }
    expect(callIn(input)).toEqual({
      index: 0,
      type: 'code_interpreter',
      code_interpreter: { input: 'x' },
    })
    // Clients index into these arrays: each item says where it belongs.
    expect(callIn(outputs)).toEqual({
      index: 0,
      type: 'code_interpreter',
      code_interpreter: {
        outputs: [
          { index: 0, type: 'logs', logs: '2' },
          { index: 1, type: 'image', image: { file_id: 'file-a' } },
        ],
      },
    })
  })

  test('a file search is opened empty', () => {
    expect(callIn(opened('file_search'))).toEqual({
      index: 1,
      id: 'call_a',
      type: 'file_search',
      file_search: {},
    })
  })

  function callIn(delta: Delta): unknown {
    const { delta: inner } = wire(delta) as {
      delta: { step_details: { tool_calls: unknown[] } }
    }
    return inner.step_details.tool_calls[0]
  }
})

describe('the content of a message whose writer is gone', () => {
  const written = (...deltas: Delta[]) => contentOf(deltas.map(deltaEvent))

  test('is what its deltas add up to', () => {
    expect(written(text('Half ', { first: true }), text('of '), text('it'))).toEqual([
      { type: 'text', text: { value: 'Half of it', annotations: [] } },
    ])
  })

  test('has a refusal beside the text', () => {
    const refusal = { type: 'refusal', index: 1 } as const
    expect(
      written(
        text('Well,', { first: true }),
        text('I ', { ...refusal, first: true }),
        text('will not.', refusal),
      ),
    ).toEqual([
      { type: 'text', text: { value: 'Well,', annotations: [] } },
      { type: 'refusal', refusal: 'I will not.' },
    ])
  })

  test('is nothing where nothing was written', () => {
    expect(written()).toEqual([])
  })

  test('is the same whether deltas were merged or not', () => {
    const pieces = ['a', 'b', 'c'].map((value, n) => text(value, { first: n === 0 }))
    const merged = pieces.reduce((a, b) => mergeDeltas(a, b) ?? b)
    expect(written(merged)).toEqual(written(...pieces))
  })
})
