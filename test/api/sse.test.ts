import { text } from 'node:stream/consumers'
import { setImmediate as nextTurn } from 'node:timers/promises'

import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'

import { sseBody, type EventBatches } from '../../api/sse.ts'
import type { StoredEvent } from '../../wire/events.ts'

const inProgress: StoredEvent = { seq: 1, event: 'thread.run.in_progress', data: '{}' }
const completed: StoredEvent = { seq: 2, event: 'thread.run.completed', data: '{"n":2}' }
const frameOfOne = 'id: 1\nevent: thread.run.in_progress\ndata: {}\n\n'
const frameOfTwo = 'id: 2\nevent: thread.run.completed\ndata: {"n":2}\n\n'
const done = 'event: done\ndata: [DONE]\n\n'

describe('a stream', () => {
  test('ends with the event that ends it, whatever its log goes on with', async () => {
    async function* events(): EventBatches {
      yield [inProgress]
      yield [completed, { ...inProgress, seq: 3 }]
      throw new Error('Nobody asks for more')
    }
    const { body } = opened(events())
    expect(await text(body)).toBe(frameOfOne + frameOfTwo + done)
  })

  test.each([
    { end: 'over', last: done },
    { end: 'gone', last: /^event: error\ndata: \{.*its thread was deleted.*\}\n\nevent: done\n/ },
  ] as const)('whose run is $end says so', async ({ end, last }) => {
    async function* events(): EventBatches {
      yield [inProgress]
      return end
    }
    const said = await text(opened(events()).body)
    expect(said.startsWith(frameOfOne)).toBe(true)
    expect(said.slice(frameOfOne.length)).toMatch(last)
  })

  test('that breaks after its first byte tells of it in both shapes, and is done', async () => {
    const failure = new Error('broken')
    async function* events(): EventBatches {
      yield [inProgress]
      throw failure
    }
    const { body, errors } = opened(events())
    const said = await text(body)
    const [, data] = /^event: error\ndata: (.*)\n\n/m.exec(said) ?? []
    const { error, ...flat } = JSON.parse(data ?? '') as { error: object }
    expect(error).toEqual({
      message: expect.stringContaining('the run goes on') as string,
      type: 'server_error',
      param: null,
      code: null,
    })
    expect(flat).toEqual(error)
    expect(said).toBe(`${frameOfOne}event: error\ndata: ${data}\n\n${done}`)
    expect(errors).toEqual([failure])
  })

  test('opens before there is any event', async () => {
    const { body, opens } = opened(quiet())
    expect(opens()).toBe(0)
    body.resume()
    await nextTurn()
    expect(opens()).toBe(1)
    body.destroy()
  })

  test('whose client does not read asks for no more than is buffered, and breaks quietly', async () => {
    let asked = 0
    const large = 'x'.repeat(100_000)
    async function* events(): EventBatches {
      for (; asked < 3; asked += 1) yield [{ ...inProgress, data: large }]
      throw new Error('Postgres is away')
    }
    const { body, errors } = opened(events())
    // Begins it, and takes nothing.
    body.on('readable', () => {})
    for (let n = 0; n < 20; n += 1) await nextTurn()
    expect(asked).toBe(0)
    body.destroy()
    for (let n = 0; n < 20; n += 1) await nextTurn()
    expect(errors).toEqual([])
  })

  test('of an event that several watch is made once', async () => {
    async function* events(): EventBatches {
      yield [inProgress]
      return new Promise(() => {})
    }
    const [one, other] = [opened(events()).body, opened(events()).body]
    const first = await Promise.all([one, other].map((body) => firstChunk(body)))
    expect(first.map(String)).toEqual([frameOfOne, frameOfOne])
    expect(first[0]).toBe(first[1])
    one.destroy()
    other.destroy()
  })
})

describe('a comment', () => {
  beforeEach(() => void vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] }))
  afterEach(() => void vi.useRealTimers())

  test('ends no event: the Python client would take an empty line for the end of one', async () => {
    const { body } = opened(quiet())
    const chunks: string[] = []
    body.on('data', (chunk: Buffer) => chunks.push(chunk.toString()))
    await nextTurn()
    await vi.advanceTimersByTimeAsync(14_000)
    expect(chunks).toEqual([frameOfOne])
    await vi.advanceTimersByTimeAsync(2_000)
    await vi.advanceTimersByTimeAsync(15_000)
    expect(chunks).toEqual([frameOfOne, ': ping\n', ': ping\n'])
    body.destroy()
  })
})

/** Says one thing, and then nothing. */
async function* quiet(): EventBatches {
  yield [inProgress]
  return new Promise(() => {})
}

function opened(events: EventBatches) {
  const errors: unknown[] = []
  let opens = 0
  const body = sseBody(events, {
    onOpen: () => (opens += 1),
    onError: (error) => void errors.push(error),
  })
  return { body, errors, opens: () => opens }
}

async function firstChunk(body: NodeJS.ReadableStream): Promise<Buffer> {
  return new Promise((resolve) => body.once('data', resolve))
}
