import { mkdtemp, writeFile } from 'node:fs/promises'
import { join } from 'node:path'

import { Client, Connection } from '@temporalio/client'
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest'

import {
  call,
  cutAfter,
  fail,
  insufficientQuota,
  rateLimited,
  say,
  stallAfter,
  startScriptedModel,
  type ScriptedModel,
} from '../support/model.ts'
import { checkEvents, parsed, postStream, undisturbed } from '../support/event-stream.ts'
import { terminateWorkflow } from '../support/own-parts.ts'
import { startServer, type TestServer } from '../support/server.ts'
import { createCaller, refusal, refused, type Body, type Caller } from './caller.ts'

let server: TestServer
let api: Caller
let first: ScriptedModel
let second: ScriptedModel
let third: ScriptedModel
beforeAll(async () => {
  ;[first, second, third] = await Promise.all([
    startScriptedModel(),
    startScriptedModel(),
    startScriptedModel(),
  ])
  const gone = await startScriptedModel()
  await gone.close()
  const models = [
    { name: 'first', base_url: first.url, api_key_env: 'FIRST_KEY' },
    { name: 'second', base_url: second.url, api_key: 'sk-second-key' },
    { name: 'third', base_url: third.url },
    { name: 'gone', base_url: gone.url },
  ]
  const file = join(await mkdtemp(join(inject('testDir'), 'fallback-')), 'models.json')
  await writeFile(file, JSON.stringify({ models }))
  server = await startServer({
    MODELS_FILE: file,
    FIRST_KEY: 'sk-first-key',
    MODEL_ATTEMPTS: '2',
    RECONCILE_S: '1',
  })
  api = createCaller(server)
})
afterAll(async () => {
  await server[Symbol.asyncDispose]()
  for (const model of [first, second, third]) await model.close()
})

const weather = { type: 'function', function: { name: 'weather' } }

describe('where the model does not answer, the next is asked', () => {
  test.each([
    ['after an error that stays', [fail(400, { message: 'No such thing.' })], 'invalid_prompt'],
    ['after one that cannot be stored', [fail(400, { message: 'No \0.' })], 'invalid_prompt'],
    ['after a quota that is used up', [insufficientQuota()], 'rate_limit_exceeded'],
    [
      'once its attempts are used up',
      [rateLimited({ ms: 10 }), rateLimited({ ms: 10 })],
      'rate_limit_exceeded',
    ],
  ])('%s', async (_, steps, code) => {
    first.script(...steps)
    second.script(say('Hello from the second.'))
    const { run, events, texts } = await streamed({ fallback_models: ['second', 'third'] })
    expect(run).toMatchObject({ status: 'completed', model: 'first', last_error: null })
    // The client sees nothing of it but in the step.
    expect(events).toEqual(undisturbed)
    expect(texts).toEqual(['Hello from the second.'])
    expect(await stepsOf(run)).toMatchObject([
      {
        longrun: {
          model: 'second',
          failed_models: [
            { model: 'first', code, message: expect.stringContaining(hostOf(first)) },
          ],
        },
      },
    ])
    expect(third.calls).toBe(0)
  })

  test('in the middle of an answer, which is begun anew', async () => {
    first.script(cutAfter(2, ['One ', 'two ', 'three']), cutAfter(1, ['One ', 'two ', 'three']))
    second.script(say('Whole.'))
    const { run, texts } = await streamed({ fallback_models: ['second'] })
    expect(run['status']).toBe('completed')
    expect(texts).toEqual(['One two ', 'One ', 'Whole.'])
    expect(await answersOf(run)).toEqual(['Whole.'])
    expect(await stepsOf(run)).toMatchObject([
      { status: 'completed', longrun: { model: 'second', failed_models: [{ model: 'first' }] } },
    ])
    // What was cut is in no prompt.
    expect(second.requests.at(-1)?.prompt).not.toContain('One')
  })

  test('when nobody is at home, and when nobody knows the name', async () => {
    second.script(say('At last.'))
    const run = await settled({ model: 'gone', fallback_models: ['nowhere', 'second'] })
    const [step] = await stepsOf(run)
    expect(longrunOf(step)).toEqual({
      model: 'second',
      failed_models: [
        {
          model: 'gone',
          code: 'server_error',
          message: expect.stringMatching(/'gone' at 127.* ECONNREFUSED .*tried 2 times\.$/),
        },
        {
          model: 'nowhere',
          code: 'invalid_prompt',
          message: expect.stringContaining("'nowhere' is not in the models file"),
        },
      ],
    })
  })

  test('and is asked from then on', async () => {
    first.script(fail(401, { message: 'No.' }))
    second.script(call({ name: 'weather', arguments: {} }), say('Rain.'))
    const asked = first.calls
    const waiting = await settled({ tools: [weather], fallback_models: ['second'] })
    expect(waiting['status']).toBe('requires_action')
    const over = await answered(waiting)
    expect(over['status']).toBe('completed')
    expect(first.calls).toBe(asked + 1)
    const expected = { model: 'second', failed_models: [{ model: 'first', code: 'server_error' }] }
    expect((await stepsOf(over)).map(longrunOf)).toMatchObject([expected, expected])
  })

  test('also where it is the assistant that names it, unless the run names none', async () => {
    const { id: assistant_id } = await api.make('/assistants', {
      model: 'first',
      fallback_models: ['second'],
    })
    first.script(fail(401, { message: 'No.' }))
    second.script(say('Yes.'))
    expect((await settled({ assistant_id, model: undefined }))['status']).toBe('completed')
    first.script(fail(401, { message: 'No.' }))
    const alone = await settled({ assistant_id, model: undefined, fallback_models: [] })
    expect(alone['status']).toBe('failed')
    expect(errorOf(alone).message).not.toContain('models tried')
  })
})

test('where none of them answers the run fails with the last error, and names them all', async () => {
  first.script(fail(400, { message: 'Too long.' }))
  second.script(insufficientQuota())
  const run = await settled({ fallback_models: ['second', 'first', 'gone'] })
  expect(run['status']).toBe('failed')
  expect(errorOf(run)).toEqual({
    code: 'server_error',
    message: expect.stringMatching(
      /^The connection to the model 'gone' at 127.* ECONNREFUSED .* The models tried were 'first', 'second', 'gone'\.$/,
    ),
  })
})

test('a run that is cancelled or expires asks nobody else', async () => {
  const before = second.calls
  const asked = first.called(first.calls + 1)
  first.script(stallAfter(1, 'Hello there.'))
  const run = await made({ fallback_models: ['second'] })
  await first.tokensOut(await asked, 1)
  await api.make(`${pathOf(run)}/cancel`)
  expect((await api.settled(run['thread_id'], run.id))['status']).toBe('cancelled')
  first.script(stallAfter(1, 'Hello there.'))
  const late = await settled({ fallback_models: ['second'], expires_after_seconds: 1 })
  expect(late['status']).toBe('expired')
  expect(second.calls).toBe(before)
})

test('a workflow that is begun anew asks the first model again, and tells nothing twice', async () => {
  first.script(fail(401, { message: 'No.' }))
  second.script(call({ name: 'weather', arguments: {} }), call({ name: 'weather', arguments: {} }))
  const waiting = await settled({ tools: [weather], fallback_models: ['second'] })
  await terminateWorkflow(waiting.id, inject('temporalAddress'))
  // It fails again: the second is asked, and the first named once.
  first.script(fail(401, { message: 'No.' }))
  const again = await answered(waiting)
  expect(again['status']).toBe('requires_action')
  const fallen = { model: 'second', failed_models: [{ model: 'first' }] }
  expect((await stepsOf(again)).map(longrunOf)).toMatchObject([fallen, fallen])
  await terminateWorkflow(waiting.id, inject('temporalAddress'))
  // It answers this time: nothing has failed.
  first.script(say('Rain.'))
  const over = await answered(again)
  expect(over['status']).toBe('completed')
  expect((await stepsOf(over)).map(longrunOf)).toMatchObject([
    fallen,
    fallen,
    { model: 'first', failed_models: [] },
  ])
})

test('operators see which model was asked, and nothing of what a provider said', async () => {
  first.script(fail(400, { message: 'The secret of the prompt is too long.' }))
  second.script(say('Yes.'))
  const run = await settled({ fallback_models: ['second'] })
  await using connection = await temporal()
  const { events } = await connection.client.workflow.getHandle(run.id).fetchHistory()
  const summaries = (events ?? []).flatMap(({ userMetadata }) =>
    userMetadata?.summary?.data ? [Buffer.from(userMetadata.summary.data).toString()] : [],
  )
  expect(summaries).toEqual(expect.arrayContaining(['"turn 1 · first"', '"turn 1 · second"']))
  const failures = (events ?? []).flatMap((event) => {
    const failure = event.activityTaskFailedEventAttributes?.failure
    return failure?.message ? [failure.message] : []
  })
  expect(failures.join()).toContain(`The model 'first' at ${hostOf(first)} answered 400.`)
  expect(failures.join()).not.toContain('secret')
})

test('two providers answer side by side, each with its own key', async () => {
  const bothAsked = Promise.all([first.called(first.calls + 1), second.called(second.calls + 1)])
  first.script(stallAfter(1, ['From ', 'the first.']))
  second.script(stallAfter(1, ['From ', 'the second.']))
  const runs = await Promise.all([made({ model: 'first' }), made({ model: 'second' })])
  const requests = await bothAsked
  expect(requests.map(({ headers }) => headers.authorization)).toEqual([
    'Bearer sk-first-key',
    'Bearer sk-second-key',
  ])
  expect(requests.map(({ body }) => body.model)).toEqual(['first', 'second'])
  for (const request of requests) request.release()
  const over = await Promise.all(runs.map((run) => api.settled(run['thread_id'], run.id)))
  expect(await Promise.all(over.map(answersOf))).toEqual([
    ['From the first.'],
    ['From the second.'],
  ])
})

test('eight models to fall back on are enough', async () => {
  const { id: assistant_id } = await api.make('/assistants', { model: 'first' })
  const names = Array.from({ length: 9 }, (_, n) => `m${n}`)
  const answer = await api.post('/threads/runs', { assistant_id, fallback_models: names })
  expect(refusal(answer)).toEqual(
    refused(
      400,
      "Invalid 'fallback_models': array too long. Expected an array with maximum length 8, but got an array with length 9 instead.",
      'fallback_models',
      'array_above_max_length',
    ),
  )
})

/** A run of the first model on a thread of its own. */
async function made(body: object = {}): Promise<Body> {
  const { id: assistant_id } = await api.make('/assistants', { model: 'third' })
  const thread = await api.make('/threads', { messages: [{ role: 'user', content: 'Hi' }] })
  return api.make(`/threads/${thread.id}/runs`, { assistant_id, model: 'first', ...body })
}

async function settled(body: object): Promise<Body> {
  const run = await made(body)
  return api.settled(run['thread_id'], run.id)
}

async function streamed(body: object) {
  const { id: assistant_id } = await api.make('/assistants', { model: 'first' })
  const thread = await api.make('/threads', { messages: [{ role: 'user', content: 'Hi' }] })
  const path = `/threads/${thread.id}/runs`
  const stream = await postStream(`${server.baseUrl}${path}`, { assistant_id, ...body })
  expect(await stream.ended).toBe('done')
  const checked = await checkEvents(parsed(stream.frames))
  const [run] = (await api.read(path)).data as [Body]
  return { run, ...checked }
}

/** The run once the outputs of all its calls have been handed in. */
async function answered(run: Body): Promise<Body> {
  const action = run['required_action'] as { submit_tool_outputs: { tool_calls: Body[] } }
  const outputs = action.submit_tool_outputs.tool_calls.map(({ id }) => ({
    tool_call_id: id,
    output: 'rain',
  }))
  await api.make(`${pathOf(run)}/submit_tool_outputs`, { tool_outputs: outputs })
  return api.settled(run['thread_id'], run.id)
}

async function stepsOf(run: Body): Promise<Body[]> {
  return (await api.read(`${pathOf(run)}/steps?order=asc`)).data
}

async function answersOf(run: Body): Promise<string[]> {
  const { data } = await api.read(`/threads/${String(run['thread_id'])}/messages?order=asc`)
  return data
    .filter(({ role }) => role === 'assistant')
    .map(({ content }) => (content as { text: { value: string } }[])[0]?.text.value ?? '')
}

async function temporal() {
  const connection = await Connection.connect({ address: inject('temporalAddress') })
  return {
    client: new Client({ connection, namespace: 'longrun' }),
    [Symbol.asyncDispose]: () => connection.close(),
  }
}

function longrunOf(step: Body | undefined): unknown {
  return step?.['longrun']
}

function errorOf(run: Body): { code: string; message: string } {
  return run['last_error'] as { code: string; message: string }
}

function pathOf(run: Body): string {
  return `/threads/${String(run['thread_id'])}/runs/${run.id}`
}

function hostOf({ url }: ScriptedModel): string {
  return new URL(url).host
}
