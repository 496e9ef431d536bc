import { afterAll, beforeAll, describe, expect, test } from 'vitest'

import {
  answersIn,
  lookUp,
  newThread,
  queryOnce,
  startCluster,
  textOf,
} from '../support/cluster.ts'
import { parsed, postStream } from '../support/event-stream.ts'
import { call, fail, say, stallAfter, type ModelRequest } from '../support/model.ts'
import { startServer, type TestServer } from '../support/server.ts'
import { MAX_WAITING_RUNS } from '../../wire/limits.ts'
import { createCaller, type Body, type Caller } from './caller.ts'

let server: TestServer
let api: Caller
beforeAll(async () => {
  server = await startServer()
  api = createCaller(server)
})
afterAll(() => server[Symbol.asyncDispose]())

interface Busy {
  threadId: string
  assistantId: string
  runId: string
  /** The call of the model that stands still until it is released. */
  request: ModelRequest
}

/** A thread whose run has written the first word of its answer and stands still. */
async function busyThread(assistant: object = {}): Promise<Busy> {
  const { model } = server
  const before = model.calls
  model.script(stallAfter(1, ['First ', 'answer.']))
  const made = await api.make('/assistants', { model: 'm', ...assistant })
  const run = await api.make('/threads/runs', {
    assistant_id: made.id,
    thread: { messages: [{ role: 'user', content: 'First?' }] },
  })
  const request = await model.called(before + 1)
  return { threadId: String(run['thread_id']), assistantId: made.id, runId: run.id, request }
}

function runsOf({ threadId }: Pick<Busy, 'threadId'>): string {
  return `/threads/${threadId}/runs`
}

async function askAgain(busy: Busy, body: object = {}, headers: Record<string, string> = {}) {
  return api.post(runsOf(busy), { assistant_id: busy.assistantId, ...body }, { headers })
}

async function settle(busy: Busy, run: Body): Promise<Body> {
  return api.settled(busy.threadId, run.id)
}

/** Roles and texts of the thread, oldest first. */
async function saidIn(threadId: string): Promise<string[]> {
  const list = await server.client.beta.threads.messages.list(threadId, {
    order: 'asc',
    limit: 100,
  })
  return list.data.map((message) => `${message.role}: ${textOf(message)}`)
}

function promptOf(request: ModelRequest | undefined): string[] {
  return (request?.body.messages ?? []).map(({ role, content }) => `${role}: ${String(content)}`)
}

describe('a run that comes while its thread is busy', () => {
  test('is rejected where nothing else is said, and so is a message', async () => {
    const busy = await busyThread()
    const { status, body } = await askAgain(busy)
    expect(status).toBe(400)
    expect(body.error.message).toBe(
      `Thread ${busy.threadId} already has an active run ${busy.runId}.`,
    )
    const message = { role: 'user', content: 'And?' }
    const refused = await api.post(`/threads/${busy.threadId}/messages`, message)
    expect(refused.status).toBe(400)
    expect(refused.body.error.message).toBe(
      `Can't add messages to ${busy.threadId} while a run ${busy.runId} is active.`,
    )
    busy.request.release()
    await settle(busy, { id: busy.runId } as Body)
  })

  test('waits in the order in which it came, and sees what was said before it', async () => {
    const busy = await busyThread()
    const { model } = server
    const before = model.calls
    const names = ['two', 'three', 'four', 'five', 'six']
    model.script(...names.map((name) => say(`Answer ${name}.`)))
    const waiting: Body[] = []
    for (const name of names) {
      const additional_messages = [{ role: 'user', content: `Question ${name}?` }]
      const { status, body } = await askAgain(busy, {
        on_active_run: 'enqueue',
        additional_messages,
      })
      expect(status).toBe(200)
      expect(body['status']).toBe('queued')
      waiting.push(body)
    }
    const positions = await Promise.all(
      waiting.map(async ({ id }) => (await api.read(`${runsOf(busy)}/${id}`))['longrun']),
    )
    expect(positions).toMatchObject(names.map((_, i) => ({ queue_position: i + 1 })))

    busy.request.release()
    for (const run of waiting) expect((await settle(busy, run))['status']).toBe('completed')
    expect(await saidIn(busy.threadId)).toEqual([
      'user: First?',
      'assistant: First answer.',
      ...names.flatMap((name) => [`user: Question ${name}?`, `assistant: Answer ${name}.`]),
    ])
    expect(promptOf(model.requests[before])).toEqual([
      'user: First?',
      'assistant: First answer.',
      'user: Question two?',
    ])
    expect(promptOf(model.requests[before + 4]).length).toBe(11)
  })

  test('keeps its own deadline from when it gets the thread', async () => {
    const busy = await busyThread()
    server.model.script(say('In time.'))
    const { body } = await askAgain(busy, { on_active_run: 'enqueue', expires_after_seconds: 2 })
    // Longer than it may live, by the database's clock and not by ours.
    await queryOnce(server.databaseUrl, 'SELECT pg_sleep(2.5)')
    expect((await api.read(`${runsOf(busy)}/${body.id}`))['status']).toBe('queued')
    busy.request.release()
    expect((await settle(busy, body))['status']).toBe('completed')
  })

  test('streams from its creation to its end', async () => {
    const busy = await busyThread()
    server.model.script(say('Streamed.'))
    const stream = await postStream(`${server.baseUrl}${runsOf(busy)}`, {
      assistant_id: busy.assistantId,
      on_active_run: 'enqueue',
    })
    await stream.saw('thread.run.queued')
    busy.request.release()
    expect(await stream.ended).toBe('done')
    const events = parsed(stream.frames).map(({ event }) => event)
    expect(events.slice(0, 3)).toEqual([
      'thread.run.created',
      'thread.run.queued',
      'thread.run.in_progress',
    ])
    expect(events).toContain('thread.run.completed')
  })

  test('can be cancelled while it waits, and leaves its turn to the next', async () => {
    const busy = await busyThread()
    const { model } = server
    model.script(say('Third.'))
    const second = (await askAgain(busy, { on_active_run: 'enqueue' })).body
    const third = (await askAgain(busy, { on_active_run: 'enqueue' })).body
    expect((await api.make(`${runsOf(busy)}/${second.id}/cancel`))['status']).toBe('cancelling')
    expect((await api.read(`${runsOf(busy)}/${second.id}`))['status']).toBe('cancelled')
    expect((await api.read(`${runsOf(busy)}/${busy.runId}`))['status']).toBe('in_progress')
    busy.request.release()
    expect((await settle(busy, third))['status']).toBe('completed')
    expect(await answersIn(server.client, busy.threadId)).toEqual(['First answer.', 'Third.'])
  })

  test('gets the thread of a run that is cancelled or expires', async () => {
    for (const end of ['cancelled', 'expired'] as const) {
      const busy = await busyThread()
      server.model.script(say('Next.'))
      const { body } = await askAgain(busy, { on_active_run: 'enqueue' })
      if (end === 'cancelled') await api.make(`${runsOf(busy)}/${busy.runId}/cancel`)
      else {
        // What the clock would do in ten minutes.
        const sql = `UPDATE runs SET expires_at = now() - interval '1 minute' WHERE id = $1`
        await queryOnce(server.databaseUrl, sql, [busy.runId])
      }
      expect((await settle(busy, body))['status']).toBe('completed')
      expect((await api.read(`${runsOf(busy)}/${busy.runId}`))['status']).toBe(end)
      busy.request.release()
    }
  })

  test('gets the thread of a run that fails', async () => {
    const { model } = server
    const gate = Promise.withResolvers<void>()
    const before = model.calls
    model.respond(async (_, n) => {
      if (n > before + 1) return say('Next.')
      await gate.promise
      return fail(400, { message: 'No.', type: 'invalid_request_error' })
    })
    const { id } = await api.make('/assistants', { model: 'm' })
    const first = await api.make('/threads/runs', { assistant_id: id })
    await model.called(before + 1)
    const path = `/threads/${String(first['thread_id'])}/runs`
    const next = await api.make(path, { assistant_id: id, on_active_run: 'enqueue' })
    gate.resolve()
    expect((await api.settled(first['thread_id'], next.id))['status']).toBe('completed')
    expect((await api.read(`${path}/${first.id}`))['status']).toBe('failed')
  })

  test('waits for a run that waits for its client', async () => {
    server.model.script(call({ name: 'look_up', arguments: {} }))
    const { threadId, assistantId } = await newThread(server.client, 'What?', [lookUp])
    const { runs } = server.client.beta.threads
    const parked = await runs.createAndPoll(threadId, { assistant_id: assistantId })
    const next = await api.make(`/threads/${threadId}/runs`, {
      assistant_id: assistantId,
      on_active_run: 'enqueue',
    })
    expect((await api.read(`/threads/${threadId}/runs/${next.id}?wait=1`))['status']).toBe('queued')
    server.model.script(say('It is this.'), say('And that.'))
    const calls = parked.required_action?.submit_tool_outputs.tool_calls ?? []
    await runs.submitToolOutputsAndPoll(parked.id, {
      thread_id: threadId,
      tool_outputs: calls.map(({ id }) => ({ tool_call_id: id, output: '1' })),
    })
    expect((await api.settled(threadId, next.id))['status']).toBe('completed')
    expect(await answersIn(server.client, threadId)).toEqual(['It is this.', 'And that.'])
  })

  test('interrupts what is before it where it asks for that; what was written stays', async () => {
    const busy = await busyThread()
    const { model } = server
    await expect.poll(() => answersWritten(busy), { timeout: 20_000 }).toBe(1)
    const waiting = (await askAgain(busy, { on_active_run: 'enqueue' })).body
    model.script(say('Instead.'))
    const additional_messages = [{ role: 'user', content: 'Stop, this!' }]
    const { body } = await askAgain(busy, { on_active_run: 'interrupt', additional_messages })
    expect((await settle(busy, body))['status']).toBe('completed')
    expect(await busy.request.closed).toBe('closed by the client')
    expect((await api.read(`${runsOf(busy)}/${busy.runId}`))['status']).toBe('cancelled')
    expect((await api.read(`${runsOf(busy)}/${waiting.id}`))['status']).toBe('cancelled')
    expect(await saidIn(busy.threadId)).toEqual([
      'user: First?',
      'assistant: First ',
      'user: Stop, this!',
      'assistant: Instead.',
    ])
  })

  test('rolls back what is before it where it asks for that', async () => {
    const busy = await busyThread()
    const { model } = server
    await expect.poll(() => answersWritten(busy), { timeout: 20_000 }).toBe(1)
    const additional_messages = [{ role: 'user', content: 'Never asked.' }]
    await askAgain(busy, { on_active_run: 'enqueue', additional_messages })
    const before = model.calls
    model.script(say('Anew.'))
    const { body } = await askAgain(busy, { on_active_run: 'rollback' })
    expect((await settle(busy, body))['status']).toBe('completed')
    expect(await saidIn(busy.threadId)).toEqual(['user: First?', 'assistant: Anew.'])
    expect(promptOf(model.requests[before])).toEqual(['user: First?'])
  })

  test('takes a parked thread at once when it interrupts', async () => {
    server.model.script(call({ name: 'look_up', arguments: {} }), say('Here.'))
    const { threadId, assistantId } = await newThread(server.client, 'What?', [lookUp])
    const { runs } = server.client.beta.threads
    const parked = await runs.createAndPoll(threadId, { assistant_id: assistantId })
    const next = await api.make(`/threads/${threadId}/runs`, {
      assistant_id: assistantId,
      on_active_run: 'interrupt',
    })
    expect((await api.settled(threadId, next.id))['status']).toBe('completed')
    expect((await api.read(`/threads/${threadId}/runs/${parked.id}`))['status']).toBe('cancelled')
  })
})

/** How many answers clients can see being written. */
async function answersWritten(busy: Busy): Promise<number> {
  const rows = await queryOnce(
    server.databaseUrl,
    `SELECT FROM run_events WHERE run_id = $1 AND event = 'thread.message.delta'`,
    [busy.runId],
  )
  return rows.length
}

describe('who says what is done', () => {
  const header = (mode: string) => ({ 'longrun-on-active-run': mode })

  test('the body before the header, the header before the assistant, it before the project', async () => {
    const { projectId } = await projectOf()
    await queryOnce(
      server.databaseUrl,
      `UPDATE projects SET on_active_run = 'enqueue' WHERE id = $1`,
      [projectId],
    )
    try {
      const busy = await busyThread({ on_active_run: 'reject' })
      expect((await askAgain(busy)).status).toBe(400)
      expect((await askAgain(busy, {}, header('enqueue'))).status).toBe(200)
      expect((await askAgain(busy, { on_active_run: 'reject' }, header('enqueue'))).status).toBe(
        400,
      )
      expect((await askAgain(busy, { on_active_run: 'enqueue' }, header('reject'))).status).toBe(
        200,
      )
      const plain = await api.make('/assistants', { model: 'm' })
      const byProject = await askAgain({ ...busy, assistantId: plain.id })
      expect(byProject.status).toBe(200)
      server.model.script(say('a'), say('b'), say('c'))
      busy.request.release()
      expect((await settle(busy, byProject.body))['status']).toBe('completed')
    } finally {
      await queryOnce(server.databaseUrl, 'UPDATE projects SET on_active_run = NULL')
    }
  })

  test('a word that is none is refused, in the body and in the header', async () => {
    const busy = await busyThread()
    const inBody = await askAgain(busy, { on_active_run: 'later' })
    expect(inBody.status).toBe(400)
    expect(inBody.body.error.param).toBe('on_active_run')
    const inHeader = await askAgain(busy, {}, header('later'))
    expect(inHeader.status).toBe(400)
    expect(inHeader.body.error.message).toContain("Invalid value: 'later'.")
    busy.request.release()
    await settle(busy, { id: busy.runId } as Body)
  })

  test('an assistant shows what it was told, and takes it back', async () => {
    const made = await api.make('/assistants', { model: 'm', on_active_run: 'enqueue' })
    expect(made['longrun']).toEqual({ on_active_run: 'enqueue', fallback_models: [] })
    const changed = await api.make(`/assistants/${made.id}`, { on_active_run: null })
    expect(changed).not.toHaveProperty('longrun')
  })

  test('a project says how long its runs live', async () => {
    await queryOnce(server.databaseUrl, 'UPDATE projects SET run_expires_after_s = 86400')
    try {
      server.model.script(say('a'), say('b'))
      const { id } = await api.make('/assistants', { model: 'm' })
      const long = await api.make('/threads/runs', { assistant_id: id })
      expect(Number(long['expires_at']) - Number(long['created_at'])).toBe(86_400)
      const short = await api.make('/threads/runs', { assistant_id: id, expires_after_seconds: 60 })
      expect(Number(short['expires_at']) - Number(short['created_at'])).toBe(60)
      await api.settled(long['thread_id'], long.id)
      await api.settled(short['thread_id'], short.id)
    } finally {
      await queryOnce(server.databaseUrl, 'UPDATE projects SET run_expires_after_s = NULL')
    }
  })

  async function projectOf(): Promise<{ projectId: string }> {
    const { headers } = await api.get('/assistants')
    return { projectId: headers.get('openai-project') ?? '' }
  }
})

describe('messages of a busy thread', () => {
  test('that are enqueued are not seen by the run at work, and stand after its answer', async () => {
    const { model } = server
    model.script(call({ name: 'look_up', arguments: {} }))
    const { threadId, assistantId } = await newThread(server.client, 'What?', [lookUp])
    const { runs } = server.client.beta.threads
    const parked = await runs.createAndPoll(threadId, { assistant_id: assistantId })
    const before = model.calls
    const held = await api.post(
      `/threads/${threadId}/messages`,
      { role: 'user', content: 'By the way!' },
      { headers: { 'longrun-on-active-run': 'enqueue' } },
    )
    expect(held.status).toBe(200)
    expect(await saidIn(threadId)).toEqual(['user: What?', 'user: By the way!'])

    model.script(say('It is this.'))
    const calls = parked.required_action?.submit_tool_outputs.tool_calls ?? []
    await runs.submitToolOutputsAndPoll(parked.id, {
      thread_id: threadId,
      tool_outputs: calls.map(({ id }) => ({ tool_call_id: id, output: '1' })),
    })
    expect(model.requests[before]?.prompt).not.toContain('By the way!')
    expect(await saidIn(threadId)).toEqual([
      'user: What?',
      'assistant: It is this.',
      'user: By the way!',
    ])
    const found = await api.read(`/threads/${threadId}/messages/${held.body.id}`)
    expect(found.id).toBe(held.body.id)
  })

  test('are seen by the run that was asked for after them, and not by one before', async () => {
    const busy = await busyThread()
    const { model } = server
    const before = model.calls
    const headers = { 'longrun-on-active-run': 'enqueue' }
    const messages = `/threads/${busy.threadId}/messages`
    await api.post(messages, { role: 'user', content: 'Second?' }, { headers })
    const second = (await askAgain(busy, {}, headers)).body
    await api.post(messages, { role: 'user', content: 'Third?' }, { headers })
    const third = (await askAgain(busy, {}, headers)).body
    model.script(say('Second.'), say('Third.'))
    busy.request.release()
    await settle(busy, second)
    expect((await settle(busy, third))['status']).toBe('completed')
    expect(promptOf(model.requests[before])).toEqual([
      'user: First?',
      'assistant: First answer.',
      'user: Second?',
    ])
    expect(await saidIn(busy.threadId)).toEqual([
      'user: First?',
      'assistant: First answer.',
      'user: Second?',
      'assistant: Second.',
      'user: Third?',
      'assistant: Third.',
    ])
  })
})

describe('a message for a busy thread', () => {
  const header = (mode: string) => ({ headers: { 'longrun-on-active-run': mode } })
  const stop = { role: 'user', content: 'Stop, this!' }
  const messagesOf = ({ threadId }: Busy): string => `/threads/${threadId}/messages`

  test('is received as its header says, or the assistant of the run at work, or the project', async () => {
    const reject = await busyThread({ on_active_run: 'reject' })
    const enqueue = await busyThread({ on_active_run: 'enqueue' })
    const plain = await busyThread()
    expect((await api.post(messagesOf(enqueue), stop)).status).toBe(200)
    expect((await api.post(messagesOf(enqueue), stop, header('reject'))).status).toBe(400)
    expect((await api.post(messagesOf(reject), stop, header('enqueue'))).status).toBe(200)
    expect((await api.post(messagesOf(plain), stop)).status).toBe(400)
    await queryOnce(server.databaseUrl, `UPDATE projects SET on_active_run = 'enqueue'`)
    try {
      expect((await api.post(messagesOf(plain), stop)).status).toBe(200)
      expect((await api.post(messagesOf(reject), stop)).status).toBe(400)
    } finally {
      await queryOnce(server.databaseUrl, 'UPDATE projects SET on_active_run = NULL')
    }
    for (const busy of [reject, enqueue, plain]) {
      busy.request.release()
      expect((await settle(busy, { id: busy.runId } as Body))['status']).toBe('completed')
      expect((await saidIn(busy.threadId)).slice(0, 3)).toEqual([
        'user: First?',
        'assistant: First answer.',
        'user: Stop, this!',
      ])
    }
  })

  test('interrupts the run at work and those that wait, and follows what was written', async () => {
    const busy = await busyThread()
    await expect.poll(() => answersWritten(busy), { timeout: 20_000 }).toBe(1)
    const waiting = (await askAgain(busy, { on_active_run: 'enqueue' })).body
    const { calls } = server.model
    expect((await api.post(messagesOf(busy), stop, header('interrupt'))).status).toBe(200)
    expect((await settle(busy, { id: busy.runId } as Body))['status']).toBe('cancelled')
    expect((await settle(busy, waiting))['status']).toBe('cancelled')
    expect(await busy.request.closed).toBe('closed by the client')
    expect(await saidIn(busy.threadId)).toEqual([
      'user: First?',
      'assistant: First ',
      'user: Stop, this!',
    ])
    expect(server.model.calls).toBe(calls)
  })

  test('rolls back what is before it', async () => {
    const busy = await busyThread({ on_active_run: 'rollback' })
    await expect.poll(() => answersWritten(busy), { timeout: 20_000 }).toBe(1)
    const additional_messages = [{ role: 'user', content: 'Never asked.' }]
    await askAgain(busy, { on_active_run: 'enqueue', additional_messages })
    expect((await api.post(messagesOf(busy), stop)).status).toBe(200)
    expect((await settle(busy, { id: busy.runId } as Body))['status']).toBe('cancelled')
    expect(await saidIn(busy.threadId)).toEqual(['user: First?', 'user: Stop, this!'])
  })

  test('ends a run that waits for its client at once', async () => {
    server.model.script(call({ name: 'look_up', arguments: {} }))
    const { threadId, assistantId } = await newThread(server.client, 'What?', [lookUp])
    const { runs } = server.client.beta.threads
    const parked = await runs.createAndPoll(threadId, { assistant_id: assistantId })
    const path = `/threads/${threadId}/messages`
    expect((await api.post(path, stop, header('interrupt'))).status).toBe(200)
    expect((await api.read(`/threads/${threadId}/runs/${parked.id}`))['status']).toBe('cancelled')
    expect((await api.post(path, stop)).status).toBe(200)
    expect(await queryOnce(server.databaseUrl, 'SELECT 1 FROM messages WHERE held')).toEqual([])
  })
})

test('so many runs may wait for a thread and no more, and an interrupt makes room', async () => {
  const busy = await busyThread()
  const ask = async (mode: string) => askAgain(busy, { on_active_run: mode })
  const waiting = await Promise.all(
    Array.from({ length: MAX_WAITING_RUNS + 5 }, () => ask('enqueue')),
  )
  const refused = waiting.filter(({ status }) => status !== 200)
  expect(refused).toHaveLength(5)
  for (const { status, body } of refused) {
    expect(status).toBe(400)
    expect(body.error.code).toBe('too_many_waiting_runs')
    expect(body.error.message).toContain(busy.threadId)
    expect(body.error.message).toContain(String(MAX_WAITING_RUNS))
  }
  // Messages wait for no turn, and are not in its way.
  const message = { role: 'user', content: 'And?' }
  const headers = { 'longrun-on-active-run': 'enqueue' }
  expect((await api.post(`/threads/${busy.threadId}/messages`, message, { headers })).status).toBe(
    200,
  )
  server.model.script(say('Instead.'))
  const { status, body } = await ask('interrupt')
  expect(status).toBe(200)
  expect((await settle(busy, body))['status']).toBe('completed')
  const left = await queryOnce(
    server.databaseUrl,
    `SELECT DISTINCT status FROM runs WHERE thread_id = $1 AND id <> $2`,
    [busy.threadId, body.id],
  )
  expect(left).toEqual([{ status: 'cancelled' }])
})

test('of twenty runs that are asked for at once one is at work at a time, and all end', async () => {
  const { model } = server
  let atWork = 0
  let most = 0
  model.respond((request) => {
    atWork += 1
    most = Math.max(most, atWork)
    void request.closed.then(() => (atWork -= 1))
    return say('Done.')
  })
  const { id } = await api.make('/assistants', { model: 'm', on_active_run: 'enqueue' })
  const thread = await api.make('/threads')
  const made = await Promise.all(
    Array.from({ length: 20 }, () => api.make(`/threads/${thread.id}/runs`, { assistant_id: id })),
  )
  const ended = await Promise.all(made.map((run) => api.settled(thread.id, run.id)))
  expect(ended.map((run) => run['status'])).toEqual(Array(20).fill('completed'))
  expect(most).toBe(1)
  expect((await answersIn(server.client, thread.id)).length).toBe(20)
  expect(await queryOnce(server.databaseUrl, 'SELECT 1 FROM messages WHERE held')).toEqual([])
})

test('runs wait while the worker is killed and replaced', async () => {
  await using cluster = await startCluster()
  const { client } = await cluster.spawn('api')
  const worker = await cluster.spawn('worker', 'first')
  const { threadId, assistantId } = await newThread(client)
  cluster.model.script(stallAfter(1, ['Lost ', 'text.']))
  const first = await client.beta.threads.runs.create(threadId, { assistant_id: assistantId })
  await cluster.model.called(1)
  const waiting = await client.beta.threads.runs.create(
    threadId,
    { assistant_id: assistantId },
    { headers: { 'Longrun-On-Active-Run': 'enqueue' } },
  )
  await worker.kill('SIGKILL')
  cluster.model.script(say('First.'), say('Second.'))
  await cluster.spawn('worker', 'second')
  const { runs } = client.beta.threads
  expect((await runs.poll(first.id, { thread_id: threadId })).status).toBe('completed')
  expect((await runs.poll(waiting.id, { thread_id: threadId })).status).toBe('completed')
  expect(await answersIn(client, threadId)).toEqual(['First.', 'Second.'])
})
