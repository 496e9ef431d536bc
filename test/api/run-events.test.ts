import { get, type ClientRequest, type IncomingMessage } from 'node:http'
import { text } from 'node:stream/consumers'

import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'

import { createLogger } from '../../log.ts'
import { openStore } from '../../store/index.ts'
import { deltaEvent } from '../../wire/deltas.ts'
import { queryOnce } from '../support/cluster.ts'
import { checkEvents, parsed, postStream, runIdOf, type Frame } from '../support/event-stream.ts'
import { call, say, stallAfter } from '../support/model.ts'
import { startServer, type TestServer } from '../support/server.ts'
import { createCaller, refusal, refused, type Body, type Caller } from './caller.ts'

let server: TestServer
let api: Caller
let assistantId: string
beforeAll(async () => {
  server = await startServer()
  api = createCaller(server)
  assistantId = (await api.make('/assistants', { model: 'm' })).id
})
afterAll(() => server[Symbol.asyncDispose]())
beforeEach(() => server.model.respond(() => say(['One ', 'two ', 'three.'])))

const tools = [{ type: 'function', function: { name: 'weather' } }]

const v2 = { authorization: 'Bearer any', 'openai-beta': 'assistants=v2' }

function answered(request: ClientRequest): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => request.on('response', resolve).on('error', reject))
}

/** As another process has it. */
function ownStore() {
  return openStore({
    databaseUrl: server.databaseUrl,
    log: createLogger('error'),
    maxConnections: 2,
  })
}

async function streamed(body: object = {}) {
  const { id: threadId } = await api.make('/threads')
  const stream = await postStream(`${server.baseUrl}/threads/${threadId}/runs`, {
    assistant_id: assistantId,
    ...body,
  })
  await stream.saw('thread.run.created')
  return { stream, threadId, path: `/threads/${threadId}/runs/${runIdOf(stream)}` }
}

/** What the client has that never lost its connection. */
async function wholeRun(body: object = {}) {
  const { stream, ...rest } = await streamed(body)
  expect(await stream.ended).toBe('done')
  return { ...rest, frames: stream.frames, text: textOf(stream.frames) }
}

function textOf(frames: Frame[]): string {
  const lines = frames.map(
    ({ seq, event, data }) => `id: ${seq}\nevent: ${event}\ndata: ${data}\n\n`,
  )
  return `${lines.join('')}event: done\ndata: [DONE]\n\n`
}

test('a run that is over is told again from wherever its client lost it', async () => {
  const { path, frames, text } = await wholeRun()
  expect((await api.get(`${path}/events`)).text).toBe(text)
  for (let after = 0; after <= frames.length; after += 1) {
    const rest = textOf(frames.slice(after))
    expect((await api.get(`${path}/events?after=${after}`)).text).toBe(rest)
    const headers = { 'last-event-id': String(after) }
    expect((await api.get(`${path}/events?after=0`, { headers })).text).toBe(rest)
  }
})

test('a run that is being written is followed by any number of watchers, from any place', async () => {
  server.model.script(stallAfter(2, ['One ', 'two ', 'three.']))
  const { stream, path } = await streamed()
  await stream.saw('thread.message.delta')
  const watchers = [0, 1, 4, 7].map(async (after) => ({
    after,
    text: (await api.get(`${path}/events?after=${after}`)).text,
  }))
  const [request] = server.model.requests.slice(-1)
  request?.release()
  expect(await stream.ended).toBe('done')
  for (const { after, text } of await Promise.all(watchers)) {
    expect(text).toBe(textOf(stream.frames.slice(after)))
  }
})

test('a run that waits for its client is resumed up to there, and from there on goes on with the outputs', async () => {
  server.model.script(call({ name: 'weather', arguments: {} }))
  const { path, frames, text } = await wholeRun({ tools })
  expect(frames.at(-1)?.event).toBe('thread.run.requires_action')
  expect((await api.get(`${path}/events?after=2`)).text).toBe(textOf(frames.slice(2)))
  expect((await api.get(`${path}/events`)).text).toBe(text)

  const parked = api.get(`${path}/events?after=${frames.length}`)
  const run = JSON.parse(frames.at(-1)?.data ?? '') as Body
  const action = run['required_action'] as { submit_tool_outputs: { tool_calls: { id: string }[] } }
  const rest = await postStream(`${server.baseUrl}${path}/submit_tool_outputs`, {
    tool_outputs: action.submit_tool_outputs.tool_calls.map(({ id }) => ({
      tool_call_id: id,
      output: 'rain',
    })),
  })
  expect(await rest.ended).toBe('done')
  expect((await parked).text).toBe(textOf(rest.frames))
  // All of it, in the two parts that the requests had.
  expect((await api.get(`${path}/events?after=${frames.length}`)).text).toBe(textOf(rest.frames))
})

test('the answer begins at once where nothing is to be said for long', async () => {
  server.model.script(call({ name: 'weather', arguments: {} }))
  const { path, frames } = await wholeRun({ tools })
  const answer = await fetch(`${server.baseUrl}${path}/events?after=${frames.length}`, {
    headers: v2,
  })
  // The headers came alone: a ping would be in the text.
  await api.make(`${path}/cancel`)
  expect(await answer.text()).toMatch(/^id: \d+\nevent: thread.run./)
})

test('a client that reads nothing until the run is over has all of it then', async () => {
  server.model.script(stallAfter(1, ['One ', 'two.']))
  const { stream, path } = await streamed()
  await stream.saw('thread.message.delta')
  const slow = await answered(get(`${server.baseUrl}${path}/events`, { headers: v2, agent: false }))
  await using store = await ownStore()
  const runId = path.split('/').at(-1) ?? ''
  // 30 MB: more than the kernel's buffers, ours, and what a follower keeps.
  const { id } = JSON.parse((await stream.saw('thread.message.created')).data) as Body
  const large = { of: 'message', id, index: 0, type: 'text', text: 'x'.repeat(300_000) } as const
  for (let n = 0; n < 100; n += 1) {
    await store.db.tx((tx) =>
      store.events.append(tx, runId, [deltaEvent({ ...large, first: false })]),
    )
  }
  server.model.requests.at(-1)?.release()
  expect(await stream.ended).toBe('done')
  expect(stream.frames).toHaveLength(stream.frames.at(-1)?.seq ?? 0)
  expect((await text(slow)) === textOf(stream.frames), 'all that was written').toBe(true)
})

test('a run whose thread is deleted meanwhile says so', async () => {
  server.model.script(stallAfter(1, ['One ', 'two.']))
  const { stream, path, threadId } = await streamed()
  await stream.saw('thread.message.delta')
  const watching = api.get(`${path}/events`)
  await api.delete(`/threads/${threadId}`)
  expect((await watching).text).toContain('its thread was deleted')
  expect((await api.get(`${path}/events`)).status).toBe(404)
})

test('a place that cannot be is refused', async () => {
  const { path, frames } = await wholeRun()
  const beyond = await api.get(`${path}/events?after=${frames.length + 1}`)
  const message = `Invalid value for 'after': the newest event of this run is ${frames.length}.`
  expect(refusal(beyond)).toEqual(refused(400, message, 'after'))
  for (const query of ['after=-1', 'after=x', 'after=1.5', 'afterwards=1']) {
    expect((await api.get(`${path}/events?${query}`)).status).toBe(400)
  }
  const headers = { 'last-event-id': 'last' }
  expect((await api.get(`${path}/events`, { headers })).status).toBe(400)
  expect((await api.get('/threads/thread_none/runs/run_none/events')).status).toBe(404)
  const other = await api.make('/threads')
  const elsewhere = path.replace(/thread_\w+/, other.id)
  expect((await api.get(`${elsewhere}/events`)).status).toBe(404)
})

test('the events of v1 are resumed in the words of v1', async () => {
  const v1 = createCaller(server, 'any', 'v1')
  const { path } = await wholeRun()
  const { text } = await v1.get(`${path}/events?after=2`)
  expect(text).toContain('"file_ids":[]')
  expect(text).not.toContain('"attachments"')
  expect(text.endsWith('event: done\ndata: [DONE]\n\n')).toBe(true)
})

test('where deltas have been removed a snapshot stands for what is missing, and for all after a day', async () => {
  await using store = await ownStore()
  const { path, frames } = await wholeRun()
  const { path: young, text: youngText } = await wholeRun()
  const runId = path.split('/').at(-1)
  const end = (ago: string) =>
    queryOnce(
      server.databaseUrl,
      'UPDATE run_streams SET closed_at = now() - $2::interval WHERE run_id = $1',
      [runId, ago],
    )
  await end('11 minutes')
  await store.eventRetention.prune()
  const firstDelta = frames.findIndex(({ event }) => event.endsWith('.delta'))
  const afterDeltas = frames.findLastIndex(({ event }) => event.endsWith('.delta')) + 1
  // Nothing is missing for whoever had them all.
  expect((await api.get(`${path}/events?after=${afterDeltas}`)).text).toBe(
    textOf(frames.slice(afterDeltas)),
  )
  const { data: messages } = await api.read(`${path.replace(/\/runs.*/, '')}/messages`)
  const { data: steps } = await api.read(`${path}/steps`)
  const run = await api.read(path)
  for (const after of [0, firstDelta]) {
    const { text } = await api.get(`${path}/events?after=${after}`)
    const kept = textOf(frames.slice(after, firstDelta)).replace(/event: done[^]*/, '')
    expect(text.startsWith(kept)).toBe(true)
    const [frame = '', ...rest] = text.slice(kept.length).split(/(?<=\n\n)/)
    // Whoever comes back with its id goes on behind what is missing.
    expect(frame.startsWith(`id: ${afterDeltas}\nevent: snapshot\ndata: {`)).toBe(true)
    const snapshot = JSON.parse(/^data: (.*)$/m.exec(frame)?.[1] ?? '') as object
    expect(snapshot).toMatchObject({
      object: 'thread.run.snapshot',
      run: { id: run.id, status: 'completed', usage: run['usage'] },
      steps,
      messages,
    })
    expect(rest.join('')).toBe(textOf(frames.slice(afterDeltas)))
  }

  await end('25 hours')
  await store.eventRetention.prune()
  const left = 'SELECT seq FROM run_events WHERE run_id = $1'
  expect(await queryOnce(server.databaseUrl, left, [runId])).toEqual([])
  const { text } = await api.get(`${path}/events?after=3`)
  const only = new RegExp(
    `^id: ${frames.length}\nevent: snapshot\ndata: .*\n\nevent: done\n.*\n\n$`,
  )
  expect(text).toMatch(only)
  const whole = await api.get(`${path}/events?after=${frames.length}`)
  expect(whole.text).toBe('event: done\ndata: [DONE]\n\n')
  // One that has ended just now keeps all.
  expect((await api.get(`${young}/events`)).text).toBe(youngText)
})

test('a POST that is answered again has no silent hole either', async () => {
  await using store = await ownStore()
  const { id: threadId } = await api.make('/threads')
  const post = () =>
    api.post(
      `/threads/${threadId}/runs`,
      { assistant_id: assistantId, stream: true },
      { headers: { 'idempotency-key': `pruned ${threadId}` } },
    )
  const { text: whole } = await post()
  const runId = /"id":"(run_\w+)"/.exec(whole)?.[1]
  const prune = async (ago: string) => {
    await queryOnce(
      server.databaseUrl,
      'UPDATE run_streams SET closed_at = now() - $2::interval WHERE run_id = $1',
      [runId, ago],
    )
    await store.eventRetention.prune()
  }
  await prune('11 minutes')
  const names = (text: string) => [...text.matchAll(/^event: (.*)$/gm)].map(([, name]) => name)
  const withSnapshot = names(whole)
    .map((name) => (name === 'thread.message.delta' ? 'snapshot' : name))
    .filter((name, n, all) => name !== 'snapshot' || all[n - 1] !== name)
  const { text } = await post()
  expect(names(text)).toEqual(withSnapshot)
  expect(text).toContain('One two three.')
  await prune('25 hours')
  expect(names((await post()).text)).toEqual(['snapshot', 'done'])
})

test('what is resumed keeps the rules of streams, joined to what was there before', async () => {
  const { path, frames } = await wholeRun()
  const cutAt = 8
  const rest = await fetch(`${server.baseUrl}${path}/events?after=${cutAt}`, {
    headers: v2,
  })
  expect(rest.headers.get('content-type')).toContain('text/event-stream')
  expect(rest.headers.get('x-accel-buffering')).toBe('no')
  expect(await rest.text()).toBe(textOf(frames.slice(cutAt)))
  expect((await checkEvents(parsed(frames))).runStatus).toBe('completed')
})
