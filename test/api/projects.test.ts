import { afterAll, beforeAll, describe, expect, test } from 'vitest'

import { createLogger } from '../../log.ts'
import { openStore } from '../../store/index.ts'
import { call, say } from '../support/model.ts'
import { startServer, type TestServer } from '../support/server.ts'
import { createCaller, refusal, refused, type Body, type Caller } from './caller.ts'

let server: TestServer
let mine: Caller
let theirs: Caller
/** What the other project has, and one call for each way to reach it. */
let assistant: Body
let thread: Body
let message: Body
let run: Body
let step: Body
let callId: string
let before: unknown

beforeAll(async () => {
  server = await startServer({ ADMIN_KEY: 'an-admin-key-for-tests' })
  await using store = await openStore({
    databaseUrl: server.databaseUrl,
    log: createLogger('error'),
    maxConnections: 2,
  })
  const keyOf = async (name: string) => {
    const project = await store.keys.createProject(name)
    return (await store.keys.createKey(project.id, name)).key
  }
  mine = createCaller(server, await keyOf('mine'))
  theirs = createCaller(server, await keyOf('theirs'))

  server.model.script(call({ name: 'f', arguments: {} }))
  server.model.respond(() => say('Hello there.'))
  const tools = [{ type: 'function', function: { name: 'f' } }]
  assistant = await theirs.make('/assistants', { model: 'm', name: 'Secret', tools })
  thread = await theirs.make('/threads')
  message = await theirs.make(`/threads/${thread.id}/messages`, { role: 'user', content: 'Secret' })
  run = await theirs.make(`/threads/${thread.id}/runs`, { assistant_id: assistant.id })
  run = await theirs.settled(thread.id, run.id)
  const action = run['required_action'] as { submit_tool_outputs: { tool_calls: { id: string }[] } }
  callId = action.submit_tool_outputs.tool_calls[0]?.id ?? ''
  step = (await theirs.read(`/threads/${thread.id}/runs/${run.id}/steps`)).data[0] as Body
  before = await everything()
})
afterAll(() => server[Symbol.asyncDispose]())

const noAssistant = () => refused(404, `No assistant found with id '${assistant.id}'.`)
const noThread = () => refused(404, `No thread found with id '${thread.id}'.`)

/** Every endpoint that takes an id, asked with another project's. */
const asked: [string, () => ReturnType<Caller['send']>, () => unknown][] = [
  ['GET assistant', () => mine.get(`/assistants/${assistant.id}`), noAssistant],
  ['POST assistant', () => mine.post(`/assistants/${assistant.id}`, { name: 'x' }), noAssistant],
  ['DELETE assistant', () => mine.delete(`/assistants/${assistant.id}`), noAssistant],
  ['GET thread', () => mine.get(path('')), noThread],
  ['POST thread', () => mine.post(path(''), { metadata: { a: 'x' } }), noThread],
  ['DELETE thread', () => mine.delete(path('')), noThread],
  ['GET messages', () => mine.get(path('/messages')), noThread],
  ['POST messages', () => mine.post(path('/messages'), { role: 'user', content: 'x' }), noThread],
  ['GET message', () => mine.get(path(`/messages/${message.id}`)), noThread],
  ['POST message', () => mine.post(path(`/messages/${message.id}`), { metadata: {} }), noThread],
  ['DELETE message', () => mine.delete(path(`/messages/${message.id}`)), noThread],
  ['GET runs', () => mine.get(path('/runs')), noThread],
  ['POST runs', () => mine.post(path('/runs'), { assistant_id: assistant.id }), noThread],
  ['POST runs, streamed', () => mine.post(path('/runs'), streamed()), noThread],
  ['GET run', () => mine.get(path(`/runs/${run.id}`)), noThread],
  ['GET run, polled', () => mine.get(path(`/runs/${run.id}`), polled), noThread],
  ['POST run', () => mine.post(path(`/runs/${run.id}`), { metadata: { a: 'x' } }), noThread],
  ['POST cancel', () => mine.post(path(`/runs/${run.id}/cancel`)), noThread],
  [
    'POST outputs',
    () => mine.post(path(`/runs/${run.id}/submit_tool_outputs`), outputs()),
    noThread,
  ],
  ['GET steps', () => mine.get(path(`/runs/${run.id}/steps`)), noThread],
  ['GET step', () => mine.get(path(`/runs/${run.id}/steps/${step.id}`)), noThread],
  [
    'POST threads/runs',
    () => mine.post('/threads/runs', { assistant_id: assistant.id }),
    noAssistant,
  ],
]
const polled = { headers: { 'x-stainless-poll-helper': 'true' } }
const path = (rest: string) => `/threads/${thread.id}${rest}`
const streamed = () => ({ assistant_id: assistant.id, stream: true })
const outputs = () => ({ tool_outputs: [{ tool_call_id: callId, output: 'x' }] })

describe("another project's objects are as good as none", () => {
  test.each(asked)('%s', async (_, ask, expected) => {
    expect(refusal(await ask())).toEqual(expected())
  })

  test('in the list of assistants', async () => {
    const own = await mine.make('/assistants', { model: 'm' })
    expect((await mine.read('/assistants')).data.map(({ id }) => id)).toEqual([own.id])
    const answer = await mine.get(`/assistants?after=${assistant.id}`)
    expect(refusal(answer)).toMatchObject({ status: 400, param: 'after' })
  })

  test("inside a thread of one's own", async () => {
    const own = await mine.make('/threads', { messages: [{ role: 'user', content: 'Mine' }] })
    const within = `/threads/${own.id}`
    const ask: [string, string, unknown, string][] = [
      ['GET', `/messages/${message.id}`, undefined, 'message'],
      ['POST', `/messages/${message.id}`, { metadata: {} }, 'message'],
      ['DELETE', `/messages/${message.id}`, undefined, 'message'],
      ['GET', `/runs/${run.id}`, undefined, 'run'],
      ['POST', `/runs/${run.id}`, { metadata: {} }, 'run'],
      ['POST', `/runs/${run.id}/cancel`, undefined, 'run'],
      ['POST', `/runs/${run.id}/submit_tool_outputs`, outputs(), 'run'],
      ['GET', `/runs/${run.id}/steps`, undefined, 'run'],
      ['GET', `/runs/${run.id}/steps/${step.id}`, undefined, 'run'],
      ['POST', '/runs', { assistant_id: assistant.id }, 'assistant'],
    ]
    for (const [method, rest, body, kind] of ask) {
      const { id } = { message, run, assistant }[kind] ?? { id: '' }
      expect(refusal(await mine.send(method, `${within}${rest}`, body))).toEqual(
        refused(404, `No ${kind} found with id '${id}'.`),
      )
    }
    expect((await mine.get(`${within}/messages?after=${message.id}`)).status).toBe(400)
    expect((await mine.get(`${within}/runs?before=${run.id}`)).status).toBe(400)
    expect((await mine.read(`${within}/messages?run_id=${run.id}`)).data).toEqual([])
  })

  test('and nothing of all this has changed them', async () => {
    expect(await everything()).toEqual(before)
  })
})

test('the default project has none of the objects of others either', async () => {
  const admin = createCaller(server, 'an-admin-key-for-tests')
  expect((await admin.read('/assistants')).data).toEqual([])
  expect((await admin.get(`/threads/${thread.id}`)).status).toBe(404)
})

function everything() {
  return Promise.all(
    [
      `/assistants/${assistant.id}`,
      path(''),
      path('/messages'),
      path('/runs'),
      path(`/runs/${run.id}/steps`),
    ].map((one) => theirs.read(one)),
  )
}
