import { finished } from 'node:stream/promises'

import { describe, expect, test } from 'vitest'

import { createEventCutter, eventValue, type Piece } from '../../../api/pass-through/events.ts'
import { createReader, type ReaderOptions } from '../../../api/pass-through/reader.ts'
import { tokensInTail } from '../../../api/pass-through/usage.ts'

function cut(chunks: Buffer[], limitBytes = 1000): Piece[] {
  const cutter = createEventCutter(limitBytes)
  const pieces = chunks.flatMap((chunk) => [...cutter.push(chunk)])
  return [...pieces, cutter.rest() ?? []].flat()
}

function texts(pieces: Piece[]): string[] {
  return pieces.map(({ bytes }) => bytes.toString())
}

describe('a stream of events', () => {
  const events = [
    'data: {"a":"ü"}\n\n',
    ': a comment\r\n\r\n',
    'event: x\ndata: 1\n\n',
    'data: [DONE]\n\n',
  ]

  test('is cut after blank lines, wherever its chunks end', () => {
    const bytes = Buffer.from(events.join(''))
    for (let at = 1; at < bytes.length; at += 1) {
      expect(texts(cut([bytes.subarray(0, at), bytes.subarray(at)]))).toEqual(events)
    }
    expect(texts(cut([...bytes].map((byte) => Buffer.of(byte))))).toEqual(events)
  })

  test('keeps what comes after its last blank line', () => {
    expect(texts(cut([Buffer.from('data: 1\n\ndata: 2\n')]))).toEqual(['data: 1\n\n', 'data: 2\n'])
  })

  test('hands on what is too long in parts, unread, and reads the next event again', () => {
    const long = `data: ${'x'.repeat(30)}`
    const pieces = cut([Buffer.from(long), Buffer.from('y\n'), Buffer.from('\ndata: 1\n\n')], 20)
    expect(texts(pieces).join('')).toBe(`${long}y\n\ndata: 1\n\n`)
    expect(pieces.map(({ kind }) => kind)).toEqual(['part', 'part', 'part', 'event'])
  })

  test('tells the JSON of an event, in however many lines, and nothing where there is none', () => {
    expect(eventValue(Buffer.from('event: x\ndata: {"a":\ndata: 1}\n\n'))).toEqual({ a: 1 })
    expect(eventValue(Buffer.from('data: [DONE]\n\n'))).toBeUndefined()
    expect(eventValue(Buffer.from(': a comment\n\n'))).toBeUndefined()
  })
})

async function read(
  contentType: string,
  chunks: string[],
  options: Partial<ReaderOptions> = {},
): Promise<{ out: string[]; tokens: unknown; id: unknown }> {
  const reader = createReader(contentType, { hidesUsage: false, ...options })
  const out: string[] = []
  reader.stream.on('data', (chunk: Buffer) => out.push(chunk.toString()))
  for (const chunk of chunks) reader.stream.write(chunk)
  reader.stream.end()
  await finished(reader.stream)
  return { out, tokens: reader.tokens, id: reader.id }
}

const used = { prompt: 7, completion: 5, cached: 2, reasoning: 3 }
const chatUsage = {
  prompt_tokens: 7,
  completion_tokens: 5,
  prompt_tokens_details: { cached_tokens: 2 },
  completion_tokens_details: { reasoning_tokens: 3 },
}
const responseUsage = {
  input_tokens: 7,
  output_tokens: 5,
  input_tokens_details: { cached_tokens: 2 },
  output_tokens_details: { reasoning_tokens: 3 },
}

describe('usage is read', () => {
  test.each([
    ['chat completions', { usage: chatUsage }],
    ['responses', { usage: responseUsage }],
  ])('from an answer of %s', async (_, body) => {
    const text = JSON.stringify(body)
    const { out, tokens } = await read('application/json', [text.slice(0, 9), text.slice(9)])
    expect(tokens).toEqual(used)
    expect(out.join('')).toBe(text)
  })

  test.each(['completed', 'incomplete', 'failed'])('from the event response.%s', async (end) => {
    const event = { type: `response.${end}`, response: { id: 'resp_1', usage: responseUsage } }
    const { tokens } = await read('text/event-stream; charset=utf-8', [
      `event: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`,
    ])
    expect(tokens).toEqual(used)
  })

  test('from the end of an answer that is too long to be read whole', async () => {
    const vectors = Array.from({ length: 10 }, () => 'A'.repeat(1024 * 1024))
    const text = JSON.stringify({ data: vectors, usage: { prompt_tokens: 9, total_tokens: 9 } })
    const chunks = text.match(/.{1,65536}/gs) ?? []
    const { out, tokens } = await read('application/json', chunks)
    expect(tokens).toEqual({ prompt: 9, completion: null, cached: null, reasoning: null })
    expect(out.join('') === text).toBe(true)
  })

  test.each([
    ['no usage', '{"data":[]}'],
    ['a usage that is null', '{"usage":null}'],
    ['no JSON', '<html>"usage"'],
    ['no object', '[1,2]'],
  ])('as unknown from an answer with %s', async (_, text) => {
    expect(await read('application/json', [text])).toMatchObject({ tokens: undefined, out: [text] })
  })

  test('as unknown where a count is none', async () => {
    const text = JSON.stringify({ usage: { prompt_tokens: -1, completion_tokens: '5' } })
    expect((await read('application/json', [text])).tokens).toEqual({
      prompt: null,
      completion: null,
      cached: null,
      reasoning: null,
    })
  })

  test('in a tail only where an object follows', () => {
    expect(tokensInTail('"usage":{"prompt_tokens":')).toBeUndefined()
    expect(tokensInTail('"usage":null}')).toBeUndefined()
  })
})

describe('the usage chunk', () => {
  const chunk = (body: object) => `data: ${JSON.stringify(body)}\n\n`
  const text = chunk({ choices: [{ delta: { content: 'a' } }], usage: null })
  const filters = chunk({ choices: [], prompt_filter_results: [] })
  const usage = chunk({ choices: [], usage: chatUsage })
  const stream = [filters, text, usage, 'data: [DONE]\n\n']

  test('is taken out where it is to be hidden, and nothing else is', async () => {
    const { out, tokens } = await read('text/event-stream', stream, { hidesUsage: true })
    expect(out.join('')).toBe(`${filters}${text}data: [DONE]\n\n`)
    expect(tokens).toEqual(used)
  })

  test('stays where the client asked for it', async () => {
    const { out } = await read('text/event-stream', stream)
    expect(out.join('')).toBe(stream.join(''))
  })

  test('stays where it holds text too, as some servers have it', async () => {
    const last = chunk({ choices: [{ delta: {}, finish_reason: 'stop' }], usage: chatUsage })
    const { out, tokens } = await read('text/event-stream', [last], { hidesUsage: true })
    expect(out.join('')).toBe(last)
    expect(tokens).toEqual(used)
  })
})

describe('an id that must be kept first', () => {
  test('is learnt from the beginning of an answer that is too long to be read whole', async () => {
    const kept: string[] = []
    const image = 'A'.repeat(9 * 1024 * 1024)
    const text = JSON.stringify({ id: 'resp_long', output: [{ id: 'ig_1', result: image }] })
    const { out, id } = await read('application/json', text.match(/.{1,65536}/gs) ?? [], {
      onId: async (told) => void kept.push(told),
    })
    expect([id, kept]).toEqual(['resp_long', ['resp_long']])
    expect(out.join('') === text).toBe(true)
  })

  const created = `data: ${JSON.stringify({ type: 'response.created', response: { id: 'resp_1' } })}\n\n`

  test.each([
    ['text/event-stream', [created, 'data: {}\n\n']],
    ['application/json', ['{"id":', '"resp_1"}']],
  ])('holds back what tells it, in %s', async (contentType, chunks) => {
    const kept = Promise.withResolvers<void>()
    const asked = Promise.withResolvers<string>()
    const reader = createReader(contentType, {
      hidesUsage: false,
      onId: (id) => {
        asked.resolve(id)
        return kept.promise
      },
    })
    const out: string[] = []
    reader.stream.on('data', (chunk: Buffer) => out.push(chunk.toString()))
    for (const chunk of chunks) reader.stream.write(chunk)
    reader.stream.end()
    expect(await asked.promise).toBe('resp_1')
    expect(chunks.join('').startsWith(out.join(''))).toBe(true)
    expect(out.length).toBeLessThan(chunks.length)
    kept.resolve()
    await finished(reader.stream)
    expect(out.join('')).toBe(chunks.join(''))
  })
})
