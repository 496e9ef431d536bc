import { afterAll, beforeAll, expect, test } from 'vitest'

import { newThread, startCluster } from '../support/cluster.ts'
import {
  call,
  rateLimited,
  say,
  silence,
  stallAfter,
  unauthorized,
  type ModelRequest,
  type Step,
} from '../support/model.ts'
import { closeGate } from '../support/gate.ts'
import { ownTemporal } from '../support/own-parts.ts'
import { startServer, type TestServer } from '../support/server.ts'
import { createCaller, type Body, type Caller } from './caller.ts'

const patience = { timeout: 20_000 }
/** For tests that start processes, one after the other. */
const manyProcesses = { timeout: 180_000 }

let server: TestServer
let api: Caller
beforeAll(async () => {
  server = await startServer()
  api = createCaller(server)
})
afterAll(() => server[Symbol.asyncDispose]())

test('a run whose model is silent tells which model was asked, and since when', async () => {
  const { run, request } = await asking(silence())
  const { longrun, startedAt } = await inspect(run)
  expect(longrun).toMatchObject({
    turn: 1,
    attempt: 1,
    queue_position: null,
    activity: { type: 'asking_model', model: 'm', last_failure: null, text: 'm has been asked.' },
  })
  const { since } = longrun.activity ?? {}
  expect(since).toBeGreaterThanOrEqual(startedAt)
  expect(since).toBeLessThanOrEqual(Date.now() / 1000)
  request.release()
  await over(run)
})

test('a run whose model has begun to write says so', async () => {
  const { run, request } = await asking(stallAfter(1, ['Half ', 'of it.']))
  await expect
    .poll(async () => (await inspect(run)).longrun.activity, patience)
    .toMatchObject({ type: 'asking_model', model: 'm', text: 'm is writing.' })
  request.release()
  await over(run)
})

test('a run that waits before it asks again tells what the provider said, and when it asks', async () => {
  const askedAt = Date.now() / 1000
  const { run } = await asking(rateLimited({ seconds: 300 }))
  await expect
    .poll(async () => (await inspect(run)).longrun, patience)
    .toMatchObject({
      turn: 1,
      attempt: 1,
      activity: {
        type: 'waiting_to_retry',
        model: 'm',
        since: expect.any(Number),
        last_failure: expect.stringContaining('Rate limit reached for requests.'),
        text: expect.stringMatching(/Rate limit reached for requests\..*attempt 2/),
      },
    })
  const { activity } = (await inspect(run)).longrun
  const { retry_at: retryAt } = activity as { retry_at?: number }
  expect(retryAt).toBeGreaterThanOrEqual(askedAt + 300)
  expect(retryAt).toBeLessThanOrEqual(Math.ceil(Date.now() / 1000) + 300)
  const at = new Date(Number(retryAt) * 1000).toISOString().slice(0, 19)
  expect(activity?.text).toContain(`It is tried again at ${at}Z (attempt 2).`)
  await api.make(`${pathOf(run)}/cancel`)
  await over(run)
})

test('a run that has failed for good says nothing of another attempt', async () => {
  const end = { table: 'runs', at: 'update', when: "NEW.status = 'failed'" } as const
  await using gate = await closeGate(server.databaseUrl, end)
  const { run } = await asking(unauthorized())
  await gate.reached()
  expect((await inspect(run)).longrun).toMatchObject({
    activity: {
      type: 'waiting_for_worker',
      since: expect.any(Number),
      text: expect.stringMatching(/Incorrect API key provided\..* It is not tried again\.$/),
    },
    last_failure: expect.stringContaining('Incorrect API key provided.'),
  })
  await gate.open()
  await over(run)
})

test('a run that has expired tells why its model did not answer', async () => {
  server.model.script(rateLimited({ ms: 50 }))
  const { run } = await asking(silence(), 2, {}, { expires_after_seconds: 3 })
  expect(await over(run)).toMatchObject({ status: 'expired', last_error: null })
  expect((await inspect(run)).longrun).toMatchObject({
    activity: null,
    last_failure: expect.stringContaining('Rate limit reached for requests.'),
  })
})

test('a run whose model has answered in the end tells no failure', async () => {
  server.model.script(rateLimited({ ms: 50 }))
  const { run } = await asking(say('Hello.'), 2)
  expect(await over(run)).toMatchObject({ status: 'completed', longrun: { last_failure: null } })
})

test('a run that has asked again tells which attempt it is, and what went wrong before', async () => {
  server.model.script(rateLimited({ ms: 50 }))
  const { run, request } = await asking(silence(), 2)
  expect((await inspect(run)).longrun).toMatchObject({
    turn: 1,
    attempt: 2,
    activity: {
      type: 'asking_model',
      last_failure: expect.stringContaining('Rate limit reached for requests.'),
      text: expect.stringMatching(/^m has been asked \(attempt 2\)\. .*Rate limit reached/),
    },
  })
  request.release()
  await over(run)
})

test('a run that waits for tool outputs names the functions, and counts its turns', async () => {
  const step = call([
    { name: 'weather', arguments: {} },
    { name: 'clock', arguments: {} },
  ])
  const { run } = await asking(step, 1, {
    tools: ['weather', 'clock'].map((name) => ({ type: 'function', function: { name } })),
  })
  const waiting = await over(run)
  expect(waiting['status']).toBe('requires_action')
  expect((await inspect(run)).longrun).toMatchObject({
    turn: 1,
    attempt: 1,
    queue_position: null,
    activity: {
      type: 'waiting_for_tool_outputs',
      functions: ['weather', 'clock'],
      since: expect.any(Number),
      text: expect.stringContaining('weather, clock'),
    },
  })

  const before = server.model.calls
  server.model.script(silence())
  await api.make(`${pathOf(run)}/submit_tool_outputs`, { tool_outputs: outputsFor(waiting) })
  const request = await server.model.called(before + 1)
  expect((await inspect(run)).longrun).toMatchObject({
    turn: 2,
    attempt: 1,
    activity: { type: 'asking_model' },
  })
  request.release()
  await over(run)
})

test('a run that waits for the run before it names that run and its place in the queue', async () => {
  const { run: first, request } = await asking(silence())
  server.model.script(say('Second.'), say('Third.'))
  const enqueue = {
    assistant_id: String(first['assistant_id']),
    on_active_run: 'enqueue',
  }
  const runs = `/threads/${String(first['thread_id'])}/runs`
  const second = await api.make(runs, enqueue)
  const third = await api.make(runs, enqueue)
  expect((await inspect(second)).longrun).toEqual({
    ...(second['longrun'] as object),
    turn: null,
    attempt: null,
    queue_position: 1,
    activity: {
      type: 'waiting_for_thread',
      run_id: first.id,
      since: second['created_at'],
      text: expect.stringContaining(`run ${first.id}, which is in_progress`),
    },
    last_failure: null,
  })
  expect((await inspect(third)).longrun).toMatchObject({
    queue_position: 2,
    activity: { type: 'waiting_for_thread', run_id: second.id },
  })
  request.release()
  for (const run of [first, second, third]) expect((await over(run))['status']).toBe('completed')
})

test.each([
  ['completed', say('Hello.')],
  ['incomplete', say('Hel', { finishReason: 'length' })],
])('a run that is %s does nothing any more', async (status, step) => {
  const { run } = await asking(step)
  expect(await over(run)).toMatchObject({
    status,
    longrun: { turn: 1, attempt: 1, queue_position: null, activity: null },
  })
})

test('a list of runs, a create and a modify leave it out', async () => {
  const { run, request } = await asking(silence())
  const { data } = await api.read(`/threads/${String(run['thread_id'])}/runs`)
  const modified = await api.make(pathOf(run), { metadata: { a: '1' } })
  for (const shown of [run, modified, ...data]) {
    for (const key of ['turn', 'attempt', 'queue_position', 'activity', 'last_failure']) {
      expect(shown['longrun']).not.toHaveProperty(key)
    }
  }
  expect(data).toHaveLength(1)
  request.release()
  await over(run)
})

test(
  'a run waits for a worker while there is none, and is cancelling while its worker is gone',
  manyProcesses,
  async () => {
    await using cluster = await startCluster()
    const { client, baseUrl = '' } = await cluster.spawn('api')
    const { threadId, assistantId } = await newThread(client)
    const caller = createCaller({ baseUrl })
    const run = await caller.make(`/threads/${threadId}/runs`, { assistant_id: assistantId })
    await expect
      .poll(async () => (await inspect(run, caller)).longrun, patience)
      .toMatchObject({
        turn: null,
        attempt: null,
        queue_position: null,
        activity: { type: 'waiting_for_worker', since: expect.any(Number) },
      })

    cluster.model.script(silence())
    const worker = await cluster.spawn('worker')
    await cluster.model.called(1)
    await worker.kill('SIGKILL')
    expect(await caller.make(`${pathOf(run)}/cancel`)).toMatchObject({ status: 'cancelling' })
    expect((await inspect(run, caller)).longrun).toMatchObject({
      turn: 1,
      activity: { type: 'cancelling', since: expect.any(Number) },
    })
  },
)

test('a run waits for Temporal while that cannot be reached', manyProcesses, async () => {
  await using temporal = await ownTemporal()
  await using cluster = await startCluster({ temporalAddress: temporal.address })
  const { client, baseUrl = '' } = await cluster.spawn('api')
  const { threadId, assistantId } = await newThread(client)
  await temporal.stop()
  const caller = createCaller({ baseUrl })
  const run = await caller.make(`/threads/${threadId}/runs`, { assistant_id: assistantId })
  expect((await inspect(run, caller)).longrun).toMatchObject({
    turn: null,
    attempt: null,
    queue_position: null,
    activity: {
      type: 'waiting_for_temporal',
      since: expect.any(Number),
      text: 'Temporal has not taken it over yet.',
    },
  })
})

interface Inspected {
  startedAt: number
  longrun: {
    turn: number | null
    attempt: number | null
    queue_position: number | null
    activity: { type: string; since: number | null; text: string } | null
    last_failure: string | null
  }
}

/** A run of model `m`, once its model has been asked that often; `step` is what the last of them gets. */
async function asking(
  step: Step,
  times = 1,
  assistant: object = {},
  settings: object = {},
): Promise<{ run: Body; request: ModelRequest }> {
  const { model } = server
  const before = model.calls
  model.script(step)
  const { id } = await api.make('/assistants', { model: 'm', ...assistant })
  const run = await api.make('/threads/runs', { assistant_id: id, ...settings })
  return { run, request: await model.called(before + times) }
}

async function inspect(run: Body, caller = api): Promise<Inspected> {
  const { started_at: startedAt, longrun } = await caller.read(pathOf(run))
  return { startedAt: Number(startedAt), longrun: longrun as Inspected['longrun'] }
}

function over(run: Body): Promise<Body> {
  return api.settled(run['thread_id'], run.id)
}

function outputsFor({ required_action: action }: Body): object[] {
  const { submit_tool_outputs: asked } = action as { submit_tool_outputs: { tool_calls: Body[] } }
  return asked.tool_calls.map(({ id }) => ({ tool_call_id: id, output: 'rain' }))
}

function pathOf(run: Body): string {
  return `/threads/${String(run['thread_id'])}/runs/${run.id}`
}
