import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'

import { createProvider } from '../../activities/provider.ts'
import { ProviderError } from '../../activities/provider-error.ts'
import type { ChatCompletionChunk, ChatCompletionCreateParamsStreaming } from '../../wire/openai.ts'
import {
  chunks,
  contentFiltered,
  contextLengthExceeded,
  cutAfter,
  errorAfter,
  fail,
  insufficientQuota,
  malformedAfter,
  raw,
  rateLimited,
  say,
  sayUnfinished,
  serverError,
  silence,
  stallAfter,
  startScriptedModel,
  unauthorized,
  unstreamed,
  withoutReason,
  type ScriptedModel,
  type Step,
} from '../support/model.ts'
import { aRoute } from './rows.ts'

let model: ScriptedModel
beforeAll(async () => {
  model = await startScriptedModel()
})
afterAll(() => model.close())

const request: ChatCompletionCreateParamsStreaming = {
  model: 'upstream-m',
  messages: [{ role: 'user', content: 'Hi' }],
  stream: true,
}
const never = new AbortController().signal

/** The chunks of one answer; throws what the provider throws. */
async function ask(step: Step, signal = never, idleTimeoutMs = 10_000) {
  model.script(step)
  const chunks: ChatCompletionChunk[] = []
  const route = aRoute({ baseUrl: model.url, apiKey: 'sk-upstream' })
  for await (const chunk of createProvider(idleTimeoutMs).stream(route, request, signal)) {
    chunks.push(chunk)
  }
  return chunks
}

/** What went wrong. */
async function errorOf(step: Step, idleTimeoutMs?: number): Promise<ProviderError> {
  const error: unknown = await ask(step, never, idleTimeoutMs).then(
    () => undefined,
    (reason: unknown) => reason,
  )
  if (error instanceof ProviderError) return error
  throw new Error('There was no ProviderError', { cause: error })
}

describe('an answer', () => {
  test('comes chunk by chunk, in order, and the endpoint is asked once', async () => {
    const before = model.calls
    const chunks = await ask(say(['One', ' two', ' three']))
    const text = chunks.map(({ choices }) => choices[0]?.delta.content ?? '').join('')
    expect(text).toBe('One two three')
    expect(model.calls).toBe(before + 1)
    const asked = model.requests.at(-1)
    expect(asked?.body).toMatchObject(request)
    expect(asked?.headers['authorization']).toBe('Bearer sk-upstream')
  })

  test('carries no name of an organization that the environment may hold', async () => {
    await ask(say('Hi'))
    const { headers = {} } = model.requests.at(-1) ?? {}
    expect(headers).not.toHaveProperty('openai-organization')
    expect(headers).not.toHaveProperty('openai-project')
  })

  test('ends without a word when it is stopped, and so does the connection', async () => {
    const stop = new AbortController()
    const before = model.calls
    const asked = ask(stallAfter(2, ['One', ' two', ' three']), stop.signal)
    const sent = await model.tokensOut(await model.called(before + 1), 2)
    stop.abort()
    await expect(asked).resolves.toBeInstanceOf(Array)
    expect(await sent.closed).toBe('closed by the client')
  })

  test('ends without a word when it is stopped before its first word', async () => {
    const stop = new AbortController()
    const before = model.calls
    const asked = ask(silence(), stop.signal)
    await model.called(before + 1)
    stop.abort()
    expect(await asked).toEqual([])
  })
})

describe('an endpoint that answers', () => {
  const page = '<!doctype html>\n<html>\n  <title>Log in</title>'
  const stream = 'data: {"choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\ndata: [DONE]\n\n'

  test('with a page is told what it answered, and is not asked again', async () => {
    expect(await errorOf(raw(page))).toMatchObject({
      code: 'server_error',
      retryable: false,
      message: `The model 'upstream-m' at ${hostOf(model)} answered 200 with text/html instead of an event stream: <!doctype html> <html> <title>Log in</title>.`,
      summary: `The model 'upstream-m' at ${hostOf(model)} answered 200 with text/html instead of an event stream.`,
    })
  })

  test('with a long page is told its first 200 characters', async () => {
    const { message } = await errorOf(raw(`<p>${'x'.repeat(100_000)}`))
    expect(message).toMatch(/: <p>x{197}\.$/)
  })

  test('with JSON that is no completion is told it, without the key', async () => {
    const json = { 'content-type': 'application/json; charset=utf-8' }
    for (const [body, told] of [
      ['{"detail": "Use sk-upstream"}', '{"detail": "Use sk-***"}.'],
      ['{"choices": {}}', '{"choices": {}}.'],
      ['{"choices": [', '{"choices": [.'],
      ['[1]', '[1].'],
    ] as const) {
      const { message, retryable } = await errorOf(raw(body, json))
      expect(message).toContain(`answered 200 with application/json instead of an event stream`)
      expect(message.endsWith(`: ${told}`)).toBe(true)
      expect(retryable).toBe(false)
    }
  })

  test.each([
    ['of no type', {}],
    ['that was to be a stream', { 'content-type': 'text/event-stream' }],
  ])('with an empty body %s may do better', async (_, headers) => {
    expect(await errorOf(raw('', headers))).toMatchObject({
      retryable: true,
      message: `The model 'upstream-m' at ${hostOf(model)} answered 200 with nothing instead of an event stream.`,
    })
  })

  test.each(['text/plain', 'application/octet-stream'])(
    'with a stream that it calls %s is understood',
    async (type) => {
      const [chunk] = await ask(raw(stream, { 'content-type': type }))
      expect(chunk?.choices[0]?.delta.content).toBe('Hi')
    },
  )

  test.each([['application/json'], ['text/event-stream']])(
    'with a whole completion as %s is understood',
    async (type) => {
      const message = { role: 'assistant', content: 'Hi', refusal: null }
      const body = JSON.stringify({ choices: [{ index: 0, message, finish_reason: 'length' }] })
      expect(await ask(raw(body, { 'content-type': type }))).toMatchObject([
        { choices: [{ delta: { content: 'Hi' }, finish_reason: 'length' }] },
      ])
    },
  )

  test('with a stream that is done without a reason has answered', async () => {
    const chunks = await ask(withoutReason(say(['One', ' two'])))
    expect(chunks.map(({ choices }) => choices[0]?.delta.content ?? '').join('')).toBe('One two')
  })

  test('with a text that looks like the mark of the end has not ended', async () => {
    const step = sayUnfinished(['One', '\n\ndata: [DONE]\n\n'])
    expect((await errorOf(step)).message).toBe(
      `The answer of the model 'upstream-m' at ${hostOf(model)} was cut off before its end.`,
    )
  })

  test('whole and too late is silent', async () => {
    const step = unstreamed(say('Late', { firstDelayMs: 400 }))
    expect((await errorOf(step, 200)).message).toContain('was silent for 0.2 s.')
  })
})

describe('what is tried again, and what is not', () => {
  const busy = { code: 'rate_limit_exceeded', retryable: true }
  const theirs = { code: 'server_error', retryable: true }
  const forGood = { code: 'server_error', retryable: false }
  const prompt = { code: 'invalid_prompt', retryable: false }
  const error = { message: 'Because.' }
  const table: [string, Step, object][] = [
    ['too many requests', rateLimited(), busy],
    ['a quota that is used up', insufficientQuota(), { ...busy, retryable: false }],
    ['a server that failed', serverError(500), theirs],
    ['a bad gateway', serverError(502), theirs],
    ['an overloaded server', serverError(503), theirs],
    ['a request that took too long', fail(408, error), theirs],
    ['a conflict', fail(409, error), theirs],
    ['a wrong key', unauthorized(), forGood],
    ['a key that may not', fail(403, error), forGood],
    ['a model that is not there', fail(404, error), forGood],
    ['a prompt that is too long', contextLengthExceeded(), prompt],
    ['a prompt that is refused', contentFiltered(), prompt],
    ['a request that is too large', fail(413, error), prompt],
    ['a request that is not understood', fail(422, error), prompt],
    [
      'what says that it should be',
      fail(400, error, { 'x-should-retry': 'true' }),
      { ...prompt, retryable: true },
    ],
    ['what says that it should not be', fail(503, error, { 'x-should-retry': 'false' }), forGood],
    ['a proxy that is down', raw('<html>Bad gateway</html>', {}, 502), theirs],
    ['an answer that is cut', cutAfter(2, ['One', ' two', ' three']), theirs],
    ['a connection that is cut before the first word', cutAfter(0, 'One'), theirs],
    ['a chunk that is no JSON', malformedAfter(1, ['One', ' two']), theirs],
    ['an answer that just ends', sayUnfinished(['One', ' two']), theirs],
    ['a stream that only says that it is done', chunks(), theirs],
    ['an error in the middle', errorAfter(1, ['One', ' two'], { message: 'Because.' }), theirs],
  ]

  test.each(table)('%s', async (_, step, expected) => {
    expect(await errorOf(step)).toMatchObject({ name: 'ProviderError', ...expected })
  })

  test('an endpoint that is not there', async () => {
    const gone = await startScriptedModel()
    await gone.close()
    const stream = createProvider(10_000).stream(aRoute({ baseUrl: gone.url }), request, never)
    await expect(stream[Symbol.asyncIterator]().next()).rejects.toMatchObject({
      name: 'ProviderError',
      ...theirs,
      message: `The connection to the model 'upstream-m' at ${hostOf(gone)} failed: connect ECONNREFUSED ${hostOf(gone)}.`,
      summary: `The connection to the model 'upstream-m' at ${hostOf(gone)} failed.`,
    })
  })

  test('an endpoint whose name nobody knows', async () => {
    const route = aRoute({ baseUrl: 'http://models.invalid/v1' })
    const stream = createProvider(10_000).stream(route, request, never)
    await expect(stream[Symbol.asyncIterator]().next()).rejects.toMatchObject({
      ...theirs,
      message: expect.stringMatching(
        /^The connection to the model 'upstream-m' at models\.invalid failed: .*models\.invalid\.$/,
      ),
    })
  })

  test('an address that cannot be used, which is not told', async () => {
    const route = aRoute({ baseUrl: 'http://user:secret@models.example/secret/v1' })
    const stream = createProvider(10_000).stream(route, request, never)[Symbol.asyncIterator]()
    const error: unknown = await stream.next().catch((reason: unknown) => reason)
    expect(error).toMatchObject(theirs)
    expect(String(error)).toContain("'upstream-m' at models.example failed")
    expect(String(error)).not.toContain('secret')
  })

  test.each([
    ['after its first words', cutAfter(2, ['One', ' two', ' three'])],
    ['before its first word', cutAfter(0, 'One')],
  ])('a connection that is closed %s, which is told', async (_, step) => {
    expect(await errorOf(step)).toMatchObject({
      ...theirs,
      message: `The connection to the model 'upstream-m' at ${hostOf(model)} failed: it was closed in the middle of the answer.`,
    })
  })

  test('an endpoint that does not speak TLS where it should', async () => {
    const route = aRoute({ baseUrl: model.url.replace('http:', 'https:') })
    const stream = createProvider(10_000).stream(route, request, never)
    await expect(stream[Symbol.asyncIterator]().next()).rejects.toMatchObject({
      ...theirs,
      message: expect.stringMatching(
        new RegExp(`^The connection to the model 'upstream-m' at ${hostOf(model)} failed: .*SSL`),
      ),
    })
  })

  test('a model that says nothing at all, or nothing more', async () => {
    const silent = { ...theirs, message: expect.stringContaining(' was silent for 0.2 s.') }
    expect(await errorOf(silence(), 200)).toMatchObject(silent)
    expect(await errorOf(stallAfter(1, ['One', ' two']), 200)).toMatchObject(silent)
  })

  test('but not a model that is slow: every word counts', async () => {
    const words = Array.from({ length: 12 }, (_, n) => ` ${n}`)
    expect(await ask(say(words, { delayMs: 100 }), never, 1000)).not.toEqual([])
  })
})

describe('what is said of an error', () => {
  test('is what the provider said, from whom, and under which id', async () => {
    const headers = { 'x-request-id': 'req_upstream' }
    const { message } = await errorOf(fail(400, { message: 'No such thing', code: 'x' }, headers))
    expect(message).toBe(
      `The model 'upstream-m' at ${hostOf(model)} answered 400, request req_upstream: No such thing.`,
    )
  })

  test('is not longer than a person reads', async () => {
    const { message } = await errorOf(fail(400, { message: 'x'.repeat(100_000) }))
    expect(message.length).toBeLessThan(2200)
  })

  test('can be stored, whatever the provider said, and wherever that is cut', async () => {
    const mean = await errorOf(fail(400, { message: 'Bad \0 and \ud83d here' }))
    expect(mean.message).toMatch(/: Bad \u{fffd} and \u{fffd} here\.$/u)
    // The one character before makes a cut at an even place go through the middle of an emoji.
    const long = await errorOf(fail(400, { message: `x${'🙂'.repeat(5000)}` }))
    expect(long.message).toMatch(/🙂\u{fffd}\.$/u)
    const broken = await errorOf(errorAfter(1, ['One', ' two'], { message: 'Out of \0.' }))
    expect(broken.message).toMatch(/broke off: Out of \u{fffd}\.$/u)
  })

  test('in the middle of an answer is what the provider said, too', async () => {
    const step = errorAfter(1, ['One', ' two'], { message: 'Out of memory.' })
    expect((await errorOf(step)).message).toBe(
      `The model 'upstream-m' at ${hostOf(model)} broke off: Out of memory.`,
    )
  })

  test('is not written to the console', async () => {
    using written = vi.spyOn(console, 'error')
    await errorOf(malformedAfter(1, ['One', ' two']))
    expect(written).not.toHaveBeenCalled()
  })

  test('never holds the key', async () => {
    const { message } = await errorOf(unauthorized())
    expect(message).not.toContain('sk-upstream')
  })
})

describe('how long to wait', () => {
  test('is asked of the answer that was refused', async () => {
    expect((await errorOf(rateLimited({ seconds: 3 }))).retryAfterMs).toBe(3000)
    expect((await errorOf(rateLimited({ ms: 40 }))).retryAfterMs).toBe(40)
    const inAMinute = { date: new Date(Date.now() + 60_000) }
    expect((await errorOf(rateLimited(inAMinute))).retryAfterMs).toSatisfy(
      (ms) => Number(ms) > 50_000 && Number(ms) <= 60_000,
    )
    expect((await errorOf(rateLimited())).retryAfterMs).toBeUndefined()
  })
})

function hostOf({ url }: Pick<ScriptedModel, 'url'>): string {
  return new URL(url).host
}
