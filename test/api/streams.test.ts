import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'

import { call, fail, refuse, say, sayAndCall, silence, stallAfter } from '../support/model.ts'
import { checkEvents, parsed, postStream, runIdOf } from '../support/event-stream.ts'
import { startServer, type TestServer } from '../support/server.ts'
import { createCaller, refusal, type Body, type Caller } from './caller.ts'

let server: TestServer
let api: Caller
let assistantId: string
beforeAll(async () => {
  server = await startServer()
  api = createCaller(server)
  assistantId = (await api.make('/assistants', { model: 'm' })).id
})
afterAll(() => server[Symbol.asyncDispose]())
beforeEach(() => server.model.respond(() => say('Hello there.')))

const tools = [{ type: 'function', function: { name: 'weather' } }]
const begins = ['thread.run.created', 'thread.run.queued', 'thread.run.in_progress']
const step = ['thread.run.step.created', 'thread.run.step.in_progress']
const message = [
  ...step,
  'thread.message.created',
  'thread.message.in_progress',
  'thread.message.delta',
]
const completes = ['thread.message.completed', 'thread.run.step.completed']

describe('the events of a run', () => {
  test('whose thread is deleted end with an error, and not never', async () => {
    server.model.script(stallAfter(1, 'Hello there.'))
    const asked = server.model.called(server.model.calls + 1)
    const thread = (await api.make('/threads')).id
    const streaming = stream({}, thread)
    await server.model.tokensOut(await asked, 1)
    expect((await api.delete(`/threads/${thread}`)).status).toBe(200)
    const { names, frames } = await streaming
    expect(names.slice(-2)).toEqual(['error', 'done'])
    expect(frames.at(-2)?.data.error.message).toContain('its thread was deleted')
  })

  test.each(['is completed', 'is cancelled'])(
    'whose message is deleted while it is written have its end all the same, where the run %s',
    async (how) => {
      server.model.script(stallAfter(1, ['Hello ', 'there.']))
      const asked = server.model.called(server.model.calls + 1)
      const thread = (await api.make('/threads')).id
      const streaming = await postStream(`${server.baseUrl}/threads/${thread}/runs`, {
        assistant_id: assistantId,
      })
      const { data } = await streaming.saw('thread.message.delta')
      const { id } = JSON.parse(data) as Body
      expect((await api.delete(`/threads/${thread}/messages/${id}`)).status).toBe(200)
      if (how === 'is completed') (await asked).release()
      else await api.make(`/threads/${thread}/runs/${runIdOf(streaming)}/cancel`)
      expect(await streaming.ended).toBe('done')
      const { texts, runStatus } = await checkEvents(parsed(streaming.frames))
      expect(`is ${runStatus}`).toBe(how)
      expect(texts).toEqual([runStatus === 'completed' ? 'Hello there.' : 'Hello '])
      expect((await api.read(`/threads/${thread}/messages`)).data).toEqual([])
    },
  )

  test('that answers', async () => {
    const { names, last, text } = await stream()
    expect(names).toEqual([...begins, ...message, ...completes, 'thread.run.completed', 'done'])
    expect(last).toMatchObject({ object: 'thread.run', status: 'completed' })
    expect(text.endsWith('event: done\ndata: [DONE]\n\n')).toBe(true)
  })

  test('that brings its thread begin with the thread', async () => {
    const { names, frames } = await read('/threads/runs', { assistant_id: assistantId })
    expect(names.slice(0, 4)).toEqual(['thread.created', ...begins])
    expect(frames[0]?.data).toMatchObject({
      object: 'thread',
      id: frames[1]?.data['thread_id'],
    })
  })

  test('that asks for functions end there, and go on with the outputs', async () => {
    server.model.script(call({ name: 'weather', arguments: { at: 'A' } }))
    const asks = await stream({ tools })
    expect(asks.names).toEqual([
      ...begins,
      ...step,
      'thread.run.step.delta',
      'thread.run.requires_action',
      'done',
    ])
    const run = asks.last
    const goesOn = await submit(run)
    expect(goesOn.names).toEqual([
      'thread.run.step.completed',
      'thread.run.queued',
      'thread.run.in_progress',
      ...message,
      ...completes,
      'thread.run.completed',
      'done',
    ])
    expect(goesOn.frames[0]?.data).toMatchObject({
      status: 'completed',
      step_details: { tool_calls: [{ function: { name: 'weather', output: 'rain' } }] },
    })
  })

  test('that writes and then asks end the message first: clients know one open step at a time', async () => {
    server.model.script(sayAndCall('Let me see.', { name: 'weather', arguments: {} }))
    const { names, last } = await stream({ tools })
    expect(names).toEqual([
      ...begins,
      ...message,
      ...completes,
      ...step,
      'thread.run.step.delta',
      'thread.run.requires_action',
      'done',
    ])
    await api.make(`${pathOf(last)}/cancel`)
  })

  test('whose model refuses', async () => {
    server.model.script(refuse('No.'))
    const { names, frames } = await stream()
    expect(names).toEqual([...begins, ...message, ...completes, 'thread.run.completed', 'done'])
    const done = frames.find(({ event }) => event === 'thread.message.completed')
    expect(done?.data['content']).toEqual([{ type: 'refusal', refusal: 'No.' }])
  })

  test('that fails before its first word', async () => {
    server.model.script(fail(400, { message: 'No such thing.' }))
    const { names, last } = await stream()
    expect(names).toEqual([...begins, 'thread.run.failed', 'done'])
    expect(last).toMatchObject({ status: 'failed', last_error: { code: 'invalid_prompt' } })
  })

  test('that is cut short by its limit', async () => {
    server.model.script(say('Cut', { finishReason: 'length' }))
    const { names, last } = await stream()
    expect(names).toEqual([
      ...begins,
      ...message,
      'thread.message.incomplete',
      'thread.run.step.completed',
      'thread.run.incomplete',
      'done',
    ])
    expect(last).toMatchObject({ incomplete_details: { reason: 'max_completion_tokens' } })
  })

  test('that is cancelled while it writes', async () => {
    server.model.script(stallAfter(1, ['Half', ' of it']))
    const asked = server.model.called(server.model.calls + 1)
    const thread = await api.make('/threads')
    const streaming = stream({}, thread.id)
    await server.model.tokensOut(await asked, 1)
    const [run] = (await api.read(`/threads/${thread.id}/runs`)).data as [Body]
    await api.make(`${pathOf(run)}/cancel`)
    const { names, last } = await streaming
    expect(names.slice(0, 3)).toEqual(begins)
    expect(names).toContain('thread.run.cancelling')
    expect(names.slice(-2)).toEqual(['thread.run.cancelled', 'done'])
    const open = names.includes('thread.message.created')
    const closing = ['thread.message.incomplete', 'thread.run.step.cancelled']
    expect(names.filter((name) => closing.includes(name))).toEqual(open ? closing : [])
    expect(last).toMatchObject({ status: 'cancelled', expires_at: null })
  })
})

describe('a stream', () => {
  test('adds up to the message and the calls that are kept', async () => {
    const words = ['Grüße ', '🙂', '\n', '"quoted"', ' {"json": 1}']
    server.model.script(say(words))
    const { frames, last } = await stream()
    const pieces = frames
      .filter(({ event }) => event === 'thread.message.delta')
      .map(({ data }) => textOf((data['delta'] as Body)['content']))
    expect(pieces.join('')).toBe(words.join(''))
    const { data } = await api.read(`/threads/${String(last['thread_id'])}/messages`)
    expect(textOf(data[0]?.['content'])).toBe(words.join(''))
    // A read of the run alone tells more, and all of what the stream told.
    expect(await api.read(pathOf(last))).toMatchObject(last)
  })

  test('numbers its events without gaps', async () => {
    const { text } = await stream()
    const ids = [...text.matchAll(/^id: (\d+)$/gm)].map((match) => Number(match[1]))
    expect(ids.length).toBeGreaterThan(8)
    expect(ids).toEqual(ids.map((_, n) => n + 1))
  })

  test('that its reader leaves does not stop the run', async () => {
    server.model.script(stallAfter(1, 'Hello there.'))
    const asked = server.model.called(server.model.calls + 1)
    const thread = await api.make('/threads')
    const leave = new AbortController()
    const streaming = api
      .post(
        `/threads/${thread.id}/runs`,
        { assistant_id: assistantId, stream: true },
        { signal: leave.signal },
      )
      .catch((error: unknown) => error)
    const request = await server.model.tokensOut(await asked, 1)
    leave.abort()
    expect(await streaming).toMatchObject({ name: 'AbortError' })
    request.release()
    const [run] = (await api.read(`/threads/${thread.id}/runs`)).data as [Body]
    expect((await api.settled(thread.id, run.id))['status']).toBe('completed')
  })

  test('is not begun where the request is wrong: the answer is plain JSON', async () => {
    server.model.script(silence())
    const thread = await api.make('/threads')
    const asked = server.model.called(server.model.calls + 1)
    const run = await api.make(`/threads/${thread.id}/runs`, { assistant_id: assistantId })
    const request = await asked
    for (const [path, body, status] of [
      [`/threads/${thread.id}/runs`, { assistant_id: assistantId }, 400],
      [`/threads/${thread.id}/runs`, { assistant_id: 'asst_none', model: 7 }, 400],
      ['/threads/thread_none/runs', { assistant_id: assistantId }, 404],
      ['/threads/runs', { assistant_id: 'asst_none' }, 404],
      [`${pathOf(run)}/submit_tool_outputs`, { tool_outputs: [] }, 400],
    ] as const) {
      const answer = await api.post(path, { ...body, stream: true })
      expect(answer.headers.get('content-type')).toMatch(/^application\/json/)
      expect(refusal(answer)).toMatchObject({ status, type: 'invalid_request_error' })
    }
    request.release()
    await api.settled(thread.id, run.id)
  })
})

interface Frame {
  event: string
  data: Body
}

/** A run on a thread of its own, read to the end of its stream. */
async function stream(body: object = {}, threadId?: string) {
  const thread = threadId ?? (await api.make('/threads')).id
  return read(`/threads/${thread}/runs`, { assistant_id: assistantId, ...body })
}

function submit(run: Body) {
  const action = run['required_action'] as { submit_tool_outputs: { tool_calls: Body[] } }
  const { tool_calls: calls } = action.submit_tool_outputs
  return read(`${pathOf(run)}/submit_tool_outputs`, {
    tool_outputs: calls.map(({ id }) => ({ tool_call_id: id, output: 'rain' })),
  })
}

/** `names`: of the events, deltas that follow each other as one. `last`: the object of the last event before `done`. */
async function read(path: string, body: object) {
  const { text, headers } = await api.post(path, { ...body, stream: true })
  expect(headers.get('content-type')).toBe('text/event-stream; charset=utf-8')
  const frames = text
    .split('\n\n')
    .filter((frame) => frame.includes('event: '))
    .map((frame): Frame => {
      const event = /^event: (.*)$/m.exec(frame)?.[1] ?? ''
      const data = /^data: (.*)$/m.exec(frame)?.[1] ?? ''
      return { event, data: (event === 'done' ? {} : JSON.parse(data)) as Body }
    })
  const names = frames
    .map(({ event }) => event)
    .filter((event, n, all) => !event.endsWith('delta') || all[n - 1] !== event)
  return { text, frames, names, last: frames.at(-2)?.data as Body }
}

function pathOf(run: Body): string {
  return `/threads/${String(run['thread_id'])}/runs/${run.id}`
}

function textOf(content: unknown): string {
  return (content as { text: { value: string } }[]).map(({ text }) => text.value).join('')
}
