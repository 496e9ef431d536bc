import { request } from 'node:http'

import { afterAll, beforeAll, describe, expect, test } from 'vitest'

import { startServer, type TestServer } from '../support/server.ts'
import { createCaller, refusal, refused, type Caller } from './caller.ts'

let server: TestServer
let api: Caller
let threadId: string
let assistantId: string
beforeAll(async () => {
  server = await startServer()
  api = createCaller(server)
  threadId = (await api.make('/threads')).id
  assistantId = (await api.make('/assistants', { model: 'm' })).id
})
afterAll(() => server[Symbol.asyncDispose]())

const noKey =
  "You didn't provide an API key. You need to provide your API key in an Authorization header " +
  'using Bearer auth (i.e. Authorization: Bearer YOUR_KEY).'
const noBeta =
  "You must provide the 'OpenAI-Beta' header to access the Assistants API. " +
  "Please try again by setting the header 'OpenAI-Beta: assistants=v2'."
const notJson =
  'We could not parse the JSON body of your request. (HINT: This likely means you ' +
  "aren't using your HTTP library correctly. The API expects a JSON payload, but what was " +
  'sent was not valid JSON.)'

describe('of all that is wrong with a call the answer tells the first', () => {
  const bad = { raw: '{"no json' }
  const path = '/threads/nothread/runs/norun/submit_tool_outputs'
  const goodId = '/threads/thread_none/runs/run_none/submit_tool_outputs'

  test('no key', async () => {
    const headers = { authorization: undefined, 'openai-beta': undefined }
    expect(refusal(await api.post(path, {}, { headers, ...bad }))).toEqual(refused(401, noKey))
  })

  test('then no beta header', async () => {
    const headers = { 'openai-beta': undefined }
    expect(refusal(await api.post(path, {}, { headers, ...bad }))).toEqual(
      refused(400, noBeta, null, 'invalid_beta'),
    )
  })

  test('then an id that cannot be one', async () => {
    expect(refusal(await api.post(path, {}, bad))).toEqual(
      refused(
        400,
        "Invalid 'thread_id': 'nothread'. Expected an ID that begins with 'thread'.",
        'thread_id',
        'invalid_value',
      ),
    )
  })

  test('then an object that is not there', async () => {
    expect(refusal(await api.post(goodId, {}, bad))).toEqual(
      refused(404, "No thread found with id 'thread_none'."),
    )
    const inThread = `/threads/${threadId}/runs/run_none/submit_tool_outputs`
    expect(refusal(await api.post(inThread, {}, bad))).toEqual(
      refused(404, "No run found with id 'run_none'."),
    )
  })

  test('then a body that cannot be read, or does not fit', async () => {
    const messages = `/threads/${threadId}/messages`
    expect(refusal(await api.post(messages, {}, bad))).toEqual(refused(400, notJson))
    expect(refusal(await api.post(messages, { role: 'user' }))).toEqual(
      refused(
        400,
        "Missing required parameter: 'content'.",
        'content',
        'missing_required_parameter',
      ),
    )
  })

  test('then the state of what it is about', async () => {
    const fresh = await api.make('/threads')
    server.model.respond(() => ({ type: 'silence' }))
    const runs = `/threads/${fresh.id}/runs`
    const run = await api.make(runs, { assistant_id: assistantId })
    expect(refusal(await api.post(runs, { assistant_id: 7 }))).toMatchObject({
      code: 'invalid_type',
    })
    expect(refusal(await api.post(runs, { assistant_id: assistantId }))).toEqual(
      refused(400, `Thread ${fresh.id} already has an active run ${run.id}.`),
    )
    await api.make(`${runs}/${run.id}/cancel`)
  })
})

describe('the key', () => {
  test.each(['', 'Bearer', 'Bearer ', 'Basic c2stYTpi', 'sk-abc'])(
    'is missing where the header is %j',
    async (authorization) => {
      const answer = await api.get('/assistants', { headers: { authorization } })
      expect(refusal(answer)).toEqual(refused(401, noKey))
    },
  )

  test.each(['bearer sk-a', 'BEARER  sk-a', 'Bearer sk-ünïcode'.normalize('NFC')])(
    'is found in %j',
    async (authorization) => {
      const answer = await api.get('/assistants', { headers: { authorization } })
      expect(answer.status).toBe(200)
    },
  )
})

describe('the beta header', () => {
  test.each(['assistants=v2', 'assistants=v1', 'realtime=v1,assistants=v2'])(
    'may be %j',
    async (beta) => {
      const answer = await api.get('/assistants', { headers: { 'openai-beta': beta } })
      expect(answer.status).toBe(200)
    },
  )

  test('is not needed for models', async () => {
    const answer = await api.get('/models', { headers: { 'openai-beta': undefined } })
    expect(answer.status).toBe(200)
  })
})

describe('an id in a path', () => {
  test.each([
    ['undefined', "'undefined'. Expected an ID that begins with 'thread'."],
    ['asst_abc', "'asst_abc'. Expected an ID that begins with 'thread'."],
    [
      'thread_a%20b',
      "'thread_a b'. Expected an ID that contains letters, numbers, underscores, or dashes, " +
        'but this value contained additional characters.',
    ],
    [
      'thread_%F0%9F%99%82',
      "'thread_🙂'. Expected an ID that contains letters, numbers, underscores, or dashes, " +
        'but this value contained additional characters.',
    ],
    [
      "thread_'; DROP TABLE threads",
      "'thread_'; DROP TABLE threads'. Expected an ID that contains letters, numbers, " +
        'underscores, or dashes, but this value contained additional characters.',
    ],
    [
      'thread_a%2F..%2Fb',
      "'thread_a/../b'. Expected an ID that contains letters, numbers, underscores, or dashes, " +
        'but this value contained additional characters.',
    ],
  ])('%s is refused', async (id, rule) => {
    expect(refusal(await api.get(`/threads/${id}`))).toEqual(
      refused(400, `Invalid 'thread_id': ${rule}`, 'thread_id', 'invalid_value'),
    )
  })

  test.each(['thread_%00', 'thread_%', 'thread_%ff', 'thread_%zz', 'thread_%E0%A4%A'])(
    '%s is refused, whatever its bytes mean',
    async (id) => {
      const { status, body } = await api.get(`/threads/${id}`)
      expect(status).toBe(400)
      expect(body.error).toMatchObject({ type: 'invalid_request_error' })
    },
  )

  test('of a thousand characters is refused as too long', async () => {
    const answer = await api.get(`/threads/thread_${'a'.repeat(1000)}`)
    expect(refusal(answer)).toMatchObject({
      status: 400,
      param: 'thread_id',
      code: 'string_above_max_length',
    })
  })

  test.each([
    ['GET', 'assistants/asst_none', "No assistant found with id 'asst_none'."],
    ['POST', 'assistants/asst_none', "No assistant found with id 'asst_none'."],
    ['DELETE', 'assistants/asst_none', "No assistant found with id 'asst_none'."],
    ['GET', 'threads/thread_none', "No thread found with id 'thread_none'."],
    ['POST', 'threads/thread_none', "No thread found with id 'thread_none'."],
    ['DELETE', 'threads/thread_none', "No thread found with id 'thread_none'."],
    ['GET', 'threads/thread_none/messages', "No thread found with id 'thread_none'."],
    ['GET', 'threads/thread_none/runs', "No thread found with id 'thread_none'."],
    ['POST', 'threads/thread_none/runs/run_none/cancel', "No thread found with id 'thread_none'."],
    ['GET', 'threads/thread_none/messages/msg_none', "No thread found with id 'thread_none'."],
    ['GET', 'threads/T/messages/msg_none', "No message found with id 'msg_none'."],
    ['POST', 'threads/T/messages/msg_none', "No message found with id 'msg_none'."],
    ['DELETE', 'threads/T/messages/msg_none', "No message found with id 'msg_none'."],
    ['GET', 'threads/T/runs/run_none', "No run found with id 'run_none'."],
    ['POST', 'threads/T/runs/run_none', "No run found with id 'run_none'."],
    ['POST', 'threads/T/runs/run_none/cancel', "No run found with id 'run_none'."],
    ['GET', 'threads/T/runs/run_none/steps', "No run found with id 'run_none'."],
    ['GET', 'threads/T/runs/run_none/steps/step_none', "No run found with id 'run_none'."],
  ])('%s %s: nothing there', async (method, path, message) => {
    const answer = await api.send(method, `/${path.replace('T', threadId)}`)
    expect(refusal(answer)).toEqual(refused(404, message))
  })
})

describe('a body', () => {
  test.each(['{', 'null,', '{"metadata": {}} trailing', "{'metadata': {}}", '\u{feff}x'])(
    'of %j is no JSON',
    async (raw) => {
      expect(refusal(await api.post('/threads', {}, { raw }))).toEqual(refused(400, notJson))
    },
  )

  test('of bytes that are no UTF-8 is no JSON', async () => {
    const raw = new Uint8Array([0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d])
    expect(refusal(await api.post('/threads', {}, { raw }))).toEqual(refused(400, notJson))
  })

  test.each([
    ['[]', 'an array'],
    ['null', 'null'],
    ['"x"', 'a string'],
    ['7', 'an integer'],
  ])('of %s is not an object', async (raw, got) => {
    expect(refusal(await api.post('/threads', {}, { raw }))).toEqual(
      refused(
        400,
        `Invalid type for 'body': expected an object, but got ${got} instead.`,
        'body',
        'invalid_type',
      ),
    )
  })

  test('of another content type is refused with its name', async () => {
    const raw = 'metadata=1'
    const headers = { 'content-type': 'application/x-www-form-urlencoded' }
    expect(refusal(await api.post('/threads', {}, { raw, headers }))).toEqual({
      status: 415,
      type: 'invalid_request_error',
      param: null,
      code: 'unsupported_content_type',
      message: expect.stringContaining("'application/x-www-form-urlencoded'"),
    })
  })

  test.each(['application/json; charset=utf-8', 'APPLICATION/JSON'])(
    'of the content type %j is JSON',
    async (type) => {
      const raw = '{"metadata": {"a": "1"}}'
      const { body } = await api.post('/threads', {}, { raw, headers: { 'content-type': type } })
      expect(body['metadata']).toEqual({ a: '1' })
    },
  )

  test('with the character U+0000 is refused, and its place is named', async () => {
    const answer = await api.post(`/threads/${threadId}/messages`, {
      role: 'user',
      content: [{ type: 'text', text: 'a\0b' }],
    })
    expect(refusal(answer)).toEqual(
      refused(
        400,
        "Invalid 'content[0].text': the text contains the character U+0000, which cannot be stored.",
        'content[0].text',
        'invalid_value',
      ),
    )
  })

  test('beyond the limit is refused without being read to its end', async () => {
    const piece = Buffer.alloc(1024 * 1024, 'x')
    const { hostname, port } = new URL(server.baseUrl)
    const status = await new Promise((resolve, reject) => {
      const sending = request(
        {
          hostname,
          port,
          method: 'POST',
          path: '/v1/threads',
          headers: {
            authorization: 'Bearer any',
            'openai-beta': 'assistants=v2',
            'content-type': 'application/json',
          },
        },
        (answer) => {
          resolve(answer.statusCode)
          sending.destroy()
        },
      )
      sending.on('error', reject)
      // It never ends: an answer can come only from a server that does not wait for the end.
      const more = (): void => {
        while (!sending.destroyed && sending.write(piece));
        sending.once('drain', more)
      }
      more()
    })
    expect(status).toBe(413)
    expect((await api.get('/assistants')).status).toBe(200)
  })
})

describe('a route', () => {
  test.each([
    ['GET', '/nothing'],
    ['POST', '/threads/thread_a/nothing'],
    ['GET', '/threads/thread_a/runs/run_a/steps/step_a/nothing'],
  ])('%s %s does not exist', async (method, path) => {
    expect(refusal(await api.send(method, path))).toEqual(refused(404, 'Not found'))
  })

  test.each([
    ['GET', '/threads/thread_a/runs/run_a/cancel', 'POST'],
    ['PUT', '/threads/thread_a', 'DELETE, GET, HEAD, POST'],
    ['DELETE', '/threads/thread_a/runs/run_a', 'GET, HEAD, POST'],
    ['POST', '/threads/thread_a/runs/run_a/steps', 'GET, HEAD'],
    ['PATCH', '/assistants', 'GET, HEAD, POST'],
    ['POST', '/models', 'GET, HEAD'],
    ['DELETE', '/models/a/b:c', 'GET, HEAD'],
  ])('%s %s is of another method: %s', async (method, path, allowed) => {
    const answer = await api.send(method, path)
    const sentence =
      `Not allowed to ${method} on /v1${path}. ` +
      '(HINT: Perhaps you meant to use a different HTTP method?)'
    expect(refusal(answer)).toEqual(refused(405, sentence, null, 'method_not_supported'))
    expect(answer.headers.get('allow')).toBe(allowed)
  })

  test('tells its methods to OPTIONS, and answers HEAD without a body', async () => {
    const options = await api.send('OPTIONS', '/assistants')
    expect([options.status, options.headers.get('allow'), options.text]).toEqual([
      204,
      'GET, HEAD, POST',
      '',
    ])
    expect(refusal(await api.send('OPTIONS', '/nothing'))).toEqual(refused(404, 'Not found'))
    const head = (path: string) =>
      fetch(`${server.baseUrl}${path}`, {
        method: 'HEAD',
        headers: { authorization: 'Bearer any', 'openai-beta': 'assistants=v2' },
      })
    const found = await head('/assistants')
    expect([found.status, await found.text()]).toEqual([200, ''])
    expect((await head('/threads/thread_a/runs/run_a/cancel')).status).toBe(405)
  })

  test('of another method says so only to those who have a key', async () => {
    const { status } = await api.send(
      'PUT',
      '/assistants',
      {},
      { headers: { authorization: undefined } },
    )
    expect(status).toBe(401)
  })

  test('outside of /v1 does not exist either', async () => {
    const caller = createCaller({ baseUrl: server.baseUrl.replace('/v1', '') })
    expect(refusal(await caller.get('/'))).toEqual(refused(404, 'Not found'))
    expect(refusal(await caller.get('/assistants'))).toEqual(refused(404, 'Not found'))
  })
})

test('a model that is not listed is not found under its name', async () => {
  const listed = (await api.read('/models')).data.map(({ id }) => id)
  expect(listed).toEqual(['scripted-model'])
  expect(await api.read('/models/scripted-model')).toMatchObject({
    id: 'scripted-model',
    object: 'model',
    created: expect.any(Number),
    owned_by: expect.any(String),
  })
  expect(refusal(await api.get('/models/org/name:free'))).toEqual(
    refused(
      404,
      "The model 'org/name:free' does not exist or you do not have access to it.",
      'model',
      'model_not_found',
    ),
  )
})
