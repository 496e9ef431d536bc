import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, writeFile } from 'node:fs/promises'
import { request as httpRequest, type IncomingMessage } from 'node:http'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'

import OpenAI, { toFile } from 'openai'
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest'

import { createLogger } from '../../log.ts'
import { openStore } from '../../store/index.ts'
import { queryOnce } from '../support/cluster.ts'
import type { EndpointRequest } from '../support/model-endpoints.ts'
import {
  cutAfter,
  fail,
  say,
  silence,
  stallAfter,
  startScriptedModel,
  type ScriptedModel,
} from '../support/model.ts'
import { startServer, type TestServer } from '../support/server.ts'
import { createCaller, refusal, refused, type Caller } from './caller.ts'

/** Two endpoints, each with a key and names of its own, and two projects that use them. */
let one: ScriptedModel
let two: ScriptedModel
let server: TestServer
let client: OpenAI
let mine: Caller
let theirs: Caller
let myKey: string
let newestName = 0

const keyOfOne = 'sk-key-of-endpoint-one'

beforeAll(async () => {
  one = await startScriptedModel()
  two = await startScriptedModel()
  const models = [
    { name: 'one', base_url: one.url, api_key: keyOfOne, upstream_name: 'one-upstream' },
    { name: 'counted-*', base_url: one.url, api_key: keyOfOne },
    { name: 'two', base_url: two.url, api_key: 'sk-key-of-endpoint-two' },
    { name: 'terse', base_url: one.url, quirks: { no_stream_options: true } },
    { name: 'away', base_url: 'http://127.0.0.1:9/v1', api_key: 'sk-key-of-nobody' },
  ]
  const file = join(await mkdtemp(join(inject('testDir'), 'models-')), 'models.json')
  await writeFile(file, JSON.stringify({ models }))
  server = await startServer({ MODELS_FILE: file, ADMIN_KEY: 'an-admin-key-for-tests' })
  await using store = await openStore({
    databaseUrl: server.databaseUrl,
    log: createLogger('error'),
    maxConnections: 2,
  })
  const keyOf = async (name: string) => {
    const project = await store.keys.createProject(name)
    return (await store.keys.createKey(project.id, name)).key
  }
  myKey = await keyOf('mine')
  mine = createCaller(server, myKey)
  theirs = createCaller(server, await keyOf('theirs'))
  client = new OpenAI({ baseURL: server.baseUrl, apiKey: myKey, maxRetries: 0 })
})
afterAll(async () => {
  await server[Symbol.asyncDispose]()
  await one.close()
  await two.close()
})

const messages = [{ role: 'user' as const, content: 'Hello' }]

/** A name that endpoint one answers to, and no other test: its rows are this test's. */
function countedName(): string {
  newestName += 1
  return `counted-${newestName}`
}

interface UsageRow {
  endpoint: string
  prompt_tokens: number | null
  completion_tokens: number | null
  cached_tokens: number | null
  reasoning_tokens: number | null
}

/** Rows are written behind the answers, so they are looked for until they are there: `expect.poll(usageOf(model), ...)`. */
function usageOf(model: string) {
  return () =>
    queryOnce<UsageRow>(
      server.databaseUrl,
      `SELECT endpoint, prompt_tokens, completion_tokens, cached_tokens, reasoning_tokens
       FROM passed_usage WHERE model = $1 ORDER BY id`,
      [model],
    )
}

const patience = { timeout: 20_000 }

function row(endpoint: string, counts: (number | null)[]): UsageRow {
  const [prompt = null, completion = null, cached = null, reasoning = null] = counts
  return {
    endpoint,
    prompt_tokens: prompt,
    completion_tokens: completion,
    cached_tokens: cached,
    reasoning_tokens: reasoning,
  }
}

function newest(model: ScriptedModel): EndpointRequest {
  const request = model.served.at(-1)
  if (!request) throw new Error('The endpoint was not asked')
  return request
}

describe('each endpoint is passed on, with the name and the key of the model', () => {
  const sound = () => toFile(Buffer.from('RIFF'), 'speech.wav', { type: 'audio/wav' })
  const image = () => toFile(Buffer.from('PNG'), 'image.png', { type: 'image/png' })
  const list = { object: 'list', data: [] }
  const images = { created: 1, data: [{ b64_json: 'AAAA' }] }
  const response = { id: 'resp_each', object: 'response', status: 'completed', output: [] }
  const cases: [string, object, () => Promise<unknown>][] = [
    [
      'POST /completions',
      { object: 'text_completion', choices: [] },
      () => client.completions.create({ model: 'one', prompt: 'a' }),
    ],
    [
      'POST /embeddings',
      list,
      () => client.embeddings.create({ model: 'one', input: 'a', encoding_format: 'float' }),
    ],
    [
      'POST /images/generations',
      images,
      () => client.images.generate({ model: 'one', prompt: 'a' }),
    ],
    [
      'POST /images/edits',
      images,
      async () => client.images.edit({ model: 'one', prompt: 'a', image: await image() }),
    ],
    [
      'POST /images/variations',
      images,
      async () => client.images.createVariation({ model: 'one', image: await image() }),
    ],
    [
      'POST /audio/transcriptions',
      { text: 'a' },
      async () => client.audio.transcriptions.create({ model: 'one', file: await sound() }),
    ],
    [
      'POST /audio/translations',
      { text: 'a' },
      async () => client.audio.translations.create({ model: 'one', file: await sound() }),
    ],
    [
      'POST /moderations',
      { id: 'modr-1', model: 'one', results: [] },
      () => client.moderations.create({ model: 'one', input: 'a' }),
    ],
    ['POST /responses', response, () => client.responses.create({ model: 'one', input: 'a' })],
    [
      'POST /responses/compact',
      { id: 'resp_c', object: 'response.compaction', output: [] },
      () => client.responses.compact({ model: 'one', input: 'a' }),
    ],
    [
      'POST /responses/input_tokens',
      { object: 'response.input_tokens', input_tokens: 3 },
      () => client.responses.inputTokens.count({ model: 'one', input: 'a' }),
    ],
  ]
  test.each(cases)('%s', async (route, answer, call) => {
    one.serve(route, () => answer)
    expect(await call()).toMatchObject(answer)
    const request = newest(one)
    expect(request.route).toBe(route)
    expect(request.headers.authorization).toBe(`Bearer ${keyOfOne}`)
    const isForm = request.headers['content-type']?.startsWith('multipart/') === true
    const model = isForm ? (await request.form()).get('model') : request.json()['model']
    expect(model).toBe('one-upstream')
  })

  test('POST /chat/completions', async () => {
    one.script(say('Hi.'))
    const answer = await client.chat.completions.create({ model: 'one', messages })
    expect(answer.choices[0]?.message.content).toBe('Hi.')
    expect(one.requests.at(-1)?.body.model).toBe('one-upstream')
    expect(one.requests.at(-1)?.headers.authorization).toBe(`Bearer ${keyOfOne}`)
  })

  test('POST /audio/speech, byte by byte', async () => {
    const bytes = randomBytes(3_000_000)
    one.serve('POST /audio/speech', (_, answer) => {
      answer.writeHead(200, { 'content-type': 'audio/mpeg' })
      answer.end(bytes)
    })
    const answer = await client.audio.speech.create({ model: 'one', voice: 'alloy', input: 'a' })
    expect(answer.headers.get('content-type')).toBe('audio/mpeg')
    expect(Buffer.from(await answer.arrayBuffer()).equals(bytes)).toBe(true)
  })
})

describe('a request', () => {
  test('reaches the endpoint without what is between the caller and us', async () => {
    one.serve('POST /embeddings', () => ({ data: [] }))
    const { status } = await mine.post(
      '/embeddings?api-version=1',
      { model: 'one', input: 'a' },
      {
        headers: {
          accept: 'application/json',
          cookie: 'a=b',
          'idempotency-key': 'k-1',
          'openai-beta': 'assistants=v2, responses=v1',
          'openai-organization': 'org-a',
          'openai-project': 'proj_a',
          'user-agent': 'a caller',
          'x-stainless-lang': 'js',
          'x-forwarded-for': '10.0.0.1',
        },
      },
    )
    expect(status).toBe(200)
    const { headers, query } = newest(one)
    expect(query.get('api-version')).toBe('1')
    expect(headers).toEqual({
      accept: 'application/json',
      'accept-encoding': 'identity',
      authorization: `Bearer ${keyOfOne}`,
      connection: 'keep-alive',
      'content-length': String(newest(one).bytes.length),
      'content-type': 'application/json',
      host: new URL(one.url).host,
      'idempotency-key': expect.stringMatching(/^[0-9a-f]{64}$/),
      'openai-beta': 'responses=v1',
      'user-agent': 'longrun',
    })
  })

  test('keeps every byte where the model has the same name there', async () => {
    one.serve('POST /embeddings', () => ({ data: [] }))
    const raw = `{ "model" : "${countedName()}",\n "input": "\\u00fc", "dimensions": 1.0 }`
    await mine.post('/embeddings', undefined, {
      raw,
      headers: { 'content-type': 'application/json' },
    })
    expect(newest(one).bytes.toString()).toBe(raw)
  })

  test('keeps unknown fields and long numbers where the name is another', async () => {
    one.serve('POST /embeddings', () => ({ data: [] }))
    const raw =
      '{"seed":9007199254740993,"model":"one","ours":{"a":[1.50,null]},"input":"a\\u0000"}'
    await mine.post('/embeddings', undefined, {
      raw,
      headers: { 'content-type': 'application/json' },
    })
    expect(newest(one).bytes.toString()).toBe(raw.replace('"one"', '"one-upstream"'))
  })

  test('of form data keeps its texts, files and their order', async () => {
    one.serve('POST /audio/transcriptions', () => ({ text: 'a' }))
    const bytes = randomBytes(1000)
    const boundary = 'the-boundary-of-a-form-of-some-length'
    const part = (head: string, body: string | Buffer) =>
      Buffer.concat([
        Buffer.from(`--${boundary}\r\nContent-Disposition: form-data; ${head}\r\n\r\n`),
        Buffer.from(body),
        Buffer.from('\r\n'),
      ])
    const raw = Buffer.concat([
      part('name="prompt"', 'one line\nand another'),
      part('name="model"', 'one'),
      part('name="timestamp_granularities[]"', 'word'),
      part('name="timestamp_granularities[]"', 'segment'),
      part('name="file"; filename="ü 1.wav"\r\nContent-Type: audio/wav', bytes),
      Buffer.from(`--${boundary}--\r\n`),
    ])
    const { status } = await mine.post('/audio/transcriptions', undefined, {
      raw: new Uint8Array(raw),
      headers: { 'content-type': `multipart/form-data; boundary=${boundary}` },
    })
    expect(status).toBe(200)
    const form = await newest(one).form()
    const { file, ...texts } = Object.fromEntries([...form].map(([name, value]) => [name, value]))
    expect([...form.keys()]).toEqual([
      'prompt',
      'model',
      'timestamp_granularities[]',
      'timestamp_granularities[]',
      'file',
    ])
    expect(texts).toMatchObject({ prompt: 'one line\nand another', model: 'one-upstream' })
    expect(form.getAll('timestamp_granularities[]')).toEqual(['word', 'segment'])
    if (!(file instanceof File)) throw new Error('The file came as a text')
    expect([file.name, file.type]).toEqual(['ü 1.wav', 'audio/wav'])
    expect(Buffer.from(await file.arrayBuffer()).equals(bytes)).toBe(true)
  })

  test('without a model goes to the first endpoint, and stays without, where that may be', async () => {
    one.serve('POST /moderations', () => ({ id: 'modr-1', results: [] }))
    await client.moderations.create({ input: 'a' })
    expect(newest(one).json()).toEqual({ input: 'a' })
    expect(newest(one).headers.authorization).toBe(`Bearer ${keyOfOne}`)
  })

  test('under an Idempotency-Key is passed on each time, and its answer is not kept', async () => {
    one.serve('POST /embeddings', () => ({ data: [] }))
    const before = one.served.length
    const headers = { 'idempotency-key': 'the-same' }
    await mine.post('/embeddings', { model: 'one', input: 'a' }, { headers })
    const again = await mine.post('/embeddings', { model: 'one', input: 'a' }, { headers })
    expect(again.headers.get('idempotency-replayed')).toBeNull()
    expect(one.served.length).toBe(before + 2)
  })

  test('tells its Idempotency-Key, so that no other key and no other project shares it', async () => {
    one.serve('POST /embeddings', () => ({ data: [] }))
    const told = async (caller: Caller, key: string) => {
      const headers = { 'idempotency-key': key }
      await caller.post('/embeddings', { model: 'one', input: 'a' }, { headers })
      return newest(one).headers['idempotency-key']
    }
    const key = await told(mine, 'k-1')
    expect(await told(mine, 'k-1')).toBe(key)
    expect(await told(mine, 'k-2')).not.toBe(key)
    expect(await told(theirs, 'k-1')).not.toBe(key)
    await mine.post('/embeddings', { model: 'one', input: 'a' })
    expect(newest(one).headers).not.toHaveProperty('idempotency-key')
  })
})

describe('a refused request', () => {
  const json = { 'content-type': 'application/json' }
  const notJson =
    'We could not parse the JSON body of your request. (HINT: This likely means you ' +
    "aren't using your HTTP library correctly. The API expects a JSON payload, but what was " +
    'sent was not valid JSON.)'

  test.each([
    ['/chat/completions', {}, refused(400, 'you must provide a model parameter')],
    ['/embeddings', { model: null }, refused(400, 'you must provide a model parameter')],
    [
      '/responses',
      { input: 'a' },
      refused(400, "Missing required parameter: 'model'.", 'model', 'missing_required_parameter'),
    ],
    [
      '/chat/completions',
      { model: 7 },
      refused(
        400,
        "Invalid type for 'model': expected a string, but got an integer instead.",
        'model',
        'invalid_type',
      ),
    ],
    [
      '/embeddings',
      { model: 'no-such-model', input: 'a' },
      refused(
        404,
        "The model 'no-such-model' does not exist or you do not have access to it.",
        'model',
        'model_not_found',
      ),
    ],
  ])('%s of %j', async (path, body, expected) => {
    expect(refusal(await mine.post(path, body))).toEqual(expected)
  })

  test('says that its JSON is none, or that there is no body at all', async () => {
    const broken = await mine.post('/chat/completions', undefined, {
      raw: '{"model',
      headers: json,
    })
    expect(refusal(broken)).toEqual(refused(400, notJson))
    const deep = `{"model":"one","input":${'['.repeat(1e5)}${']'.repeat(1e5)}}`
    const tooDeep = await mine.post('/embeddings', undefined, { raw: deep, headers: json })
    expect(refusal(tooDeep)).toEqual(refused(400, notJson))
    const empty = await mine.post('/chat/completions')
    expect(refusal(empty)).toEqual(refused(400, 'you must provide a model parameter'))
  })

  test('says what kind of body it may have', async () => {
    const headers = { 'content-type': 'text/plain' }
    expect((await mine.post('/embeddings', undefined, { raw: 'a', headers })).status).toBe(415)
    const form = { 'content-type': 'multipart/form-data; boundary=b' }
    const answer = await mine.post('/audio/transcriptions', undefined, { raw: 'a', headers: form })
    expect(refusal(answer)).toEqual(
      refused(400, 'We could not parse the multipart form data of your request.'),
    )
  })

  test.each([
    ['/embeddings', 'application/json', 32],
    ['/audio/transcriptions', 'multipart/form-data; boundary=b', 64],
  ])('%s is told that a body is too large before it has been sent', async (path, type, mib) => {
    const request = httpRequest(`${server.baseUrl}${path}`, {
      method: 'POST',
      headers: {
        authorization: `Bearer ${myKey}`,
        'content-type': type,
        'content-length': mib * 1024 * 1024 + 1,
      },
    })
    request.flushHeaders()
    const [answer] = (await once(request, 'response')) as [IncomingMessage]
    expect(answer.statusCode).toBe(413)
    request.destroy()
  })

  test('is told that a body is too large also where it came without its length', async () => {
    const request = httpRequest(`${server.baseUrl}/embeddings`, {
      method: 'POST',
      headers: { authorization: `Bearer ${myKey}`, 'content-type': 'application/json' },
    })
    const answered = once(request, 'response') as Promise<[IncomingMessage]>
    // Where the rest of it goes is not our business any more.
    request.on('error', () => {})
    request.write(Buffer.alloc(33 * 1024 * 1024, ' '))
    expect((await answered)[0].statusCode).toBe(413)
    request.destroy()
  })

  test('is not passed on to anybody without a key of ours', async () => {
    const before = one.served.length
    const { status } = await createCaller(server, 'sk-a-strangers').post('/embeddings', {
      model: 'one',
    })
    expect(status).toBe(401)
    expect(one.served.length).toBe(before)
  })
})

describe('an answer', () => {
  test('that refuses is handed on whole, with what it says of trying again', async () => {
    one.script(
      fail(
        429,
        { message: 'Slow down.', type: 'requests', code: 'rate_limit_exceeded' },
        {
          'retry-after': '3',
          'retry-after-ms': '2500',
          'x-should-retry': 'false',
          'x-ratelimit-remaining-requests': '0',
          'x-request-id': 'req_upstream',
          'set-cookie': 'a=b',
        },
      ),
    )
    const answer = await mine.post('/chat/completions', { model: 'one', messages })
    expect(answer.status).toBe(429)
    expect(answer.body.error).toEqual({
      message: 'Slow down.',
      type: 'requests',
      param: null,
      code: 'rate_limit_exceeded',
    })
    expect(Object.fromEntries(answer.headers)).toMatchObject({
      'content-type': 'application/json',
      'retry-after': '3',
      'retry-after-ms': '2500',
      'x-should-retry': 'false',
      'x-ratelimit-remaining-requests': '0',
      'x-upstream-request-id': 'req_upstream',
    })
    expect(answer.headers.get('x-request-id')).toMatch(/^req_[0-9a-f]{32}$/)
    expect(answer.headers.get('set-cookie')).toBeNull()
  })

  test('that repeats the key of the endpoint is handed on without it', async () => {
    one.script(fail(400, { message: `No such key: ${keyOfOne}.` }))
    const answer = await mine.post('/chat/completions', { model: 'one', messages })
    expect(answer.status).toBe(400)
    expect(answer.body.error.message).toBe('No such key: ***.')
  })

  test.each([401, 403])(
    'that refuses our key with a %d is our error, and shows nothing of the key',
    async (status) => {
      const message = `Incorrect API key provided: ${keyOfOne.slice(0, 8)}***${keyOfOne.slice(-4)}.`
      one.script(fail(status, { message }, { 'www-authenticate': 'Bearer' }))
      const answer = await mine.post('/chat/completions', { model: 'one', messages })
      expect(refusal(answer)).toEqual({
        ...refused(502, "The endpoint of the model refused this server's key."),
        type: 'server_error',
      })
      expect(answer.headers.get('www-authenticate')).toBeNull()
    },
  )

  test('that is packed without being asked for is unpacked', async () => {
    const body = { data: [{ text: 'a'.repeat(1000) }], usage: { prompt_tokens: 4 } }
    one.serve('POST /embeddings', (_, answer) => {
      answer.writeHead(200, { 'content-type': 'application/json', 'content-encoding': 'gzip' })
      answer.end(gzipSync(JSON.stringify(body)))
    })
    const model = countedName()
    const answer = await mine.post('/embeddings', { model, input: 'a' })
    expect(answer.body).toEqual(body)
    expect(answer.headers.get('content-encoding')).toBeNull()
    await expect.poll(usageOf(model), patience).toEqual([row('embeddings', [4])])
  })

  test('that redirects is an error: the client would leave us', async () => {
    one.serve('POST /embeddings', (_, answer) => {
      answer.writeHead(307, { location: `${two.url}/embeddings` })
      answer.end()
    })
    const answer = await mine.post('/embeddings', { model: 'one', input: 'a' })
    expect(refusal(answer)).toEqual({
      ...refused(502, 'The endpoint of the model answered with a redirect, which is not followed.'),
      type: 'server_error',
    })
    expect(answer.headers.get('location')).toBeNull()
  })

  test('that cannot be had, since nobody listens there, is a 503 without a key in it', async () => {
    const answer = await mine.post('/embeddings', { model: 'away', input: 'a' })
    expect(refusal(answer)).toEqual({
      ...refused(
        503,
        'Service unavailable: the endpoint of the model cannot be reached. Please try again.',
      ),
      type: 'server_error',
    })
    expect(answer.headers.get('retry-after')).toBe('1')
  })

  test('that breaks off before it begins is a 502', async () => {
    one.serve('POST /embeddings', (_, answer) => void answer.destroy())
    const answer = await mine.post('/embeddings', { model: 'one', input: 'a' })
    expect(refusal(answer)).toEqual({
      ...refused(502, 'The endpoint of the model broke off without an answer.'),
      type: 'server_error',
    })
  })

  test('that refuses and breaks off is a 502, with none of its headers', async () => {
    one.serve('POST /embeddings', (_, answer) => {
      answer.writeHead(429, { 'content-type': 'text/plain', 'retry-after': '9' })
      answer.write('Slow', () => answer.destroy())
    })
    const answer = await mine.post('/embeddings', { model: 'one', input: 'a' })
    expect(refusal(answer)).toEqual({
      ...refused(502, 'The endpoint of the model broke off in the middle of an error.'),
      type: 'server_error',
    })
    expect(answer.headers.get('retry-after')).toBeNull()
  })

  test('that breaks off in the middle breaks off for the client too', async () => {
    one.script(cutAfter(1, ['a', 'b']))
    const stream = await client.chat.completions.create({ model: 'one', messages, stream: true })
    const seen: string[] = []
    const reading = (async () => {
      for await (const chunk of stream) seen.push(chunk.choices[0]?.delta.content ?? '')
    })()
    await expect(reading).rejects.toThrow('terminated')
    expect(seen.join('')).toBe('a')
  })
})

describe('a stream', () => {
  test('arrives chunk by chunk', async () => {
    one.script(stallAfter(1, ['first', 'second']))
    const stream = await client.chat.completions.create({ model: 'one', messages, stream: true })
    const chunks = stream[Symbol.asyncIterator]()
    const nextText = async () => {
      for (;;) {
        const { done, value } = await chunks.next()
        const text = value?.choices[0]?.delta.content
        if (done || text) return text
      }
    }
    expect(await nextText()).toBe('first')
    const request = one.requests.at(-1)
    expect(request?.tokens).toBe(1)
    request?.release()
    expect(await nextText()).toBe('second')
    expect(await nextText()).toBeUndefined()
  })

  test('of bytes arrives piece by piece too', async () => {
    const goOn = Promise.withResolvers<void>()
    one.serve('POST /audio/speech', async (_, answer) => {
      answer.writeHead(200, { 'content-type': 'audio/mpeg' })
      answer.write('first')
      await goOn.promise
      answer.end('second')
    })
    const answer = await client.audio.speech.create({ model: 'one', voice: 'alloy', input: 'a' })
    const pieces = answer.body?.getReader()
    expect(Buffer.from((await pieces?.read())?.value ?? []).toString()).toBe('first')
    goOn.resolve()
    expect(Buffer.from((await pieces?.read())?.value ?? []).toString()).toBe('second')
  })

  test('is seen to have begun before its first event', async () => {
    const goOn = Promise.withResolvers<void>()
    one.serve('POST /responses', async (_, answer) => {
      answer.writeHead(200, { 'content-type': 'text/event-stream' })
      answer.flushHeaders()
      await goOn.promise
      answer.end('data: {"type":"response.created","response":{"id":"resp_begun"}}\n\n')
    })
    const stream = await client.responses.create({ model: 'one', input: 'a', stream: true })
    goOn.resolve()
    const types: string[] = []
    for await (const event of stream) types.push(event.type)
    expect(types).toEqual(['response.created'])
  })

  test('ends at the endpoint when its client goes away', async () => {
    const model = countedName()
    one.script(stallAfter(1, ['first', 'second']))
    const stream = await client.chat.completions.create({ model, messages, stream: true })
    for await (const chunk of stream) if (chunk.choices[0]?.delta.content) break
    const request = one.requests.at(-1)
    expect(await request?.closed).toBe('closed by the client')
    await expect.poll(usageOf(model), patience).toEqual([row('chat/completions', [])])
  })

  test('ends there also when the client does not wait for its beginning', async () => {
    one.script(silence())
    const calls = one.calls
    const leaving = new AbortController()
    const asking = client.chat.completions.create(
      { model: 'one', messages },
      { signal: leaving.signal },
    )
    const request = await one.called(calls + 1)
    leaving.abort()
    await expect(asking).rejects.toThrow('aborted')
    expect(await request.closed).toBe('closed by the client')
  })

  test('that is read slowly is asked for slowly', async () => {
    // More than the buffers of all sockets between hold.
    const chunk = Buffer.alloc(1024 * 1024)
    const chunks = 40
    let written = 0
    const isFull = Promise.withResolvers<void>()
    one.serve('POST /audio/speech', async (_, answer) => {
      answer.writeHead(200, { 'content-type': 'audio/mpeg' })
      for (; written < chunks; written += 1) {
        if (answer.write(chunk)) continue
        const drained = once(answer, 'drain')
        const isStuck = AbortSignal.timeout(300)
        await Promise.race([drained, once(isStuck, 'abort').then(() => isFull.resolve())])
        await drained
      }
      answer.end()
    })
    const answer = await client.audio.speech.create({ model: 'one', voice: 'alloy', input: 'a' })
    await isFull.promise
    expect(written).toBeLessThan(chunks - 1)
    expect((await answer.arrayBuffer()).byteLength).toBe(chunks * chunk.length)
  })
})

describe('usage', () => {
  const usage = { promptTokens: 11, completionTokens: 7, cachedTokens: 4, reasoningTokens: 3 }
  const counts = [11, 7, 4, 3]

  test('of an answer is counted', async () => {
    const model = countedName()
    one.script(say('Hi.', { usage }))
    await client.chat.completions.create({ model, messages })
    await expect.poll(usageOf(model), patience).toEqual([row('chat/completions', counts)])
  })

  test('of a stream is asked for, counted, and not shown to who did not ask', async () => {
    const model = countedName()
    one.script(say(['a', 'b'], { usage }))
    const stream = await client.chat.completions.create({
      model,
      messages,
      stream: true,
      stream_options: { include_obfuscation: false },
    })
    const chunks = []
    for await (const chunk of stream) chunks.push(chunk)
    expect(one.requests.at(-1)?.body['stream_options']).toEqual({
      include_obfuscation: false,
      include_usage: true,
    })
    expect(chunks.map(({ choices }) => choices[0]?.delta.content ?? '').join('')).toBe('ab')
    expect(chunks.every(({ choices }) => choices.length === 1)).toBe(true)
    expect(chunks.at(-1)?.choices[0]?.finish_reason).toBe('stop')
    expect(chunks.some(({ usage: told }) => told)).toBe(false)
    await expect.poll(usageOf(model), patience).toEqual([row('chat/completions', counts)])
  })

  test('of a stream is shown to who asked for it', async () => {
    const model = countedName()
    one.script(say(['a'], { usage }))
    const stream = await client.chat.completions.create({
      model,
      messages,
      stream: true,
      stream_options: { include_usage: true },
    })
    const chunks = []
    for await (const chunk of stream) chunks.push(chunk)
    expect(chunks.at(-1)).toMatchObject({ choices: [], usage: { total_tokens: 18 } })
    await expect.poll(usageOf(model), patience).toEqual([row('chat/completions', counts)])
  })

  test('is not asked for where the endpoint refuses to be', async () => {
    one.script(say(['a'], { usage }))
    const stream = await client.chat.completions.create({ model: 'terse', messages, stream: true })
    for await (const _ of stream);
    expect(one.requests.at(-1)?.body).not.toHaveProperty('stream_options')
    await expect.poll(usageOf('terse'), patience).toEqual([row('chat/completions', [])])
  })

  test('of completions is asked for in the same way', async () => {
    const model = countedName()
    one.serve('POST /completions', (request, answer) => {
      expect(request.json()['stream_options']).toEqual({ include_usage: true })
      answer.writeHead(200, { 'content-type': 'text/event-stream' })
      answer.write('data: {"choices":[{"text":"a"}]}\n\n')
      answer.write('data: {"choices":[],"usage":{"prompt_tokens":2,"completion_tokens":1}}\n\n')
      answer.end('data: [DONE]\n\n')
    })
    const stream = await client.completions.create({ model, prompt: 'a', stream: true })
    const chunks = []
    for await (const chunk of stream) chunks.push(chunk)
    expect(chunks).toEqual([{ choices: [{ text: 'a' }] }])
    await expect.poll(usageOf(model), patience).toEqual([row('completions', [2, 1])])
  })

  test('of a streamed response is read from its last event, which the client gets', async () => {
    const model = countedName()
    const completed = {
      type: 'response.completed',
      response: {
        id: 'resp_streamed',
        usage: {
          input_tokens: 11,
          output_tokens: 7,
          input_tokens_details: { cached_tokens: 4 },
          output_tokens_details: { reasoning_tokens: 3 },
        },
      },
    }
    one.serve('POST /responses', (request, answer) => {
      expect(request.json()).not.toHaveProperty('stream_options')
      answer.writeHead(200, { 'content-type': 'text/event-stream' })
      answer.end(`event: response.completed\ndata: ${JSON.stringify(completed)}\n\n`)
    })
    const stream = await client.responses.create({ model, input: 'a', stream: true })
    const events = []
    for await (const event of stream) events.push(event)
    expect(events).toEqual([completed])
    await expect.poll(usageOf(model), patience).toEqual([row('responses', counts)])
  })

  test('that is not told is a row without numbers', async () => {
    const model = countedName()
    one.serve('POST /audio/speech', (_, answer) => {
      answer.writeHead(200, { 'content-type': 'audio/mpeg' })
      answer.end('sound')
    })
    await (await client.audio.speech.create({ model, voice: 'alloy', input: 'a' })).arrayBuffer()
    await expect.poll(usageOf(model), patience).toEqual([row('audio/speech', [])])
  })

  test('of what is refused, or only counts tokens, is no row', async () => {
    const model = countedName()
    one.script(fail(400, { message: 'No.' }), say('Yes.', { usage }))
    one.serve('POST /responses/input_tokens', () => ({ input_tokens: 3 }))
    await client.responses.inputTokens.count({ model, input: 'a' })
    await expect(client.chat.completions.create({ model, messages })).rejects.toThrow('No.')
    await client.chat.completions.create({ model, messages })
    await expect.poll(usageOf(model), patience).toEqual([row('chat/completions', counts)])
  })

  test('of a response that is made in the background is counted once it is told', async () => {
    const model = countedName()
    const queued = { id: 'resp_background', status: 'queued', output: [], usage: null }
    const done = { ...queued, status: 'completed', usage: { input_tokens: 5, output_tokens: 6 } }
    one.serve('POST /responses', () => queued)
    one.serve('GET /responses/resp_background', () => done)
    await client.responses.create({ model, input: 'a', background: true })
    await expect.poll(usageOf(model), patience).toEqual([row('responses', [])])
    for (let asked = 0; asked < 2; asked += 1) {
      expect((await client.responses.retrieve('resp_background')).status).toBe('completed')
    }
    await expect.poll(usageOf(model), patience).toEqual([row('responses', [5, 6])])
  })
})

describe('a response', () => {
  const noResponse = (id: string) => refused(404, `Response with id '${id}' not found.`)

  async function makeAt(model: ScriptedModel, name: string, id: string): Promise<void> {
    model.serve('POST /responses', () => ({ id, status: 'in_progress', output: [] }))
    await client.responses.create({ model: name, input: 'a' })
  }

  test('is asked for at the endpoint that made it', async () => {
    await makeAt(two, 'two', 'resp_two')
    const response = { id: 'resp_two', status: 'completed', output: [] }
    two.serve('GET /responses/resp_two', () => response)
    two.serve('GET /responses/resp_two/input_items', () => ({ data: [], has_more: false }))
    two.serve('POST /responses/resp_two/cancel', () => ({ ...response, status: 'cancelled' }))
    two.serve('DELETE /responses/resp_two', () => ({ id: 'resp_two', deleted: true }))
    const include = ['message.output_text.logprobs' as const]
    expect(await client.responses.retrieve('resp_two', { include })).toMatchObject(response)
    expect(newest(two).query.getAll('include[]')).toEqual(include)
    expect(newest(two).headers.authorization).toBe('Bearer sk-key-of-endpoint-two')
    expect((await client.responses.inputItems.list('resp_two')).data).toEqual([])
    expect((await client.responses.cancel('resp_two')).status).toBe('cancelled')
    await client.responses.delete('resp_two')
    expect(newest(two).route).toBe('DELETE /responses/resp_two')
    expect(refusal(await mine.get('/responses/resp_two'))).toEqual(noResponse('resp_two'))
  })

  test('is continued there, also without naming the model again', async () => {
    await makeAt(two, 'two', 'resp_first')
    const body = { input: 'b', previous_response_id: 'resp_first' }
    expect((await mine.post('/responses', { model: 'two', ...body })).status).toBe(200)
    expect(newest(two).json()).toEqual({ model: 'two', ...body })
    expect((await mine.post('/responses', body)).status).toBe(200)
    expect(newest(two).json()).toEqual(body)
  })

  test('can be asked for as soon as a stream has told its id', async () => {
    const goOn = Promise.withResolvers<void>()
    one.serve('POST /responses', async (_, answer) => {
      answer.writeHead(200, { 'content-type': 'text/event-stream' })
      answer.write('data: {"type":"response.created","response":{"id":"resp_open"}}\n\n')
      await goOn.promise
      answer.end('data: {"type":"response.completed","response":{"id":"resp_open"}}\n\n')
    })
    one.serve('POST /responses/resp_open/cancel', () => ({
      id: 'resp_open',
      status: 'cancelled',
      output: [],
    }))
    const stream = await client.responses.create({ model: 'one', input: 'a', stream: true })
    const events = stream[Symbol.asyncIterator]()
    expect((await events.next()).value).toMatchObject({ response: { id: 'resp_open' } })
    expect((await client.responses.cancel('resp_open')).status).toBe('cancelled')
    goOn.resolve()
    expect((await events.next()).value).toMatchObject({ type: 'response.completed' })
  })

  test('is not there for another project, and neither is one that nobody made', async () => {
    await makeAt(one, 'one', 'resp_mine')
    const before = one.served.length
    const asked = [
      theirs.get('/responses/resp_mine'),
      theirs.delete('/responses/resp_mine'),
      theirs.post('/responses/resp_mine/cancel'),
      theirs.get('/responses/resp_mine/input_items'),
    ]
    for (const answer of await Promise.all(asked)) {
      expect(refusal(answer)).toEqual(noResponse('resp_mine'))
    }
    expect(refusal(await mine.get('/responses/a%00b'))).toEqual(noResponse('a\0b'))
    const body = { model: 'one', input: 'a', previous_response_id: 'resp_mine' }
    expect(refusal(await theirs.post('/responses', body))).toEqual(
      refused(
        400,
        "Previous response with id 'resp_mine' not found.",
        'previous_response_id',
        'previous_response_not_found',
      ),
    )
    expect(one.served.length).toBe(before)
  })
})

describe('a chat completion that its endpoint stores', () => {
  /** The endpoints' own store, as far as it is asked for here. */
  function storing(model: ScriptedModel): void {
    const stored = new Map<string, object>()
    model.respond(() => say('Stored.'))
    model.serve('GET /chat/completions/*', ({ route }, answer) => {
      const found = stored.get(route.split('/').at(-1) ?? '')
      if (found) return found
      answer.writeHead(404, { 'content-type': 'application/json' })
      answer.end('{"error":{"message":"gone"}}')
      return undefined
    })
    model.serve('POST /chat/completions/*', ({ route, json }) => {
      const id = route.split('/').at(-1) ?? ''
      const completion = { id, object: 'chat.completion', ...json() }
      stored.set(id, completion)
      return completion
    })
    model.serve('DELETE /chat/completions/*', ({ route }) => {
      const id = route.split('/').at(-1) ?? ''
      return { id, deleted: stored.delete(id) }
    })
    model.serve('GET /chat/completions/*/messages', () => ({ data: [], has_more: false }))
  }

  async function store(model: string, tag: string): Promise<string> {
    const { id } = await client.chat.completions.create({ model, messages, store: true })
    await client.chat.completions.update(id, { metadata: { tag } })
    return id
  }

  test('is listed, read, changed and deleted where it is, and by its own project only', async () => {
    storing(one)
    storing(two)
    const ids = [await store('one', 'a'), await store('two', 'b'), await store('two', 'a')]
    const listed = async (query: OpenAI.Chat.Completions.ChatCompletionListParams = {}) => {
      const seen: string[] = []
      for await (const { id } of client.chat.completions.list(query)) seen.push(id)
      return seen
    }
    expect(await listed()).toEqual(ids)
    expect(await listed({ limit: 1, order: 'desc' })).toEqual(ids.toReversed())
    expect(await listed({ model: 'two' })).toEqual(ids.slice(1))
    expect(await listed({ metadata: { tag: 'a' }, limit: 1 })).toEqual([ids[0], ids[2]])

    const [first = ''] = ids
    expect((await client.chat.completions.retrieve(first)).metadata).toEqual({ tag: 'a' })
    expect((await client.chat.completions.messages.list(first)).data).toEqual([])
    const nothing = refused(404, `Chat completion with id '${first}' not found.`)
    expect(refusal(await theirs.get(`/chat/completions/${first}`))).toEqual(nothing)
    expect(refusal(await theirs.post(`/chat/completions/${first}`, {}))).toEqual(nothing)
    expect(refusal(await theirs.delete(`/chat/completions/${first}`))).toEqual(nothing)
    expect((await theirs.get('/chat/completions')).body.data).toEqual([])

    await client.chat.completions.delete(first)
    expect(refusal(await mine.get(`/chat/completions/${first}`))).toEqual(nothing)
    expect(await listed()).toEqual(ids.slice(1))
  })

  /** A project of its own, and completions of the model `one` that it is said to have stored, oldest first. */
  async function projectWith(name: string, ids: string[]): Promise<Caller> {
    await using rows = await openStore({
      databaseUrl: server.databaseUrl,
      log: createLogger('error'),
      maxConnections: 2,
    })
    const project = await rows.keys.createProject(name)
    for (const id of ids) {
      await rows.passedObjects.keep(project.id, { id, kind: 'chat.completion', model: 'one' })
    }
    return createCaller(server, (await rows.keys.createKey(project.id, name)).key)
  }

  /** Endpoint one has only these. */
  function keeping(completions: Record<string, object>): void {
    one.serve('GET /chat/completions/*', ({ route }, answer) => {
      const id = route.split('/').at(-1) ?? ''
      const found = completions[id]
      if (found) return { id, object: 'chat.completion', ...found }
      answer.writeHead(404, { 'content-type': 'application/json' })
      answer.end('{"error":{"message":"gone"}}')
      return undefined
    })
  }

  test('that its endpoint has no more does not end the list', async () => {
    const gone = Array.from({ length: 6 }, (_, i) => `chatcmpl-gone-${i}`)
    keeping({ 'chatcmpl-last': {} })
    const caller = await projectWith('forgotten', [...gone, 'chatcmpl-last'])
    const { data, has_more } = await caller.read('/chat/completions?limit=1')
    expect([data.map(({ id }) => id), has_more]).toEqual([['chatcmpl-last'], false])
  })

  test('is a place to go on from only if it is in the list', async () => {
    expect(refusal(await mine.get('/chat/completions?after=chatcmpl-none'))).toEqual(
      refused(
        400,
        "Invalid 'after': no object with id 'chatcmpl-none' is in this list",
        'after',
        'invalid_value',
      ),
    )
  })

  test('is looked for among 500 by its metadata, and then the client is asked to go on or to say more', async () => {
    const ids = Array.from({ length: 610 }, (_, i) => `chatcmpl-${i}`)
    keeping({
      ...Object.fromEntries(ids.map((id) => [id, {}])),
      'chatcmpl-400': { metadata: { tag: 'a' } },
      'chatcmpl-605': { metadata: { tag: 'a' } },
    })
    const caller = await projectWith('many', ids)
    const path = '/chat/completions?limit=100&metadata[tag]='
    const before = one.served.length
    const none = await caller.get(`${path}b`)
    expect([none.status, none.body.error.code]).toEqual([400, 'filter_too_narrow'])
    // A batch is one longer than a page.
    expect(one.served.length - before).toBe(505)
    const first = await caller.read(`${path}a`)
    expect(first).toMatchObject({ last_id: 'chatcmpl-400', has_more: true })
    expect(first.data).toHaveLength(1)
    const second = await caller.read(`${path}a&after=chatcmpl-400`)
    expect(second).toMatchObject({ last_id: 'chatcmpl-605', has_more: false })
  })
})
