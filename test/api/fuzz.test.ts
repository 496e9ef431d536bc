import { afterAll, beforeAll, expect, test } from 'vitest'

import { call, say } from '../support/model.ts'
import { startServer, type TestServer } from '../support/server.ts'
import { createCaller, type Body, type Caller } from './caller.ts'

/** Another seed finds other things: `FUZZ_SEED=7 npm test -- test/api/fuzz.test.ts`. */
const seed = Number(process.env['FUZZ_SEED'] ?? 1)
const random = createRandom(seed)
const rounds = 60

let server: TestServer
let api: Caller
let ids: Record<string, string>
/** How many of the calls got past the validation and did something. */
let accepted = 0
beforeAll(async () => {
  server = await startServer()
  server.model.respond(({ body, toolResults }) =>
    body.tools?.length && toolResults.length === 0
      ? call({ name: 'f', arguments: {} })
      : say('Yes.'),
  )
  api = createCaller(server)
  const assistant = await api.make('/assistants', { model: 'm' })
  const thread = await api.make('/threads', { messages: [{ role: 'user', content: 'Hi' }] })
  const tools = [{ type: 'function', function: { name: 'f' } }]
  const run = await api.make(`/threads/${thread.id}/runs`, { assistant_id: assistant.id, tools })
  await api.settled(thread.id, run.id)
  const { data } = await api.read(`/threads/${thread.id}/messages`)
  const { data: steps } = await api.read(`/threads/${thread.id}/runs/${run.id}/steps`)
  const other = await api.make('/threads')
  ids = {
    assistant: assistant.id,
    thread: thread.id,
    other: other.id,
    run: run.id,
    message: data[0]?.id ?? '',
    step: steps[0]?.id ?? '',
    after: '',
    before: '',
    include: 'step_details.tool_calls[*].file_search.results[*].content',
  }
})
afterAll(() => server[Symbol.asyncDispose]())

const tool = { type: 'function', function: { name: 'g', parameters: { type: 'object' } } }
const message = {
  role: 'user',
  content: [
    { type: 'text', text: 'Hi' },
    { type: 'image_url', image_url: { url: 'https://example.com/a.png', detail: 'low' } },
  ],
  attachments: [],
  metadata: { a: '1' },
}
const settings = {
  model: 'm',
  instructions: 'Be brief.',
  tools: [tool, { type: 'code_interpreter' }, { type: 'file_search', file_search: {} }],
  metadata: { a: '1' },
  temperature: 1,
  top_p: 1,
  reasoning_effort: 'low',
  response_format: { type: 'json_schema', json_schema: { name: 'x', schema: {}, strict: true } },
}
const runSettings = {
  ...settings,
  assistant_id: 'ASSISTANT',
  additional_instructions: 'More.',
  additional_messages: [message],
  max_prompt_tokens: 1000,
  max_completion_tokens: 1000,
  truncation_strategy: { type: 'last_messages', last_messages: 2 },
  tool_choice: { type: 'function', function: { name: 'g' } },
  parallel_tool_calls: true,
  stream: false,
}
const resources = { code_interpreter: { file_ids: [] }, file_search: { vector_store_ids: [] } }
const thread = { messages: [message], metadata: { a: '1' }, tool_resources: resources }
const page = '?limit=2&order=asc&after=AFTER&before=BEFORE'

/** Every endpoint, with a body that it would accept. Capitals stand for ids. */
const endpoints: [string, unknown?][] = [
  [`GET /assistants${page}`],
  ['POST /assistants', { ...settings, name: 'n', description: 'd', tool_resources: resources }],
  ['GET /assistants/ASSISTANT'],
  ['POST /assistants/ASSISTANT', { ...settings, name: 'n', tool_resources: resources }],
  ['POST /threads', thread],
  ['GET /threads/THREAD'],
  ['POST /threads/THREAD', { metadata: { a: '1' }, tool_resources: resources }],
  ['POST /threads/runs', { ...runSettings, thread, tool_resources: resources }],
  [`GET /threads/THREAD/messages${page}&run_id=RUN`],
  ['POST /threads/OTHER/messages', message],
  ['GET /threads/THREAD/messages/MESSAGE'],
  ['POST /threads/THREAD/messages/MESSAGE', { metadata: { a: '1' } }],
  [`GET /threads/THREAD/runs${page}`],
  ['POST /threads/OTHER/runs?include[]=INCLUDE', runSettings],
  ['GET /threads/THREAD/runs/RUN'],
  ['POST /threads/THREAD/runs/RUN', { metadata: { a: '1' } }],
  [
    'POST /threads/THREAD/runs/RUN/submit_tool_outputs',
    { tool_outputs: [{ tool_call_id: 'call_x', output: 'y' }], stream: false },
  ],
  ['POST /threads/OTHER/runs/RUN/cancel', {}],
  [`GET /threads/THREAD/runs/RUN/steps${page}&include[]=INCLUDE`],
  ['GET /threads/THREAD/runs/RUN/steps/STEP?include[]=INCLUDE'],
  ['GET /models'],
  ['GET /models/NAME'],
]

test.each(endpoints)(`%s answers whatever is sent to it (seed ${seed})`, async (endpoint, body) => {
  const [method = '', path = ''] = endpoint.split(' ')
  const broken: unknown[] = []
  for (let round = 0; round < rounds; round += 1) {
    const target = filled(path, random() < 0.7)
    const sent = method === 'GET' ? undefined : filledBody(damaged(body))
    const answer = await api.send(method, target, sent)
    if (answer.status >= 500 || !isAnswer(answer.status, answer.body)) {
      broken.push({ method, target, sent, status: answer.status, text: answer.text.slice(0, 500) })
    }
    if (answer.status !== 200) continue
    accepted += 1
    await settle(answer.body)
  }
  expect(broken).toEqual([])
})

test('many of these calls were sound, and the server still answers', async () => {
  expect(accepted).toBeGreaterThan((endpoints.length * rounds) / 5)
  const { status } = await api.get('/assistants')
  expect(status).toBe(200)
  const run = await api.make('/threads/runs', { assistant_id: await plainAssistant() })
  expect((await api.settled(run['thread_id'], run.id))['status']).toBe('completed')
})

async function plainAssistant(): Promise<string> {
  return (await api.make('/assistants', { model: 'm' })).id
}

/** An error has its envelope; everything else is an object with a name, or a stream that was asked for. */
function isAnswer(status: number, body: Body): boolean {
  if (status === 200) return true
  const { error } = body
  return typeof error?.message === 'string' && error.message !== '' && 'param' in error
}

/** A run that was made by chance gives the thread back. */
async function settle(body: Body): Promise<void> {
  if (body['object'] !== 'thread.run') return
  const path = `/threads/${String(body['thread_id'])}/runs/${body.id}`
  const run = await api.settled(body['thread_id'], body.id)
  if (run['status'] !== 'requires_action' || body.id === ids['run']) return
  await api.post(`${path}/cancel`)
  await api.settled(body['thread_id'], body.id)
}

function filled(path: string, isSound: boolean): string {
  return path.replaceAll(/\b[A-Z]{3,}\b/g, (name) => {
    const known = ids[name.toLowerCase()]
    return known !== undefined && (isSound || random() < 0.5)
      ? known
      : encodeURIComponent(oddText().toWellFormed())
  })
}

function filledBody(body: unknown): unknown {
  if (body === 'ASSISTANT') return ids['assistant']
  if (Array.isArray(body)) return body.map(filledBody)
  if (typeof body !== 'object' || body === null) return body
  return Object.fromEntries(Object.entries(body).map(([key, value]) => [key, filledBody(value)]))
}

/** The body with a few of its values changed, removed or added to; now and then anything at all. */
function damaged(body: unknown): unknown {
  if (random() < 0.1) return anything(3)
  let value = body
  for (let n = Math.floor(random() * 3); n >= 0; n -= 1) value = damagedOnce(value)
  return value
}

function damagedOnce(value: unknown): unknown {
  if (random() < 0.15 || typeof value !== 'object' || value === null) return anything(2)
  if (Array.isArray(value)) {
    const at = Math.floor(random() * value.length)
    if (random() < 0.1) return [...value, anything(2)]
    return value.map((item: unknown, index) => (index === at ? damagedOnce(item) : item))
  }
  const entries: [string, unknown][] = Object.entries(value)
  const at = Math.floor(random() * entries.length)
  const luck = random()
  if (luck < 0.1) entries.splice(at, 1)
  else if (luck < 0.2) entries.push([oddText(), anything(2)])
  else {
    const entry = entries[at]
    if (entry) entry[1] = damagedOnce(entry[1])
  }
  return Object.fromEntries(entries)
}

function anything(depth: number): unknown {
  const kind = Math.floor(random() * (depth > 0 ? 9 : 7))
  switch (kind) {
    case 0:
      return null
    case 1:
      return random() < 0.5
    case 2:
      return oneOf([0, -1, 1, 0.5, 1e308, -1e308, 2 ** 31, 2 ** 53, Number.MAX_VALUE, 1e-320])
    case 3:
    case 4:
      return oddText()
    case 5:
      return oneOf(['auto', 'required', 'none', 'user', 'system', 'text', 'ASSISTANT', 'high'])
    case 6:
      return oneOf([[], {}, [[]], [null], { '': '' }])
    case 7:
      return Array.from({ length: Math.floor(random() * 4) }, () => anything(depth - 1))
    default:
      return Object.fromEntries(
        Array.from({ length: Math.floor(random() * 4) }, () => [
          random() < 0.5 ? oneOf(names) : oddText(),
          anything(depth - 1),
        ]),
      )
  }
}

const names = (
  'model role content type text function name metadata tools assistant_id stream file_ids ' +
  'constructor toString hasOwnProperty'
).split(' ')

function oddText(): string {
  return oneOf([
    '',
    ' ',
    'undefined',
    'null',
    'a\0b',
    '\ud83d',
    '\udc00x',
    '🙂'.repeat(3),
    '\u202e\u0007\u001b[31m',
    "'; DROP TABLE runs; --",
    '$1',
    '%s%n',
    '../../etc/passwd',
    'a'.repeat(70),
    'a'.repeat(5000),
    '{"a": 1}',
    'thread_x',
    'asst_x',
    'run_',
    '[object Object]',
  ])
}

function oneOf<T>(values: readonly T[]): T {
  // The index is in range.
  return values[Math.floor(random() * values.length)] as T
}

/** A small generator of numbers that are the same for the same seed (mulberry32). */
function createRandom(start: number): () => number {
  let state = start
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296
  }
}
