import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'

import { call, fail, refuse, say, sayAndCall, silence, stallAfter } from '../support/model.ts'
import { startServer, type TestServer } from '../support/server.ts'
import { createCaller, refusal, refused, type Body, type Caller } from './caller.ts'

let server: TestServer
let api: Caller
beforeAll(async () => {
  server = await startServer()
  api = createCaller(server)
})
afterAll(() => server[Symbol.asyncDispose]())
beforeEach(() => server.model.respond(() => say('Hello there.')))

const weather = { type: 'function', function: { name: 'weather', parameters: {} } }

test('a run answers on its thread', async () => {
  const { client } = server
  const assistant = await client.beta.assistants.create({ model: 'gpt-4o' })
  const run = await client.beta.threads.createAndRunPoll({
    assistant_id: assistant.id,
    thread: { messages: [{ role: 'user', content: 'Hi' }] },
  })
  expect(run.status).toBe('completed')
  const messages = await client.beta.threads.messages.list(run.thread_id)
  expect(messages.data.map(({ role }) => role)).toEqual(['assistant', 'user'])
})

describe('a run', () => {
  test('has every field when it is made, and when it is over', async () => {
    const { id: assistant_id } = await api.make('/assistants', { model: 'gpt-4o' })
    const { id: thread_id } = await api.make('/threads')
    server.model.script(say('Hello.', { usage: { promptTokens: 12, completionTokens: 3 } }))
    const made = await api.make(`/threads/${thread_id}/runs`, { assistant_id })
    const createdAt = Number(made['created_at'])
    expect(createdAt).toEqual(expect.closeTo(Date.now() / 1000, -4))
    expect(made).toEqual({
      id: expect.stringMatching(/^run_[0-9A-Za-z]{24}$/),
      object: 'thread.run',
      created_at: createdAt,
      assistant_id,
      thread_id,
      status: 'queued',
      started_at: null,
      expires_at: lifeOf(600, createdAt),
      cancelled_at: null,
      failed_at: null,
      completed_at: null,
      required_action: null,
      last_error: null,
      model: 'gpt-4o',
      instructions: null,
      tools: [],
      tool_resources: {},
      metadata: {},
      temperature: 1,
      top_p: 1,
      reasoning_effort: null,
      max_completion_tokens: null,
      max_prompt_tokens: null,
      truncation_strategy: { type: 'auto', last_messages: null },
      incomplete_details: null,
      usage: null,
      response_format: 'auto',
      tool_choice: 'auto',
      parallel_tool_calls: true,
      longrun: {
        cost: null,
        usage_estimated: false,
        context: null,
        max_steps: null,
        fallback_models: [],
      },
    })
    const over = await api.settled(thread_id, made.id)
    expect(over).toEqual({
      ...made,
      status: 'completed',
      started_at: expect.any(Number),
      completed_at: expect.any(Number),
      expires_at: null,
      usage: {
        prompt_tokens: 12,
        completion_tokens: 3,
        total_tokens: 15,
        prompt_token_details: { cached_tokens: 0 },
        completion_tokens_details: { reasoning_tokens: 0 },
      },
      longrun: {
        ...(made['longrun'] as object),
        turn: 1,
        attempt: 1,
        queue_position: null,
        activity: null,
        last_failure: null,
      },
    })
  })

  test('takes what it does not say from its assistant', async () => {
    const settings = {
      model: 'o3-mini',
      instructions: 'Be brief.',
      tools: [{ type: 'function', function: { ...weather.function, strict: false } }],
      temperature: 0.3,
      top_p: 0.4,
      reasoning_effort: 'low',
      response_format: { type: 'json_object' },
    }
    const assistant = await api.make('/assistants', settings)
    const nulls = Object.fromEntries(Object.keys(settings).map((key) => [key, null]))
    for (const own of [{}, nulls]) {
      const run = await api.make('/threads/runs', { assistant_id: assistant.id, ...own })
      expect(run).toMatchObject(settings)
      await api.settled(run['thread_id'], run.id)
    }
  })

  test('may say that there are no instructions', async () => {
    const assistant = await api.make('/assistants', { model: 'a', instructions: 'A.' })
    for (const [additional_instructions, told] of [
      [null, null],
      ['B.', 'B.'],
    ]) {
      const asked = server.model.called(server.model.calls + 1)
      const run = await api.make('/threads/runs', {
        assistant_id: assistant.id,
        instructions: '',
        additional_instructions,
      })
      expect(run).toMatchObject({ instructions: told })
      expect((await asked).prompt).not.toContain('A.')
      await api.settled(run['thread_id'], run.id)
    }
  })

  test('may say everything otherwise, and the model is told so', async () => {
    const assistant = await api.make('/assistants', { model: 'a', instructions: 'A.' })
    const overrides = {
      model: 'b',
      instructions: 'B.',
      tools: [{ type: 'function', function: { ...weather.function, strict: false } }],
      temperature: 0.3,
      top_p: 0.4,
      reasoning_effort: 'high',
      response_format: { type: 'json_object' },
      max_completion_tokens: 500,
      max_prompt_tokens: 600,
      truncation_strategy: { type: 'last_messages', last_messages: 1 },
      tool_choice: { type: 'function', function: { name: 'weather' } },
      parallel_tool_calls: false,
      metadata: { a: '1' },
    }
    const asked = server.model.called(server.model.calls + 1)
    const run = await api.make('/threads/runs', {
      assistant_id: assistant.id,
      ...overrides,
      thread: { messages: ['one', 'two'].map((content) => ({ role: 'user', content })) },
    })
    expect(run).toMatchObject(overrides)
    const { body } = await asked
    expect(body).toMatchObject({
      model: 'b',
      messages: [
        { role: 'system', content: 'B.' },
        { role: 'user', content: 'two' },
      ],
      temperature: 0.3,
      top_p: 0.4,
      reasoning_effort: 'high',
      response_format: { type: 'json_object' },
      max_completion_tokens: 500,
      tool_choice: overrides.tool_choice,
      parallel_tool_calls: false,
    })
    expect(body.messages).toHaveLength(2)
    expect(body.tools?.map((tool) => tool.function.name)).toEqual(['weather'])
    await api.settled(run['thread_id'], run.id)
  })

  test('keeps the settings it began with when its assistant changes', async () => {
    const assistant = await api.make('/assistants', { model: 'a', instructions: 'A.' })
    server.model.respond(() => call({ name: 'weather', arguments: {} }))
    const run = await api.make('/threads/runs', {
      assistant_id: assistant.id,
      tools: [weather],
    })
    const waiting = await api.settled(run['thread_id'], run.id)
    await api.make(`/assistants/${assistant.id}`, { model: 'b', instructions: 'B.' })
    server.model.respond(() => say('Done.'))
    const asked = server.model.called(server.model.calls + 1)
    await submit(run, callsOf(waiting))
    expect((await asked).body).toMatchObject({ model: 'a', messages: [{ content: 'A.' }, {}, {}] })
    expect(await api.settled(run['thread_id'], run.id)).toMatchObject({
      status: 'completed',
      model: 'a',
      instructions: 'A.',
    })
  })

  test.each([
    ['A.', undefined, 'More.', 'A. More.'],
    ['A.', 'B.', 'More.', 'B. More.'],
    [null, undefined, 'More.', 'More.'],
    ['A.', undefined, null, 'A.'],
  ])(
    'of instructions %j, overridden by %j, with %j added, has %j',
    async (own, instructions, additional_instructions, expected) => {
      const assistant = await api.make('/assistants', { model: 'm', instructions: own })
      const body = { assistant_id: assistant.id, instructions, additional_instructions }
      const asked = server.model.called(server.model.calls + 1)
      const run = await api.make('/threads/runs', body)
      expect(run['instructions']).toBe(expected)
      expect((await asked).body.messages[0]).toMatchObject({ role: 'system', content: expected })
      await api.settled(run['thread_id'], run.id)
    },
  )

  test('adds its additional messages to the thread, before the model is asked', async () => {
    const thread = await api.make('/threads', { messages: [{ role: 'user', content: 'one' }] })
    const asked = server.model.called(server.model.calls + 1)
    const { id } = await makeRun(thread.id, {
      additional_messages: [
        { role: 'assistant', content: 'two' },
        { role: 'user', content: 'three', metadata: { a: '1' } },
      ],
    })
    expect((await asked).body.messages).toEqual([
      { role: 'user', content: 'one' },
      { role: 'assistant', content: 'two' },
      { role: 'user', content: 'three' },
    ])
    await api.settled(thread.id, id)
    const { data } = await api.read(`/threads/${thread.id}/messages?order=asc`)
    expect(data.map((message) => [message['role'], textOf(message), message['run_id']])).toEqual([
      ['user', 'one', null],
      ['assistant', 'two', null],
      ['user', 'three', null],
      ['assistant', 'Hello there.', id],
    ])
    expect(data[2]?.['metadata']).toEqual({ a: '1' })
  })

  test('works on a thread without any message', async () => {
    const { id } = await api.make('/threads')
    const run = await makeRun(id)
    expect((await api.settled(id, run.id))['status']).toBe('completed')
  })

  test('that brings its thread keeps what the thread was given', async () => {
    const assistant = await api.make('/assistants', { model: 'm' })
    const run = await api.make('/threads/runs', {
      assistant_id: assistant.id,
      thread: { messages: [{ role: 'user', content: 'Hi' }], metadata: { of: 'thread' } },
      metadata: { of: 'run' },
      additional_messages: [{ role: 'user', content: 'And?' }],
    })
    expect(run['metadata']).toEqual({ of: 'run' })
    const threadId = String(run['thread_id'])
    expect((await api.read(`/threads/${threadId}`))['metadata']).toEqual({ of: 'thread' })
    await api.settled(threadId, run.id)
    const { data } = await api.read(`/threads/${threadId}/messages?order=asc`)
    expect(data.map(textOf)).toEqual(['Hi', 'And?', 'Hello there.'])
  })

  test('merges its metadata in a modify, while it runs and after', async () => {
    server.model.respond(() => stallAfter(1, 'Hello there.'))
    const thread = await api.make('/threads')
    const asked = server.model.called(server.model.calls + 1)
    const run = await makeRun(thread.id, { metadata: { a: '1' } })
    const path = `/threads/${thread.id}/runs/${run.id}`
    const request = await server.model.tokensOut(await asked, 1)
    expect((await api.make(path, { metadata: { b: '2' } }))['metadata']).toEqual({ a: '1', b: '2' })
    request.release()
    expect(await api.settled(thread.id, run.id)).toMatchObject({
      status: 'completed',
      metadata: { a: '1', b: '2' },
    })
    expect((await api.make(path, { metadata: { a: null } }))['metadata']).toEqual({ b: '2' })
  })

  test('outlives its assistant', async () => {
    const thread = await api.make('/threads')
    const run = await makeRun(thread.id)
    const over = await api.settled(thread.id, run.id)
    const assistantId = String(run['assistant_id'])
    await api.delete(`/assistants/${assistantId}`)
    expect(await api.read(`/threads/${thread.id}/runs/${run.id}`)).toEqual(over)
    const again = await api.post(`/threads/${thread.id}/runs`, { assistant_id: assistantId })
    expect(refusal(again)).toEqual(refused(404, `No assistant found with id '${assistantId}'.`))
  })

  test('goes with its thread, even while its model is writing', async () => {
    server.model.respond(() => stallAfter(1, 'Hello there.'))
    const thread = await api.make('/threads')
    const asked = server.model.called(server.model.calls + 1)
    const run = await makeRun(thread.id)
    const request = await server.model.tokensOut(await asked, 1)
    expect((await api.delete(`/threads/${thread.id}`)).status).toBe(200)
    for (const path of ['', '/steps', '/cancel']) {
      const answer = await api.send(
        path === '/cancel' ? 'POST' : 'GET',
        `/threads/${thread.id}/runs/${run.id}${path}`,
      )
      expect(refusal(answer)).toEqual(refused(404, `No thread found with id '${thread.id}'.`))
    }
    request.release()
    await request.closed
  })

  test('that makes its thread leaves none behind when it is refused', async () => {
    const body = {
      assistant_id: 'asst_none',
      thread: { messages: [{ role: 'user', content: 'x' }] },
    }
    expect(refusal(await api.post('/threads/runs', body))).toEqual(
      refused(404, "No assistant found with id 'asst_none'."),
    )
  })

  test('may live longer than ten minutes where that is asked for', async () => {
    const thread = await api.make('/threads')
    const run = await makeRun(thread.id, { expires_after_seconds: 86_400 })
    expect(run['expires_at']).toEqual(lifeOf(86_400, run['created_at']))
    await api.settled(thread.id, run.id)
  })
})

describe('while a run is active its thread', () => {
  /** A run whose model has been asked and is silent. */
  async function activeRun() {
    server.model.respond(() => silence())
    const thread = await api.make('/threads', { messages: [{ role: 'user', content: 'Hi' }] })
    const asked = server.model.called(server.model.calls + 1)
    const run = await makeRun(thread.id)
    const request = await asked
    return { path: `/threads/${thread.id}`, thread, run, request }
  }

  test('takes neither a message nor another run', async () => {
    const { path, thread, run, request } = await activeRun()
    const message = { role: 'user', content: 'And?' }
    expect(refusal(await api.post(`${path}/messages`, message))).toEqual(
      refused(400, `Can't add messages to ${thread.id} while a run ${run.id} is active.`),
    )
    const another = { assistant_id: run['assistant_id'], additional_messages: [message] }
    expect(refusal(await api.post(`${path}/runs`, another))).toEqual(
      refused(400, `Thread ${thread.id} already has an active run ${run.id}.`),
    )
    const streamed = await api.post(`${path}/runs`, { ...another, stream: true })
    expect(refusal(streamed)).toEqual(
      refused(400, `Thread ${thread.id} already has an active run ${run.id}.`),
    )
    expect((await api.read(`${path}/messages`)).data).toHaveLength(1)
    expect((await api.read(`${path}/runs`)).data).toHaveLength(1)
    request.release()
    await api.settled(thread.id, run.id)
    await api.make(`${path}/messages`, message)
  })

  test('can be read and its metadata changed', async () => {
    const { path, thread, run, request } = await activeRun()
    const { data } = await api.read(`${path}/messages`)
    await api.make(path, { metadata: { a: '1' } })
    await api.make(`${path}/messages/${data[0]?.id}`, { metadata: { a: '1' } })
    expect((await api.delete(`${path}/messages/${data[0]?.id}`)).status).toBe(200)
    expect((await api.read(`${path}/runs/${run.id}/steps`)).data).toEqual([])
    request.release()
    await api.settled(thread.id, run.id)
  })

  test('is locked in requires_action too, and free once the run is cancelled', async () => {
    const { thread, run } = await waitingRun()
    const message = { role: 'user', content: 'Still there?' }
    expect((await api.post(`/threads/${thread.id}/messages`, message)).status).toBe(400)
    await api.make(`/threads/${thread.id}/runs/${run.id}/cancel`)
    expect((await api.settled(thread.id, run.id))['status']).toBe('cancelled')
    await api.make(`/threads/${thread.id}/messages`, message)
  })

  test('gets exactly one of two runs that are created at the same time', async () => {
    server.model.respond(() => silence())
    const { id: assistant_id } = await api.make('/assistants', { model: 'm' })
    for (let round = 0; round < 10; round += 1) {
      const { id } = await api.make('/threads')
      const answers = await Promise.all(
        Array.from({ length: 4 }, () => api.post(`/threads/${id}/runs`, { assistant_id })),
      )
      const made = answers.filter(({ status }) => status === 200)
      expect(made).toHaveLength(1)
      const text = `Thread ${id} already has an active run ${made[0]?.body.id}.`
      for (const answer of answers.filter((one) => one !== made[0])) {
        expect(refusal(answer)).toEqual(refused(400, text))
      }
      expect((await api.read(`/threads/${id}/runs`)).data).toHaveLength(1)
      await api.make(`/threads/${id}/runs/${made[0]?.body.id}/cancel`)
    }
  })

  test('never takes a message that came while the run was created, and is not in its prompt', async () => {
    const { id: assistant_id } = await api.make('/assistants', { model: 'm' })
    const prompts = new Map<string, string>()
    let bothAnswered = Promise.withResolvers<void>()
    server.model.respond(async (request) => {
      prompts.set(String(request.body.messages[0]?.content), request.prompt)
      await bothAnswered.promise
      return say('Hello there.')
    })
    for (let round = 0; round < 10; round += 1) {
      const first = `Round ${round}`
      bothAnswered = Promise.withResolvers()
      const thread = await api.make('/threads', { messages: [{ role: 'user', content: first }] })
      const [message, run] = await Promise.all([
        api.post(`/threads/${thread.id}/messages`, { role: 'user', content: 'Late?' }),
        api.post(`/threads/${thread.id}/runs`, { assistant_id }),
      ])
      bothAnswered.resolve()
      expect(run.status).toBe(200)
      await api.settled(thread.id, run.body.id)
      const { data } = await api.read(`/threads/${thread.id}/messages?order=asc`)
      const texts = message.status === 200 ? [first, 'Late?'] : [first]
      expect(data.map(textOf)).toEqual([...texts, 'Hello there.'])
      expect(prompts.get(first)).toBe(texts.join('\n'))
    }
  })
})

describe('the outputs of functions', () => {
  test('are asked for with every call, and the run goes on once they are there', async () => {
    const { thread, run, waiting } = await waitingRun()
    expect(waiting).toMatchObject({ status: 'requires_action', usage: null, completed_at: null })
    expect(waiting['expires_at']).toBe(run['expires_at'])
    const calls = callsOf(waiting)
    expect(waiting['required_action']).toEqual({
      type: 'submit_tool_outputs',
      submit_tool_outputs: {
        tool_calls: [
          {
            id: calls[0],
            type: 'function',
            function: { name: 'weather', arguments: '{"at":"A"}' },
          },
          {
            id: calls[1],
            type: 'function',
            function: { name: 'weather', arguments: '{"at":"B"}' },
          },
        ],
      },
    })
    expect(new Set(calls).size).toBe(2)
    server.model.respond(() => say('Rain.'))
    const asked = server.model.called(server.model.calls + 1)
    const queued = await submit(run, calls)
    expect(queued.body).toMatchObject({ id: run.id, status: 'queued', required_action: null })
    expect((await asked).toolResults).toEqual(calls.map((id) => `output of ${id}`))
    const over = await api.settled(thread.id, run.id)
    expect(over).toMatchObject({ status: 'completed', required_action: null })
    const { data: steps } = await api.read(`/threads/${thread.id}/runs/${run.id}/steps?order=asc`)
    expect(steps.map(({ type, status }) => [type, status])).toEqual([
      ['tool_calls', 'completed'],
      ['message_creation', 'completed'],
    ])
    expect(steps[0]?.['step_details']).toEqual({
      type: 'tool_calls',
      tool_calls: calls.map((id, n) => ({
        id,
        type: 'function',
        function: {
          name: 'weather',
          arguments: JSON.stringify({ at: 'AB'.charAt(n) }),
          output: `output of ${id}`,
        },
      })),
    })
    expect(usageOf(over).total_tokens).toBe(
      steps.reduce((sum, step) => sum + Number(usageOf(step).total_tokens), 0),
    )
  })

  test('may come in any order, and an output that is left out is empty', async () => {
    const { thread, run, waiting } = await waitingRun()
    const [a = '', b = ''] = callsOf(waiting)
    server.model.respond(() => say('Rain.'))
    const asked = server.model.called(server.model.calls + 1)
    const outputs = [{ tool_call_id: b, output: 'of b' }, { tool_call_id: a }]
    await api.make(`${pathOf(run)}/submit_tool_outputs`, { tool_outputs: outputs })
    expect((await asked).toolResults).toEqual(['', 'of b'])
    await api.settled(thread.id, run.id)
  })

  test('must be those of all calls and of no others', async () => {
    const { run, waiting } = await waitingRun()
    const [a = '', b = ''] = callsOf(waiting)
    for (const given of [[a], [], [a, b, 'call_x'], [a, 'call_x'], [a, a]]) {
      const answer = await submit(run, given)
      const list = (ids: string[]) => `[${ids.map((id) => `'${id}'`).join(', ')}]`
      const text = `Expected tool outputs for call_ids ${list([a, b])}, got ${list(given)}`
      expect(refusal(answer)).toEqual(refused(400, text))
    }
    expect((await api.read(pathOf(run)))['status']).toBe('requires_action')
    await api.make(`${pathOf(run)}/cancel`)
  })

  test('are taken once', async () => {
    const { thread, run, waiting } = await waitingRun()
    server.model.respond(() => say('Rain.'))
    const answers = await Promise.all([1, 2, 3].map(() => submit(run, callsOf(waiting))))
    expect(answers.filter(({ status }) => status === 200)).toHaveLength(1)
    await api.settled(thread.id, run.id)
    expect(refusal(await submit(run, callsOf(waiting)))).toEqual(
      refused(400, 'Runs in status "completed" do not accept tool outputs.'),
    )
  })

  test('are not for a run that is cancelled', async () => {
    const { thread, run, waiting } = await waitingRun()
    await api.make(`${pathOf(run)}/cancel`)
    const answer = refusal(await submit(run, callsOf(waiting)))
    expect(answer.message).toMatch(
      /^Runs in status "(cancelling|cancelled)" do not accept tool outputs\.$/,
    )
    expect((await api.settled(thread.id, run.id))['status']).toBe('cancelled')
  })

  test('may be handed in for one call after the other, in several rounds', async () => {
    const { thread, run, waiting } = await waitingRun()
    server.model.respond(() => call({ name: 'weather', arguments: { at: 'C' } }))
    await submit(run, callsOf(waiting))
    const again = await api.settled(thread.id, run.id)
    expect(again['status']).toBe('requires_action')
    expect(callsOf(again)).toHaveLength(1)
    expect(callsOf(waiting)).not.toContain(callsOf(again)[0])
    server.model.respond(() => say('Rain.'))
    await submit(run, callsOf(again))
    expect((await api.settled(thread.id, run.id))['status']).toBe('completed')
  })
})

describe('a cancel', () => {
  test('stops the model and keeps what it has written', async () => {
    server.model.respond(() => stallAfter(2, ['One ', 'two ', 'three']))
    const thread = await api.make('/threads')
    const asked = server.model.called(server.model.calls + 1)
    const run = await makeRun(thread.id)
    const request = await server.model.tokensOut(await asked, 2)
    const cancelling = await api.make(`${pathOf(run)}/cancel`)
    expect(cancelling).toMatchObject({ status: 'cancelling', cancelled_at: null })
    expect(await request.closed).toBe('closed by the client')
    const over = await api.settled(thread.id, run.id)
    expect(over).toMatchObject({
      status: 'cancelled',
      cancelled_at: expect.any(Number),
      expires_at: null,
      completed_at: null,
    })
    const { data } = await api.read(`/threads/${thread.id}/messages`)
    expect(data[0]).toMatchObject({
      status: 'incomplete',
      incomplete_details: { reason: 'run_cancelled' },
      incomplete_at: expect.any(Number),
      completed_at: null,
    })
    expect('One two three').toContain(textOf(data[0] as Body).trim())
    const { data: steps } = await api.read(`${pathOf(run)}/steps`)
    expect(steps[0]).toMatchObject({ status: 'cancelled', cancelled_at: expect.any(Number) })
  })

  test('may be asked for twice', async () => {
    server.model.respond(() => silence())
    const thread = await api.make('/threads')
    const asked = server.model.called(server.model.calls + 1)
    const run = await makeRun(thread.id)
    await asked
    const answers = await Promise.all([1, 2].map(() => api.post(`${pathOf(run)}/cancel`)))
    const said = answers.map(({ body }) => body['status'] ?? body.error.message)
    expect(said).toContain('cancelling')
    // The later one may come when there is nothing left to cancel.
    for (const one of said)
      expect(['cancelling', "Cannot cancel run with status 'cancelled'."]).toContain(one)
    expect((await api.settled(thread.id, run.id))['status']).toBe('cancelled')
  })

  test('is refused by a run that is over', async () => {
    const thread = await api.make('/threads')
    const run = await makeRun(thread.id)
    await api.settled(thread.id, run.id)
    expect(refusal(await api.post(`${pathOf(run)}/cancel`))).toEqual(
      refused(400, "Cannot cancel run with status 'completed'."),
    )
  })
})

describe('steps', () => {
  test('have every field, for a message', async () => {
    const thread = await api.make('/threads')
    const run = await makeRun(thread.id)
    const over = await api.settled(thread.id, run.id)
    const { data } = await api.read(`${pathOf(run)}/steps`)
    const { data: messages } = await api.read(`/threads/${thread.id}/messages`)
    expect(data).toEqual([
      {
        id: expect.stringMatching(/^step_[0-9A-Za-z]{24}$/),
        object: 'thread.run.step',
        created_at: expect.any(Number),
        run_id: run.id,
        assistant_id: run['assistant_id'],
        thread_id: thread.id,
        type: 'message_creation',
        status: 'completed',
        cancelled_at: null,
        completed_at: expect.any(Number),
        expires_at: null,
        expired_at: null,
        failed_at: null,
        last_error: null,
        step_details: {
          type: 'message_creation',
          message_creation: { message_id: messages[0]?.id },
        },
        longrun: { model: 'm', failed_models: [] },
        metadata: {},
        usage: over['usage'],
      },
    ])
    expect(await api.read(`${pathOf(run)}/steps/${data[0]?.id}`)).toEqual(data[0])
    const include = encodeURIComponent('step_details.tool_calls[*].file_search.results[*].content')
    for (const name of ['include', 'include[]', 'include%5B%5D', 'include[0]']) {
      expect((await api.read(`${pathOf(run)}/steps?${name}=${include}`)).data).toEqual(data)
    }
  })

  test('of a turn with text and calls are the message first, then the calls', async () => {
    server.model.script(sayAndCall('Let me see.', { name: 'weather', arguments: {} }))
    const thread = await api.make('/threads')
    const run = await makeRun(thread.id, { tools: [weather] })
    const waiting = await api.settled(thread.id, run.id)
    const { data } = await api.read(`${pathOf(run)}/steps?order=asc`)
    expect(data.map(({ type, status }) => [type, status])).toEqual([
      ['message_creation', 'completed'],
      ['tool_calls', 'in_progress'],
    ])
    expect(data[1]).toMatchObject({
      expires_at: run['expires_at'],
      step_details: { tool_calls: [{ id: callsOf(waiting)[0], function: { output: null } }] },
    })
    await api.make(`${pathOf(run)}/cancel`)
  })

  test('of another run are not found in this one', async () => {
    const thread = await api.make('/threads')
    const [one, other] = [await makeRun(thread.id), await api.make('/threads')]
    await api.settled(thread.id, one.id)
    const { data } = await api.read(`${pathOf(one)}/steps`)
    const second = await makeRun(thread.id)
    await api.settled(thread.id, second.id)
    expect(refusal(await api.get(`${pathOf(second)}/steps/${data[0]?.id}`))).toEqual(
      refused(404, `No run step found with id '${data[0]?.id}'.`),
    )
    expect(refusal(await api.get(`/threads/${other.id}/runs/${one.id}/steps`))).toEqual(
      refused(404, `No run found with id '${one.id}'.`),
    )
  })
})

describe('a run whose model', () => {
  test('is refused by its provider fails with the reason, and the thread is free again', async () => {
    server.model.respond(() => fail(400, { message: 'No such thing.', code: 'bad' }))
    const thread = await api.make('/threads')
    const run = await makeRun(thread.id)
    const over = await api.settled(thread.id, run.id)
    expect(over).toMatchObject({
      status: 'failed',
      failed_at: expect.any(Number),
      completed_at: null,
      expires_at: null,
      last_error: { code: 'invalid_prompt', message: expect.stringContaining('No such thing.') },
    })
    await api.make(`/threads/${thread.id}/messages`, { role: 'user', content: 'Again' })
  })

  test('stops at its limit is incomplete, and so is its message', async () => {
    server.model.respond(() => say('Cut', { finishReason: 'length' }))
    const thread = await api.make('/threads')
    const run = await makeRun(thread.id, { max_completion_tokens: 16 })
    expect(await api.settled(thread.id, run.id)).toMatchObject({
      status: 'incomplete',
      incomplete_details: { reason: 'max_completion_tokens' },
      expires_at: null,
      last_error: null,
    })
    const { data } = await api.read(`/threads/${thread.id}/messages`)
    expect(data[0]).toMatchObject({
      status: 'incomplete',
      incomplete_details: { reason: 'max_tokens' },
    })
    expect(textOf(data[0] as Body)).toBe('Cut')
  })

  test('refuses to answer completes with a refusal', async () => {
    server.model.respond(() => refuse("I can't help with that."))
    const thread = await api.make('/threads')
    const run = await makeRun(thread.id)
    expect((await api.settled(thread.id, run.id))['status']).toBe('completed')
    const { data } = await api.read(`/threads/${thread.id}/messages`)
    expect(data[0]?.['content']).toEqual([{ type: 'refusal', refusal: "I can't help with that." }])
  })
})

/** The deadline and the creation are rounded down to seconds, each by itself. */
function lifeOf(seconds: number, createdAt: unknown) {
  const deadline = Number(createdAt) + seconds
  return expect.toSatisfy((at) => at === deadline || at === deadline - 1, `about ${deadline}`)
}

async function makeRun(threadId: string, body: object = {}): Promise<Body> {
  const { id } = await api.make('/assistants', { model: 'm' })
  return api.make(`/threads/${threadId}/runs`, { assistant_id: id, ...body })
}

/** A run that waits for the outputs of two calls of `weather`. */
async function waitingRun() {
  server.model.script(
    call([
      { name: 'weather', arguments: { at: 'A' } },
      { name: 'weather', arguments: { at: 'B' } },
    ]),
  )
  const thread = await api.make('/threads', { messages: [{ role: 'user', content: 'Rain?' }] })
  const run = await makeRun(thread.id, { tools: [weather] })
  return { thread, run, waiting: await api.settled(thread.id, run.id) }
}

function submit(run: Body, callIds: string[]) {
  return api.post(`${pathOf(run)}/submit_tool_outputs`, {
    tool_outputs: callIds.map((id) => ({ tool_call_id: id, output: `output of ${id}` })),
  })
}

function callsOf({ required_action }: Body): string[] {
  const action = required_action as { submit_tool_outputs: { tool_calls: { id: string }[] } } | null
  return (action?.submit_tool_outputs.tool_calls ?? []).map(({ id }) => id)
}

function pathOf(run: Body): string {
  return `/threads/${String(run['thread_id'])}/runs/${run.id}`
}

function usageOf({ usage }: Body): Record<string, unknown> {
  return (usage ?? {}) as Record<string, unknown>
}

function textOf({ content }: Body): string {
  const parts = content as { text?: { value: string } }[]
  return parts.map(({ text }) => text?.value ?? '').join('')
}
