import { afterAll, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'

import { countTokens } from '../../tokens.ts'
import { postStream, type Frame } from '../support/event-stream.ts'
import {
  call,
  chunks,
  cutAfter,
  fail,
  refuse,
  say,
  sayAndCall,
  silence,
  unstreamed,
  withoutReason,
  type Step,
} from '../support/model.ts'
import { startServer, type TestServer } from '../support/server.ts'
import { createCaller, refusal, refused, type Body, type Caller } from './caller.ts'

let server: TestServer
let api: Caller
beforeAll(async () => {
  server = await startServer()
  api = createCaller(server)
})
afterAll(() => server[Symbol.asyncDispose]())
beforeEach(() => server.model.respond(() => say('Rain.')))

const weather = { type: 'function', function: { name: 'weather' } }
const interpreter = { type: 'code_interpreter' }
const at = (place: string) => ({ name: 'weather', arguments: { at: place } })

describe('calls of functions and of our own tools in one turn', () => {
  const steps = () =>
    server.model.script(
      call([at('A'), { name: 'code_interpreter', arguments: { code: '1 + 1' } }, at('B')]),
    )

  test('share a step; only the functions are asked for, once our own are done', async () => {
    steps()
    const waiting = await settledRun({ tools: [weather, interpreter] })
    expect(waiting['status']).toBe('requires_action')
    expect(functionsOf(waiting).map(({ arguments: args }) => args)).toEqual([
      '{"at":"A"}',
      '{"at":"B"}',
    ])
    const [open] = await stepsOf(waiting)
    expect(open).toMatchObject({
      status: 'in_progress',
      step_details: {
        tool_calls: [
          { type: 'function', function: { output: null } },
          { type: 'code_interpreter', code_interpreter: { input: '1 + 1' } },
          { type: 'function', function: { output: null } },
        ],
      },
    })
    const asked = server.model.called(server.model.calls + 1)
    await api.make(`${pathOf(waiting)}/submit_tool_outputs`, outputsFor(waiting))
    const { body } = await asked
    // The model hears of all three, in the order of its calls.
    const { tool_calls: called } = (open as Body)['step_details'] as { tool_calls: Body[] }
    const calls = called.map(({ id }) => id)
    const results = body.messages.filter(({ role }) => role === 'tool')
    expect(results.map(({ tool_call_id: id }) => id)).toEqual(calls)
    expect(results[0]?.content).toBe(`output of ${calls[0]}`)
    expect((await api.settled(waiting['thread_id'], waiting.id))['status']).toBe('completed')
    expect(await stepsOf(waiting)).toMatchObject([
      { type: 'tool_calls', status: 'completed' },
      { type: 'message_creation', status: 'completed' },
    ])
  })

  test('are streamed as one step, and the outputs go on from its end', async () => {
    steps()
    const { names, last } = await streamedRun({ tools: [weather, interpreter] })
    expect(names).toEqual([...begins, ...step, 'thread.run.requires_action'])
    const submitted = await streamedOutputs(last)
    expect(submitted.names).toEqual([...goesOn, ...message, 'thread.run.completed'])
    expect(submitted.frames[0]).toMatchObject({
      id: (await stepsOf(last))[0]?.id,
      status: 'completed',
      usage: { total_tokens: expect.any(Number) },
    })
  })
})

describe('a call is a call', () => {
  const old = (function_call: object, finish_reason: string | null = null) => ({
    choices: [{ index: 0, delta: { function_call }, finish_reason }],
  })
  test.each<[string, Step, string[]]>([
    ['in one piece with others', unstreamed(call([at('A'), at('B')])), ['A', 'B']],
    ['without a reason for its end', withoutReason(call(at('A'))), ['A']],
    [
      'in the form of old',
      chunks(
        old({ name: 'weather', arguments: '' }),
        old({ arguments: '{"at":"A"}' }),
        old({}, 'function_call'),
      ),
      ['A'],
    ],
  ])('%s', async (_, step, places) => {
    server.model.script(step)
    const waiting = await settledRun({ tools: [weather] })
    expect(waiting['status']).toBe('requires_action')
    expect(functionsOf(waiting).map(({ arguments: args }) => args)).toEqual(
      places.map((place) => JSON.stringify({ at: place })),
    )
    expect(await stepsOf(waiting)).toHaveLength(1)
    await api.make(`${pathOf(waiting)}/cancel`)
  })

  test('and a refusal in one piece is one, with what it used', async () => {
    server.model.script(
      unstreamed(refuse('Not that.', { usage: { promptTokens: 30, completionTokens: 12 } })),
    )
    const run = await settledRun({})
    expect(run).toMatchObject({
      status: 'completed',
      usage: { prompt_tokens: 30, completion_tokens: 12, total_tokens: 42 },
      longrun: { usage_estimated: false },
    })
    const [message] = (await api.read(`/threads/${String(run['thread_id'])}/messages`)).data
    expect(message?.['content']).toEqual([{ type: 'refusal', refusal: 'Not that.' }])
  })
})

test('three rounds in one run, each read as a stream', async () => {
  server.model.script(call(at('A')), call([at('B'), at('C')]), sayAndCall('Now D.', at('D')))
  const ids: string[] = []
  const first = await streamedRun({ tools: [weather] })
  expect(first.names).toEqual([...begins, ...step, 'thread.run.requires_action'])
  ids.push(...functionsOf(first.last).map(({ id }) => id))
  const second = await streamedOutputs(first.last)
  expect(second.names).toEqual([...goesOn, ...step, 'thread.run.requires_action'])
  ids.push(...functionsOf(second.last).map(({ id }) => id))
  const third = await streamedOutputs(second.last)
  expect(third.names).toEqual([...goesOn, ...message, ...step, 'thread.run.requires_action'])
  ids.push(...functionsOf(third.last).map(({ id }) => id))
  const over = await streamedOutputs(third.last)
  expect(over.names).toEqual([...goesOn, ...message, 'thread.run.completed'])
  expect(new Set(ids).size).toBe(4)
  const steps = await stepsOf(over.last)
  expect(steps.map(({ type, status }) => [type, status])).toEqual([
    ['tool_calls', 'completed'],
    ['tool_calls', 'completed'],
    ['message_creation', 'completed'],
    ['tool_calls', 'completed'],
    ['message_creation', 'completed'],
  ])
  const run = await api.read(pathOf(over.last))
  expect(totalOf(run)).toBeGreaterThan(0)
  expect(totalOf(run)).toBe(steps.reduce((sum, one) => sum + totalOf(one), 0))
})

describe('words before a call', () => {
  const asks = 'Let me see.'
  const cut = cutAfter(3, {
    text: [asks],
    calls: [{ ...at('A'), fragments: ['{"at":', '"', 'A"}'] }],
  })

  test('are not there twice where the call broke off and was asked for anew', async () => {
    server.model.script(cut, sayAndCall(asks, at('A')))
    const { last: waiting, frames } = await streamedRun({ tools: [weather] })
    expect(waiting['status']).toBe('requires_action')
    // Whoever reads along sees both attempts, and of the first that its step has failed.
    expect(statusesOf(frames, 'thread.message')).toEqual(['completed', 'completed'])
    expect(statusesOf(frames, 'thread.run.step')).toEqual([
      'completed',
      'failed',
      'completed',
      'in_progress',
    ])
    const messages = await api.read(`/threads/${String(waiting['thread_id'])}/messages?order=asc`)
    expect(messages.data.map(textOf)).toEqual(['Rain?', asks])
    expect((await stepsOf(waiting)).map(({ status }) => status)).toEqual([
      'completed',
      'in_progress',
    ])
    const asked = server.model.called(server.model.calls + 1)
    await api.make(`${pathOf(waiting)}/submit_tool_outputs`, outputsFor(waiting))
    expect((await asked).prompt.split(asks)).toHaveLength(2)
  })

  test('are counted with a call that is cut', async () => {
    server.model.script(cut)
    server.model.respond(() => fail(400, { message: 'No more.' }))
    const { last } = await streamedRun({ tools: [weather] })
    expect(last).toMatchObject({ status: 'failed', longrun: { usage_estimated: true } })
    const { completion_tokens: counted } = last['usage'] as { completion_tokens: number }
    expect(counted).toBe(await countTokens(`${asks}weather{"at":"`))
  })

  test('go on after it in the message, though not in the stream', async () => {
    const delta = (fields: object, finish_reason: string | null = null) => ({
      choices: [{ index: 0, delta: fields, finish_reason }],
    })
    const tool_calls = [
      { index: 0, id: 'call_up', type: 'function', function: { name: 'weather', arguments: '{}' } },
    ]
    server.model.script(
      chunks(
        delta({ content: asks }),
        delta({ tool_calls }),
        delta({ content: ' And now.' }, 'tool_calls'),
      ),
    )
    const { last: waiting, frames } = await streamedRun({ tools: [weather] })
    const said = frames.filter(({ object }) => object === 'thread.message').at(-1)
    expect(said && textOf(said)).toBe(asks)
    const messages = await api.read(`/threads/${String(waiting['thread_id'])}/messages`)
    expect(messages.data.map(textOf)).toEqual([`${asks} And now.`, 'Rain?'])
  })

  /** Of the objects of this kind, in the order of their creation, the last status. */
  function statusesOf(frames: Body[], kind: string): unknown[] {
    const objects = frames.filter(({ object }) => object === kind)
    return [...new Map(objects.map(({ id, status }) => [id, status])).values()]
  }

  function textOf({ content }: Body): string {
    const [part] = content as { text: { value: string } }[]
    return part?.text.value ?? ''
  }
})

describe('outputs', () => {
  test('of two clients at once are those of one of them', async () => {
    server.model.script(call(at('A')))
    server.model.respond(() => silence())
    const waiting = await settledRun({ tools: [weather] })
    const asked = server.model.called(server.model.calls + 1)
    const [{ id } = { id: '' }] = functionsOf(waiting)
    const submit = (output: string) =>
      api.post(`${pathOf(waiting)}/submit_tool_outputs`, {
        tool_outputs: [{ tool_call_id: id, output }],
      })
    const answers = await Promise.all(['one', 'other'].map(submit))
    const winner = answers.findIndex(({ status }) => status === 200)
    const loser = answers[1 - winner]
    expect(loser && refusal(loser)).toEqual(
      refused(400, expect.stringMatching(notAccepted('queued|in_progress')) as string),
    )
    const request = await asked
    expect(request.toolResults).toEqual([['one', 'other'][winner]])
    // While the model is writing they come too late as well.
    expect(refusal(await submit('late')).message).toMatch(notAccepted('queued|in_progress'))
    request.release()
    await api.settled(waiting['thread_id'], waiting.id)
  })

  test('that come after the deadline are refused, and the step has expired', async () => {
    server.model.script(call(at('A')))
    const waiting = await settledRun({ tools: [weather], expires_after_seconds: 1 })
    const over = await vi.waitFor(async () => {
      const run = await api.read(pathOf(waiting))
      expect(run['status']).toBe('expired')
      return run
    }, 10_000)
    expect(over['required_action']).toBeNull()
    const late = await api.post(`${pathOf(waiting)}/submit_tool_outputs`, outputsFor(waiting))
    expect(refusal(late)).toEqual(
      refused(400, 'Runs in status "expired" do not accept tool outputs.'),
    )
    expect(await stepsOf(waiting)).toMatchObject([
      {
        status: 'expired',
        expired_at: expect.any(Number),
        step_details: { tool_calls: [{ function: { output: null } }] },
      },
    ])
  })
})

describe('a choice of tool', () => {
  test.each([
    ['auto', undefined, ['weather', 'code_interpreter']],
    ['none', undefined, []],
    ['required', 'required', ['weather', 'code_interpreter']],
    [
      { type: 'function', function: { name: 'weather' } },
      { type: 'function', function: { name: 'weather' } },
      ['weather', 'code_interpreter'],
    ],
    [
      { type: 'code_interpreter' },
      { type: 'function', function: { name: 'code_interpreter' } },
      ['weather', 'code_interpreter'],
    ],
  ])('of %j is for the first turn only', async (tool_choice, said, tools) => {
    server.model.script(call({ name: 'nothing_of_ours', arguments: {} }))
    const before = server.model.calls
    const run = await settledRun({ tools: [weather, interpreter], tool_choice })
    expect(run).toMatchObject({ status: 'completed', tool_choice })
    const bodies = server.model.requests.slice(before).map(({ body }) => body)
    expect(bodies.map((body) => body.tool_choice)).toEqual([said, undefined])
    for (const body of bodies) {
      expect((body.tools ?? []).map((tool) => tool.function.name)).toEqual(tools)
    }
  })

  test('of none holds though the model calls all the same: it is told so, and asked again', async () => {
    server.model.script(
      call([at('A'), { name: 'code_interpreter', arguments: { code: '1' } }]),
      say('Rain.'),
    )
    const asked = server.model.called(server.model.calls + 2)
    const run = await settledRun({ tools: [weather, interpreter], tool_choice: 'none' })
    expect(run['status']).toBe('completed')
    const told = 'Error: no tool may be called now. Answer without.'
    expect((await asked).toolResults).toEqual([told, told])
  })

  test('of none is bounded by the turns of the run', async () => {
    server.model.script(call(at('A')), call(at('A')))
    const run = await settledRun({ tools: [weather], tool_choice: 'none', max_steps: 2 })
    expect(run).toMatchObject({
      status: 'incomplete',
      incomplete_details: { reason: 'max_steps' },
    })
  })

  test.each([
    [
      { type: 'function', function: { name: 'news' } },
      "no function named 'news' was specified in the 'tools' parameter.",
    ],
    [
      { type: 'file_search' },
      "no tool of type 'file_search' was specified in the 'tools' parameter.",
    ],
  ])('of %j, which the run does not have, is refused', async (tool_choice, why) => {
    const { id: assistant_id } = await api.make('/assistants', { model: 'm', tools: [weather] })
    const { id } = await api.make('/threads')
    const answer = await api.post(`/threads/${id}/runs`, { assistant_id, tool_choice })
    expect(refusal(answer)).toEqual(
      refused(400, `Invalid value for 'tool_choice': ${why}`, 'tool_choice'),
    )
    expect((await api.read(`/threads/${id}/runs`)).data).toEqual([])
  })

  test('is refused where there are no tools', async () => {
    const { id: assistant_id } = await api.make('/assistants', { model: 'm', tools: [weather] })
    for (const tool_choice of ['required', { type: 'function', function: { name: 'weather' } }]) {
      const answer = await api.post('/threads/runs', { assistant_id, tools: [], tool_choice })
      expect(refusal(answer)).toEqual(
        refused(
          400,
          "Invalid value for 'tool_choice': 'tool_choice' is only allowed when 'tools' are specified.",
          'tool_choice',
        ),
      )
    }
    const free = await settledRun({ tools: [], tool_choice: 'none' })
    expect(free['status']).toBe('completed')
  })
})

test('of several calls where one was allowed, the first is kept and the others never seen', async () => {
  server.model.script(call([at('A'), at('B'), at('C')]))
  const asked = server.model.called(server.model.calls + 1)
  const { last, text } = await streamedRun({ tools: [weather], parallel_tool_calls: false })
  expect((await asked).body['parallel_tool_calls']).toBe(false)
  expect(functionsOf(last).map(({ arguments: args }) => args)).toEqual(['{"at":"A"}'])
  expect(text).not.toMatch(/\\"at\\":\s*\\"[BC]\\"/)
  const steps = await stepsOf(last)
  expect(steps).toHaveLength(1)
  const again = server.model.called(server.model.calls + 1)
  await api.make(`${pathOf(last)}/submit_tool_outputs`, outputsFor(last))
  expect((await again).body.messages.filter(({ role }) => role === 'tool')).toHaveLength(1)
  await api.settled(last['thread_id'], last.id)
})

describe('what is wrong with a call the model is told, and the client never asked', () => {
  const strict = {
    type: 'function',
    function: {
      name: 'book',
      strict: true,
      parameters: {
        type: 'object',
        properties: { nights: { type: 'integer' } },
        required: ['nights'],
        additionalProperties: false,
      },
    },
  }

  test.each([
    ['a tool that there is not', { name: 'news', arguments: {} }, 'there is no tool named "news"'],
    ['arguments that are no JSON', { name: 'weather', arguments: '{"at": ' }, 'not valid JSON'],
    [
      'arguments that a strict function does not take',
      { name: 'book', arguments: { nights: 'two' } },
      'do not fit its schema. Instance type "string" is invalid. Expected "integer" (at #/nights).',
    ],
    [
      'no arguments where a strict function needs some',
      { name: 'book', arguments: '' },
      'required property "nights"',
    ],
  ])('%s', async (_, wrong, told) => {
    server.model.script(call(wrong))
    const asked = server.model.called(server.model.calls + 2)
    const run = await settledRun({ tools: [weather, strict] })
    expect(run['status']).toBe('completed')
    const { toolResults } = await asked
    expect(toolResults).toHaveLength(1)
    expect(toolResults[0]).toMatch(/^Error: /)
    expect(toolResults[0]).toContain(told)
  })

  const twoNights = { name: 'book', arguments: { nights: 'two' } }

  test('three times; a model that knows nothing else by then fails the run', async () => {
    server.model.script(call(twoNights), call([twoNights, twoNights]), call(twoNights))
    const before = server.model.calls
    const run = await settledRun({ tools: [weather, strict] })
    expect(run).toMatchObject({
      status: 'failed',
      last_error: {
        code: 'server_error',
        message: expect.stringMatching(
          /^The model 'm' called 'book' in 3 turns in a row as it cannot be called\..*do not fit its schema\..*nights/,
        ) as string,
      },
    })
    expect(server.model.calls).toBe(before + 3)
    expect((await stepsOf(run)).map(({ status }) => status)).toEqual([
      'completed',
      'completed',
      'failed',
    ])
    // The thread is free.
    await api.make(`/threads/${String(run['thread_id'])}/messages`, { role: 'user', content: 'x' })
  })

  test('three times, of a name that there is not as well', async () => {
    server.model.respond(() => call({ name: 'news', arguments: {} }))
    const run = await settledRun({ tools: [weather] })
    expect(run).toMatchObject({
      status: 'failed',
      last_error: { message: expect.stringContaining('there is no tool named "news"') as string },
    })
  })

  test.each<[string, Step[]]>([
    ['another mistake between', [call(twoNights), call({ name: 'news', arguments: {} })]],
    [
      'something that is carried out between',
      [
        call(twoNights),
        call([twoNights, { name: 'code_interpreter', arguments: { code: '1 + 1' } }]),
      ],
    ],
    [
      'a tool of ours was carried out twice and called wrongly once',
      ['{"queries":["a"]}', '{"queries":["b"]}', 'c'].map((args) =>
        call({ name: 'file_search', arguments: args }),
      ),
    ],
  ])('and a run goes on after %s', async (_, steps) => {
    server.model.script(...steps, call(twoNights), say('Rain.'))
    const run = await settledRun({ tools: [strict, interpreter, { type: 'file_search' }] })
    expect(run).toMatchObject({ status: 'completed', last_error: null })
  })

  test('but for the calls beside it, which are right', async () => {
    server.model.script(
      call([
        { name: 'book', arguments: { nights: '2' } },
        { name: 'book', arguments: { nights: 2 } },
      ]),
    )
    const waiting = await settledRun({ tools: [strict] })
    expect(functionsOf(waiting).map(({ arguments: args }) => args)).toEqual(['{"nights":2}'])
    await api.make(`${pathOf(waiting)}/cancel`)
  })

  test('no arguments at all are an empty object', async () => {
    server.model.script(call({ name: 'weather', arguments: '' }))
    const waiting = await settledRun({ tools: [weather] })
    expect(functionsOf(waiting).map(({ arguments: args }) => args)).toEqual(['{}'])
    await api.make(`${pathOf(waiting)}/cancel`)
  })

  test('a function that is not strict may get what it likes', async () => {
    const loose = { type: 'function', function: { ...strict.function, strict: false } }
    server.model.script(call({ name: 'book', arguments: { nights: 'two' } }))
    const waiting = await settledRun({ tools: [loose] })
    expect(waiting['status']).toBe('requires_action')
    await api.make(`${pathOf(waiting)}/cancel`)
  })
})

describe('a run may not take more turns than', () => {
  test('it was given: it is incomplete then, with what it has done', async () => {
    server.model.respond(() => call({ name: 'code_interpreter', arguments: { code: '1' } }))
    const before = server.model.calls
    const run = await settledRun({ tools: [interpreter], max_steps: 2 })
    expect(run).toMatchObject({
      status: 'incomplete',
      incomplete_details: { reason: 'max_steps' },
      last_error: null,
      longrun: { max_steps: 2 },
    })
    expect(server.model.calls).toBe(before + 2)
    expect((await stepsOf(run)).map(({ status }) => status)).toEqual(['completed', 'completed'])
    // The thread is free.
    await api.make(`/threads/${String(run['thread_id'])}/messages`, { role: 'user', content: 'x' })
  })

  test('it was given, with the outputs of a function as its last', async () => {
    server.model.script(call(at('A')))
    const { last } = await streamedRun({ tools: [weather], max_steps: 1 })
    const { names } = await streamedOutputs(last)
    expect(names).toEqual([
      'thread.run.step.completed',
      'thread.run.queued',
      'thread.run.incomplete',
    ])
    expect(await stepsOf(last)).toMatchObject([
      {
        status: 'completed',
        step_details: {
          tool_calls: [{ function: { output: expect.stringContaining('output of') } }],
        },
      },
    ])
  })

  test('the server allows, whatever it was given', async () => {
    await using small = await startServer({ RUN_MAX_STEPS: '1' })
    const caller = createCaller(small)
    small.model.respond(() => call({ name: 'none', arguments: {} }))
    const { id: assistant_id } = await caller.make('/assistants', { model: 'm' })
    const run = await caller.make('/threads/runs', { assistant_id, max_steps: 5 })
    expect(await caller.settled(run['thread_id'], run.id)).toMatchObject({
      status: 'incomplete',
      incomplete_details: { reason: 'max_steps' },
      longrun: { max_steps: 1 },
    })
    expect(small.model.calls).toBe(1)
  })
})

const begins = ['thread.run.created', 'thread.run.queued', 'thread.run.in_progress']
const goesOn = ['thread.run.step.completed', 'thread.run.queued', 'thread.run.in_progress']
const step = ['thread.run.step.created', 'thread.run.step.in_progress', 'thread.run.step.delta']
const message = [
  'thread.run.step.created',
  'thread.run.step.in_progress',
  'thread.message.created',
  'thread.message.in_progress',
  'thread.message.delta',
  'thread.message.completed',
  'thread.run.step.completed',
]

async function newRun() {
  const { id: assistant_id } = await api.make('/assistants', { model: 'm' })
  const thread = await api.make('/threads', { messages: [{ role: 'user', content: 'Rain?' }] })
  return { path: `/threads/${thread.id}/runs`, assistant_id }
}

async function settledRun(body: object): Promise<Body> {
  const { path, assistant_id } = await newRun()
  const run = await api.make(path, { assistant_id, ...body })
  return api.settled(run['thread_id'], run.id)
}

async function streamedRun(body: object) {
  const { path, assistant_id } = await newRun()
  return read(path, { assistant_id, ...body })
}

function streamedOutputs(waiting: Body) {
  return read(`${pathOf(waiting)}/submit_tool_outputs`, outputsFor(waiting))
}

/** `names`: of the events, deltas that follow each other as one. `last`: the object of the last event before `done`. */
async function read(path: string, body: object) {
  const { frames, ended } = await postStream(`${server.baseUrl}${path}`, body)
  expect(await ended).toBe('done')
  const events = frames.map(({ event }) => event)
  const objects = frames.map(objectOf)
  return {
    names: events.filter((event, n) => !event.endsWith('delta') || events[n - 1] !== event),
    frames: objects,
    last: objects.at(-1) as Body,
    text: frames.map(({ data }) => data).join('\n'),
  }
}

function objectOf({ data }: Frame): Body {
  return JSON.parse(data) as Body
}

function outputsFor(waiting: Body) {
  return {
    tool_outputs: functionsOf(waiting).map(({ id }) => ({
      tool_call_id: id,
      output: `output of ${id}`,
    })),
  }
}

function functionsOf({ required_action }: Body): { id: string; arguments: string }[] {
  const action = required_action as {
    submit_tool_outputs: { tool_calls: { id: string; function: { arguments: string } }[] }
  } | null
  return (action?.submit_tool_outputs.tool_calls ?? []).map((one) => ({
    id: one.id,
    arguments: one.function.arguments,
  }))
}

async function stepsOf(run: Body): Promise<Body[]> {
  return (await api.read(`${pathOf(run)}/steps?order=asc`)).data
}

/** The step of a message has none where its turn made calls too: their step carries it. */
function totalOf({ usage }: Body): number {
  return (usage as { total_tokens: number } | null)?.total_tokens ?? 0
}

function notAccepted(statuses: string): RegExp {
  return new RegExp(`^Runs in status "(${statuses})" do not accept tool outputs\\.$`)
}

function pathOf(run: Body): string {
  return `/threads/${String(run['thread_id'])}/runs/${run.id}`
}
