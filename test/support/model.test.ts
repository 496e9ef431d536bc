import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import OpenAI, { APIConnectionError, APIError, APIUserAbortError } from 'openai'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import {
  call,
  contentFiltered,
  contextLengthExceeded,
  cutAfter,
  errorAfter,
  fail,
  insufficientQuota,
  malformedAfter,
  rateLimited,
  raw,
  refuse,
  say,
  sayAndCall,
  sayUnfinished,
  serverError,
  silence,
  stallAfter,
  startScriptedModel,
  unauthorized,
} from './model.ts'
import type { ScriptedModel, Step } from './model.ts'

let model: ScriptedModel
let client: OpenAI

beforeEach(async () => {
  model = await startScriptedModel()
  client = new OpenAI({ baseURL: model.url, apiKey: 'sk-test', maxRetries: 0 })
})
afterEach(() => model.close())

const messages = [{ role: 'user' as const, content: 'Hello' }]
const ask = (signal?: AbortSignal) =>
  client.chat.completions.create(
    { model: 'm', messages, stream: true, stream_options: { include_usage: true } },
    { signal },
  )

async function collect(stream: Awaited<ReturnType<typeof ask>>) {
  const seen = { tokens: [] as string[], refusal: '', calls: [] as string[], finish: '', usage: 0 }
  for await (const chunk of stream) {
    seen.usage += chunk.usage?.total_tokens ?? 0
    const choice = chunk.choices[0]
    if (choice?.delta.content) seen.tokens.push(choice.delta.content)
    seen.refusal += choice?.delta.refusal ?? ''
    for (const { index, function: made } of choice?.delta.tool_calls ?? []) {
      seen.calls[index] = `${seen.calls[index] ?? ''}${made?.name ?? ''}${made?.arguments ?? ''}`
    }
    seen.finish = choice?.finish_reason ?? seen.finish
  }
  return seen
}

describe('answers', () => {
  test('an array is sent token by token, with the usage at the end', async () => {
    model.script(say(['One', ' two'], { usage: { promptTokens: 7, completionTokens: 2 } }))
    const seen = await collect(await ask())
    expect(seen).toMatchObject({ tokens: ['One', ' two'], finish: 'stop', usage: 9 })
  })

  test('a string is cut into tokens and nothing of it is lost', async () => {
    const text = 'A sentence of words,\n  and Grüße 👋🏽 to extraordinarily long ones. '
    model.script(say(text))
    const seen = await collect(await ask())
    expect(seen.tokens.join('')).toBe(text)
    expect(seen.tokens.length).toBeGreaterThan(8)
  })

  test('details of the usage are passed on, and null leaves the usage out', async () => {
    const usage = { promptTokens: 9, completionTokens: 5, cachedTokens: 4, reasoningTokens: 3 }
    model.script(say('a', { usage }), say('b', { usage: null }))
    const answer = await client.chat.completions.create({ model: 'm', messages })
    expect(answer.usage).toMatchObject({
      total_tokens: 14,
      prompt_tokens_details: { cached_tokens: 4 },
      completion_tokens_details: { reasoning_tokens: 3 },
    })
    expect((await collect(await ask())).usage).toBe(0)
  })

  test('parallel calls are streamed in fragments, each under its own index', async () => {
    model.script(
      sayAndCall('Let me see.', [
        { name: 'one', arguments: { city: 'Paris', days: 3 } },
        { name: 'two', arguments: 'not json', fragments: ['not', ' json'] },
      ]),
    )
    const seen = await collect(await ask())
    expect(seen.tokens.join('')).toBe('Let me see.')
    expect(seen.calls).toEqual(['one{"city":"Paris","days":3}', 'twonot json'])
    expect(seen.finish).toBe('tool_calls')
  })

  test('a call without arguments still has an opening chunk', async () => {
    model.script(call({ name: 'now', arguments: '' }))
    expect((await collect(await ask())).calls).toEqual(['now'])
  })

  test('refusals and other reasons to finish are told', async () => {
    model.script(refuse('I will not.'), say('cut sh', { finishReason: 'length' }))
    expect((await collect(await ask())).refusal).toBe('I will not.')
    expect((await collect(await ask())).finish).toBe('length')
  })

  test('without stream the same step is one JSON body', async () => {
    model.script(sayAndCall('Hm.', { name: 'f', arguments: { a: 1 }, id: 'call_1' }))
    const answer = await client.chat.completions.create({ model: 'm', messages })
    expect(answer.choices[0]).toMatchObject({
      finish_reason: 'tool_calls',
      message: {
        content: 'Hm.',
        tool_calls: [{ id: 'call_1', function: { name: 'f', arguments: '{"a":1}' } }],
      },
    })
  })
})

describe('failures', () => {
  const cases: [string, Step, number, string | null, Record<string, string>][] = [
    [
      'seconds to wait',
      rateLimited({ seconds: 3 }),
      429,
      'rate_limit_exceeded',
      { 'retry-after': '3' },
    ],
    [
      'a date to wait for',
      rateLimited({ date: new Date('2030-01-02T03:04:05Z') }),
      429,
      'rate_limit_exceeded',
      { 'retry-after': 'Wed, 02 Jan 2030 03:04:05 GMT' },
    ],
    [
      'milliseconds to wait',
      rateLimited({ ms: 40 }),
      429,
      'rate_limit_exceeded',
      { 'retry-after-ms': '40' },
    ],
    ['an empty account', insufficientQuota(), 429, 'insufficient_quota', {}],
    ['a broken server', serverError(), 500, null, {}],
    ['a wrong key', unauthorized(), 401, 'invalid_api_key', {}],
    ['too long a prompt', contextLengthExceeded(), 400, 'context_length_exceeded', {}],
    ['a filtered prompt', contentFiltered(), 400, 'content_filter', {}],
    ['any other status', fail(418, { message: 'teapot' }), 418, null, {}],
  ]
  test.each(cases)('%s is an error with its status, code and headers', async (...args) => {
    const [, step, status, code, headers] = args
    model.script(step)
    const error = await ask().then(
      () => null,
      (reason: unknown) => reason,
    )
    expect(error).toBeInstanceOf(APIError)
    if (!(error instanceof APIError)) return
    expect(error).toMatchObject({ status, code })
    for (const [name, value] of Object.entries(headers)) {
      expect(error.headers?.get(name)).toBe(value)
    }
  })

  test('a cut connection has given exactly the tokens before the cut', async () => {
    model.script(cutAfter(2, ['a', 'b', 'c']))
    const seen: string[] = []
    const reading = (async () => {
      for await (const chunk of await ask()) seen.push(chunk.choices[0]?.delta.content ?? '')
    })()
    await expect(reading).rejects.toThrow('terminated')
    expect(seen.join('')).toBe('ab')
    const request = await model.called(1)
    expect(await request.closed).toBe('closed by us')
    expect(request.closedEarly).toBe(false)
  })

  test('a chunk that is no JSON, an error inside the stream and a page of HTML', async () => {
    model.script(
      malformedAfter(1, ['a', 'b']),
      errorAfter(1, ['a', 'b'], { message: 'overloaded', type: 'server_error' }),
      raw('<html>Bad gateway</html>', {}, 502),
    )
    await expect(ask().then(collect)).rejects.toThrow(SyntaxError)
    await expect(ask().then(collect)).rejects.toThrow('overloaded')
    await expect(ask()).rejects.toMatchObject({ status: 502 })
  })

  test('an unfinished answer ends without a reason', async () => {
    model.script(sayUnfinished(['a', 'b']))
    expect(await collect(await ask())).toMatchObject({ tokens: ['a', 'b'], finish: '' })
  })

  test('a request for which there is no step fails for good and says so', async () => {
    await expect(ask()).rejects.toThrow('no step for request 1')
  })
})

describe('waiting', () => {
  test('a stalled answer goes on when it is released', async () => {
    model.script(stallAfter(2, ['a', 'b', 'c']))
    const answer = ask().then(collect)
    const request = await model.called(1)
    await model.tokensOut(request, 2)
    expect(request.tokens).toBe(2)
    request.release()
    expect((await answer).tokens).toEqual(['a', 'b', 'c'])
    expect(await request.closed).toBe('finished')
  })

  test('a client that goes away during a stall is noticed', async () => {
    model.script(stallAfter(1, ['a', 'b']))
    const control = new AbortController()
    const stream = await ask(control.signal)
    const request = await model.called(1)
    await model.tokensOut(request, 1)
    control.abort()
    expect(await request.closed).toBe('closed by the client')
    expect(request.closedEarly).toBe(true)
    expect(request.tokens).toBe(1)
    await collect(stream).catch(() => {})
  })

  test('silence sends not even headers until the client gives up', async () => {
    model.script(silence())
    const control = new AbortController()
    const answer = ask(control.signal)
    const request = await model.called(1)
    control.abort()
    await expect(answer).rejects.toThrow(APIUserAbortError)
    expect(await request.closed).toBe('closed by the client')
  })

  test('waiting for more tokens than there are ends with the answer', async () => {
    model.script(say(['a']))
    await collect(await ask())
    expect((await model.tokensOut(await model.called(1), 5)).tokens).toBe(1)
  })
})

test('respond chooses by the prompt, and the queue goes first', async () => {
  model.respond((request, n) => say(`${n}: ${request.question} ${request.toolResults.join()}`))
  model.script(say('queued'))
  expect((await collect(await ask())).tokens.join('')).toBe('queued')
  expect((await collect(await ask())).tokens.join('')).toBe('2: Hello ')
  expect(model.calls).toBe(2)
  expect(model.requests[1]?.headers.authorization).toBe('Bearer sk-test')
  expect(model.requests[1]?.body.stream).toBe(true)
})

describe('other endpoints', () => {
  test('are answered by their handlers, and their requests are kept', async () => {
    model.serve('POST /embeddings', (request) => ({ object: 'list', data: [], ...request.json() }))
    const answer = await client.embeddings.create({ model: 'm', input: 'a' })
    expect(answer).toMatchObject({ data: [], model: 'm', input: 'a' })
    const [request] = model.served
    expect(request?.route).toBe('POST /embeddings')
    expect(request?.headers.authorization).toBe('Bearer sk-test')
    expect(await request?.closed).toBe('finished')
    expect(model.calls).toBe(0)
  })

  test('may have any part in their path, and the newest handler goes first', async () => {
    model.serve('GET /responses/*', () => ({ id: 'any', output: [] }))
    model.serve('GET /responses/b', () => ({ id: 'b', output: [] }))
    expect((await client.responses.retrieve('a')).id).toBe('any')
    expect((await client.responses.retrieve('b')).id).toBe('b')
    await expect(client.responses.inputItems.list('a')).rejects.toMatchObject({ status: 404 })
  })

  test('without a handler are not there', async () => {
    await expect(client.moderations.create({ input: 'a' })).rejects.toThrow(
      'The scripted model does not serve POST /moderations.',
    )
  })

  test('may be answered byte by byte, and notice who goes away', async () => {
    model.serve('POST /audio/speech', (_, response) => void response.write('a'))
    const control = new AbortController()
    const body = { model: 'm', voice: 'alloy', input: 'a' }
    await client.audio.speech.create(body, { signal: control.signal })
    control.abort()
    expect(await model.served[0]?.closed).toBe('closed by the client')
  })
})

test('a closed model frees its port and drops who is connected', async () => {
  model.script(silence())
  const answer = ask()
  await model.called(1)
  await model.close()
  await expect(answer).rejects.toThrow(APIConnectionError)
  await using again = await startScriptedModel({ port: model.port })
  expect(again.port).toBe(model.port)
})

test('as a process of its own it serves many streams at an even pace', async () => {
  const file = fileURLToPath(new URL('model-main.ts', import.meta.url))
  const args = ['--tokens', '10', '--interval-ms', '5', '--first-ms', '5']
  const child = spawn(process.execPath, [file, ...args], { stdio: ['ignore', 'pipe', 'inherit'] })
  try {
    const [url] = await once(createInterface(child.stdout), 'line')
    client = new OpenAI({ baseURL: String(url), apiKey: 'sk-test', maxRetries: 0 })
    const startedAt = performance.now()
    const all = await Promise.all(Array.from({ length: 50 }, () => ask().then(collect)))
    expect(performance.now() - startedAt).toBeGreaterThanOrEqual(45)
    expect(new Set(all.map((seen) => seen.tokens.length))).toEqual(new Set([10]))
    expect(all[0]).toMatchObject({ finish: 'stop', usage: 110 })
  } finally {
    child.kill()
    await once(child, 'exit')
  }
})
