import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'

import { describe, expect, test } from 'vitest'

import { answered, captureServer, takeViolations } from '../support/http-capture.ts'
import { checkAnswer, used, type Exchange } from './answers.ts'
import { deviations, notServed } from './deviations.ts'
import { openDocument, skipped } from './document.ts'
import { servedOperations } from './routes.ts'

const assistant = {
  id: 'asst_1',
  object: 'assistant',
  created_at: 1,
  name: null,
  description: null,
  model: 'm',
  instructions: null,
  tools: [],
  metadata: {},
}
const run = {
  id: 'run_1',
  object: 'thread.run',
  created_at: 1,
  thread_id: 'thread_1',
  assistant_id: 'asst_1',
  status: 'queued',
  required_action: null,
  last_error: null,
  expires_at: 1,
  started_at: null,
  cancelled_at: null,
  failed_at: null,
  completed_at: null,
  incomplete_details: null,
  model: 'm',
  instructions: '',
  tools: [],
  metadata: {},
  usage: null,
  max_prompt_tokens: null,
  max_completion_tokens: null,
  truncation_strategy: { type: 'auto', last_messages: null },
  tool_choice: 'auto',
  parallel_tool_calls: true,
  response_format: 'auto',
}
const error = { error: { message: 'No.', type: 'invalid_request_error', param: null, code: null } }

describe.skipIf(skipped)(`the check of answers${skipped}`, () => {
  test.each([
    ['as documented', assistant],
    ['with a key that is listed as a deviation', { ...assistant, reasoning_effort: 'low' }],
  ])('passes an assistant %s', (_, body) => {
    expect(violations({ url: '/v1/assistants/asst_1', body })).toEqual([])
  })

  test.each([
    ['without a key', { ...assistant, model: undefined }, "required property 'model'"],
    ['with a key too many', { ...assistant, colour: 'red' }, '"unevaluatedProperty":"colour"'],
    ['with a value of another type', { ...assistant, created_at: '1' }, '/created_at must be int'],
    ['with a value of another object', { ...assistant, object: 'thread' }, '/object must be equal'],
    ['with a tool too many', { ...assistant, tools: [{ type: 'x' }] }, '/tools/0/type must be'],
  ])('finds an assistant %s', (_, body, said) => {
    expect(violations({ url: '/v1/assistants/asst_1', body }).join('\n')).toContain(said)
  })

  test('finds a page that is wrong in one of its items', () => {
    const page = {
      object: 'list',
      data: [assistant, {}],
      first_id: '',
      last_id: '',
      has_more: false,
    }
    const found = violations({ url: '/v1/assistants?limit=2', body: page })
    expect(found.join('\n')).toContain('/data/1 must have required property')
  })

  test('finds errors without their envelope', () => {
    const check = (body: unknown) => violations({ url: '/v1/nothing', status: 400, body })
    expect(check(error)).toEqual([])
    expect(check({ error: 'No.' })).not.toEqual([])
    expect(check({ error: { ...error.error, param: undefined } })).not.toEqual([])
    expect(violations({ url: '/v1/nothing', status: 502, raw: 'Bad gateway' })).not.toEqual([])
  })

  test('finds an answer of a path that no document knows', () => {
    expect(violations({ url: '/v1/inventions', body: {} }).join('')).toContain('no document knows')
    expect(violations({ url: '/healthz', body: {} })).toEqual([])
  })

  test('reads a stream event by event, up to where it was cut', () => {
    const check = (raw: string) =>
      violations({
        method: 'POST',
        url: '/v1/threads/thread_1/runs',
        contentType: 'text/event-stream; charset=utf-8',
        raw,
        isComplete: false,
      })
    const frame = (event: string, data: unknown) =>
      `id: 1\nevent: ${event}\ndata: ${JSON.stringify(data)}\n\n`
    const sound = `${frame('thread.run.created', run)}: ping\n\n`
    expect(check(`${sound}event: done\ndata: [DONE]\n\n`)).toEqual([])
    expect(check(`${sound}event: thread.run.queued\ndata: {"id"`)).toEqual([])
    expect(check(sound + frame('thread.run.queued', { ...run, model: 1 })).join('')).toContain(
      'event thread.run.queued: /model must be string',
    )
    expect(check(frame('thread.run.paused', run)).join('')).toContain("event 'thread.run.paused'")
    expect(check('event: done\ndata: {}\n\n')).toEqual(["the data of done are '{}'"])
  })

  test('holds an answer against the document of the dialect that was spoken', () => {
    const requestHeaders = { 'openai-beta': 'assistants=v1' }
    const url = '/v1/assistants/asst_1'
    expect(violations({ url, body: { ...assistant, file_ids: [] } })).not.toEqual([])
    expect(violations({ url, body: { ...assistant, file_ids: [] }, requestHeaders })).toEqual([])
  })

  test('notes a deviation only where the document says otherwise', () => {
    const [first] = deviations
    const url = '/v1/threads/thread_1/runs/run_1'
    used.clear()
    expect(violations({ url, body: run })).toEqual([])
    expect([...used]).toEqual([])
    expect(violations({ url, body: { ...run, instructions: null } })).toEqual([])
    expect([...used]).toEqual([first])
  })

  test.each(deviations.flatMap((one) => one.at.map((at) => ({ ...one, at }))))(
    'a deviation is of a schema that there is: $at',
    ({ at, dialect }) => {
      const found = (['v1', 'v2'] as const)
        .filter((one) => (dialect ?? one) === one)
        .map((one) => at.split('/').reduce<unknown>(step, openDocument(one).schemas))
      expect(found.some((schema) => schema !== undefined)).toBe(true)
    },
  )
})

describe.skipIf(skipped)(`a server that tests start${skipped}`, () => {
  test('is looked at, whoever asks, and nobody else is', async () => {
    await using looked = await startFake()
    await using other = await startFake()
    captureServer(looked.url)
    const before = answered.length
    for (const { url } of [looked, other]) {
      await (await fetch(`${url}/v1/assistants/asst_1`)).text()
      await (await fetch(`${url}/v1/assistants/asst_1/broken`)).text()
    }
    await looked[Symbol.asyncDispose]()
    expect(takeViolations()).toEqual([
      expect.stringContaining('GET /v1/assistants/asst_1/broken: 400: the body must have required'),
    ])
    expect(answered.slice(before).map(({ operation }) => operation.id)).toEqual(['getAssistant'])
  })
})

/** Answers in two pieces, as streams do, and its errors have no envelope. */
async function startFake(): Promise<{ url: string } & AsyncDisposable> {
  const server = createServer((request, response) => {
    const isBroken = request.url?.endsWith('broken') ?? false
    response.statusCode = isBroken ? 400 : 200
    response.setHeader('content-type', 'application/json')
    const text = JSON.stringify(isBroken ? { no: 'envelope' } : assistant)
    response.write(text.slice(0, 10))
    response.end(text.slice(10), 'utf8')
  })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  // It listens on a port, not on a pipe.
  const { port } = server.address() as AddressInfo
  return {
    url: `http://127.0.0.1:${port}`,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      if (server.listening) await once(server.close(), 'close')
    },
  }
}

describe.skipIf(skipped).each(['v1', 'v2'] as const)(`the %s document${skipped}`, (dialect) => {
  test('every operation is served, or listed as one that is not', () => {
    const served = servedOperations(dialect).map(({ id }) => id)
    const listed = notServed.map(({ operation }) => operation)
    const missing = openDocument(dialect).operations.filter(({ id }) => !served.includes(id))
    expect(missing.map(({ id }) => id).filter((id) => !listed.includes(id))).toEqual([])
    expect(served.filter((id) => listed.includes(id))).toEqual([])
  })
})

function step(value: unknown, key: string): unknown {
  return typeof value === 'object' && value !== null ? Reflect.get(value, key) : undefined
}

interface Given extends Partial<Omit<Exchange, 'body'>> {
  url: string
  body?: unknown
  raw?: string
}

function violations({ body, raw, ...given }: Given): string[] {
  return checkAnswer({
    method: 'GET',
    status: 200,
    requestHeaders: { 'openai-beta': 'assistants=v2' },
    contentType: raw === undefined || given.status ? 'application/json' : '',
    isComplete: true,
    body: Buffer.from(raw ?? JSON.stringify(body)),
    ...given,
  }).violations
}
