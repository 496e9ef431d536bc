import assert from 'node:assert/strict'
import { createRequire } from 'node:module'
import { createStreamRules } from './stream-rules.mjs'

/**
 * What the npm clients of assistants=v1 do (openai 4.20 to 4.36). `DIALECT=v2` puts the newer header in place of the one
 * that they send, as people did who could not upgrade: then only what both dialects share is done.
 */
export function openSdk(packageName, options) {
  const require = createRequire(new URL('../../sdks/package.json', import.meta.url))
  const { OpenAI, toFile } = require(packageName)
  const { VERSION: version } = require(`${packageName}/version`)
  const inV2 = process.env.DIALECT === 'v2'
  const client = new OpenAI({
    ...options,
    timeout: 30_000,
    ...(inV2 && { fetch: withHeader('OpenAI-Beta', 'assistants=v2') }),
  })
  return { version, client, toFile, errors: OpenAI, inV2 }
}

/** Older clients cannot stream, and have no helpers. */
export function scenariosOf({ client, inV2 }) {
  const hasHelpers = 'poll' in client.beta.threads.runs
  return {
    'create-poll': createPoll,
    functions,
    lists,
    crud,
    cancel,
    ...(!inV2 && { files, retrieval }),
    ...(hasHelpers && { helpers, stream }),
    ...(hasHelpers && !inV2 && { incomplete }),
  }
}

const EQUATION = 'I need to solve the equation `3x + 11 = 14`. Can you help me?'
const TUTOR = {
  name: 'Math Tutor',
  instructions: 'You are a personal math tutor. Write and run code to answer math questions.',
  tools: [{ type: 'code_interpreter' }],
}
const WEATHER = ['get_current_temperature', 'get_rain_probability'].map((name) => ({
  type: 'function',
  function: {
    name,
    description: `Knows the weather: ${name}`,
    parameters: {
      type: 'object',
      properties: { location: { type: 'string' } },
      required: ['location'],
    },
  },
}))
const ASK_WEATHER =
  'Use get_current_temperature and get_rain_probability for San Francisco and tell me about today.'

async function createPoll({ sdk, model, isDemo }) {
  const { threads, assistants } = sdk.client.beta
  const assistant = await assistants.create({ model, ...TUTOR })
  const thread = await threads.create()
  const question = await threads.messages.create(thread.id, { role: 'user', content: EQUATION })
  const begun = await threads.runs.create(thread.id, {
    assistant_id: assistant.id,
    instructions: 'Please address the user as Jane Doe.',
  })
  const run = await settled(sdk, begun)
  assertCompleted(run)
  assert.equal(run.instructions, 'Please address the user as Jane Doe.')
  const { data } = await threads.messages.list(thread.id)
  assert.equal(data.at(-1).id, question.id, 'the newest message comes first')
  assert.equal(data[0].run_id, run.id)
  const steps = (await threads.runs.steps.list(thread.id, run.id, { order: 'asc' })).data
  const types = steps.map((step) => step.type)
  assert.equal(types.at(-1), 'message_creation')
  const first = await threads.runs.steps.retrieve(thread.id, run.id, steps[0].id)
  assert.deepEqual(own(first), own(steps[0]))
  if (isDemo) {
    assert.match(textOf(data[0]), /x = 1/)
    assert.deepEqual(types, ['tool_calls', 'message_creation'])
  }
  await assistants.del(assistant.id)
  return { status: run.status, text: textOf(data[0]), steps: types }
}

async function functions({ sdk, model, isDemo }) {
  const { threads } = sdk.client.beta
  const { assistant, thread } = await prepare(sdk, model, { tools: WEATHER }, ASK_WEATHER)
  const begun = await threads.runs.create(thread.id, { assistant_id: assistant.id })
  const waiting = await settled(sdk, begun)
  const calls = assertRequiresAction(waiting)
  if (isDemo) {
    assert.deepEqual(
      calls.map((call) => call.function.name),
      WEATHER.map((tool) => tool.function.name),
    )
  }
  await threads.runs.submitToolOutputs(thread.id, waiting.id, outputsFor(calls))
  const run = await settled(sdk, waiting)
  assertCompleted(run)
  const steps = (await threads.runs.steps.list(thread.id, run.id, { order: 'asc' })).data
  const called = steps.find((step) => step.type === 'tool_calls')
  assert.deepEqual(
    called.step_details.tool_calls.map((call) => call.function.output),
    calls.map((call) => `output of ${call.function.name}`),
  )
  return { status: run.status, calls: calls.length }
}

async function lists({ sdk, model }) {
  const { assistants, threads } = sdk.client.beta
  const made = []
  for (let n = 0; n < 3; n += 1) made.push((await assistants.create({ model, name: `L${n}` })).id)
  const listed = await collect(assistants.list({ limit: 2, order: 'asc' }))
  assert.deepEqual(
    listed.filter((id) => made.includes(id)),
    made,
  )
  const contents = ['one', 'two', 'three', 'four', 'five']
  const thread = await threads.create({ messages: contents.map(user) })
  const found = []
  for await (const message of threads.messages.list(thread.id, { limit: 2, order: 'asc' })) {
    found.push(textOf(message))
  }
  assert.deepEqual(found, contents)
  const run = await settled(
    sdk,
    await threads.runs.create(thread.id, { assistant_id: made[0], ...TUTOR_RUN }),
  )
  assertCompleted(run)
  assert.deepEqual(await collect(threads.runs.list(thread.id, { limit: 1 })), [run.id])
  const steps = await collect(threads.runs.steps.list(thread.id, run.id, { limit: 1 }))
  assert.ok(steps.length > 0)
  for (const id of made) await assistants.del(id)
  return { messages: found.length, steps: steps.length }
}

const TUTOR_RUN = { tools: TUTOR.tools, model: 'gpt-4-turbo' }

async function crud({ sdk, model }) {
  const { assistants, threads } = sdk.client.beta
  const { BadRequestError, NotFoundError } = sdk.errors
  const wanted = {
    model,
    name: 'Clerk',
    description: 'Files things',
    instructions: 'File it.',
    metadata: { team: 'a' },
  }
  const assistant = await assistants.create({ ...wanted, tools: [WEATHER[0], ...TUTOR.tools] })
  for (const [key, value] of Object.entries(wanted)) assert.deepEqual(assistant[key], value)
  assert.equal(assistant.tools[0].function.name, 'get_current_temperature')
  assert.deepEqual(own(await assistants.retrieve(assistant.id)), own(assistant))
  const renamed = await assistants.update(assistant.id, { name: 'Chief' })
  assert.deepEqual([renamed.name, renamed.instructions], ['Chief', 'File it.'])

  const thread = await threads.create({ messages: [user('First')], metadata: { topic: 'x' } })
  assert.equal((await threads.retrieve(thread.id)).metadata.topic, 'x')
  const moved = await threads.update(thread.id, { metadata: { topic: 'y' } })
  assert.equal(moved.metadata.topic, 'y')
  const message = await threads.messages.create(thread.id, {
    role: 'user',
    content: 'Grüße 👋🏽',
    metadata: { n: '1' },
  })
  assert.equal(textOf(message), 'Grüße 👋🏽')
  assert.deepEqual(own(await threads.messages.retrieve(thread.id, message.id)), own(message))
  const noted = await threads.messages.update(thread.id, message.id, { metadata: { n: '2' } })
  assert.equal(noted.metadata.n, '2')
  await assert.rejects(assistants.create({ model, nonsense: 1 }), BadRequestError)
  assert.equal((await threads.del(thread.id)).object, 'thread.deleted')
  await assert.rejects(threads.retrieve(thread.id), NotFoundError)
  assert.equal((await assistants.del(assistant.id)).object, 'assistant.deleted')
  return { thread: thread.id }
}

async function cancel({ sdk, model }) {
  const { threads } = sdk.client.beta
  const { assistant, thread } = await prepare(sdk, model, { tools: WEATHER }, ASK_WEATHER)
  const begun = await threads.runs.create(thread.id, { assistant_id: assistant.id })
  assertRequiresAction(await settled(sdk, begun))
  const noted = await threads.runs.update(thread.id, begun.id, { metadata: { n: '1' } })
  assert.deepEqual(noted.metadata, { n: '1' })
  const cancelling = await threads.runs.cancel(thread.id, begun.id)
  assert.match(cancelling.status, /^cancell(ing|ed)$/)
  const run = await settled(sdk, begun)
  assert.equal(run.status, 'cancelled')
  return { status: run.status }
}

async function files({ sdk, model }) {
  const { client, errors } = sdk
  const { assistants, threads } = client.beta
  const [a, b, c] = await Promise.all(['a', 'b', 'c'].map((name) => upload(sdk, name)))
  const tools = [{ type: 'retrieval' }, { type: 'code_interpreter' }]
  const assistant = await assistants.create({ model, tools, file_ids: [a, b] })
  assert.deepEqual(assistant.tools, tools)
  assert.deepEqual(assistant.file_ids, [a, b])

  const attached = await assistants.files.create(assistant.id, { file_id: c })
  assert.deepEqual([attached.object, attached.id], ['assistant.file', c])
  assert.deepEqual(await collect(assistants.files.list(assistant.id, { limit: 2 })), [c, b, a])
  assert.deepEqual(own(await assistants.files.retrieve(assistant.id, c)), own(attached))
  const detached = await assistants.files.del(assistant.id, c)
  assert.deepEqual([detached.object, detached.deleted], ['assistant.file.deleted', true])
  await assert.rejects(assistants.files.retrieve(assistant.id, c), errors.NotFoundError)
  const shorter = await assistants.update(assistant.id, { file_ids: [b] })
  assert.deepEqual(shorter.file_ids, [b])
  await client.files.del(b)
  assert.deepEqual((await assistants.retrieve(assistant.id)).file_ids, [])

  const thread = await threads.create({ messages: [{ ...user('Read it.'), file_ids: [a] }] })
  const message = await threads.messages.create(thread.id, { ...user('Both.'), file_ids: [a, c] })
  assert.deepEqual(message.file_ids, [a, c])
  const listed = await collect(threads.messages.files.list(thread.id, message.id, { order: 'asc' }))
  assert.deepEqual(listed, [a, c])
  const file = await threads.messages.files.retrieve(thread.id, message.id, c)
  assert.deepEqual([file.object, file.message_id], ['thread.message.file', message.id])

  const kept = await client.files.retrieve(a)
  assert.deepEqual([kept.object, kept.purpose], ['file', 'assistants'])
  assert.ok((await collect(client.files.list())).includes(a))
  assert.equal(await (await client.files.content(a)).text(), 'This is a.')
  const [{ id: name }] = (await client.models.list()).data
  assert.equal((await client.models.retrieve(name)).object, 'model')
  return { files: [a, b, c] }
}

async function retrieval({ sdk, model, isDemo }) {
  const { threads } = sdk.client.beta
  const body = { tools: [{ type: 'retrieval' }], file_ids: [await upload(sdk, 'notes')] }
  const { assistant, thread } = await prepare(sdk, model, body, 'What do my notes say?')
  const begun = await threads.runs.create(thread.id, { assistant_id: assistant.id })
  assert.deepEqual([begun.tools, begun.file_ids], [assistant.tools, assistant.file_ids])
  const run = await settled(sdk, begun)
  assertCompleted(run)
  const steps = (await threads.runs.steps.list(thread.id, run.id, { order: 'asc' })).data
  const calls = steps.flatMap((step) => step.step_details.tool_calls ?? [])
  for (const call of calls) assert.deepEqual([call.type, call.retrieval], ['retrieval', {}])
  if (isDemo) assert.equal(calls.length, 1)
  return { calls: calls.length }
}

async function helpers({ sdk, model }) {
  const { threads } = sdk.client.beta
  const { assistant, thread } = await prepare(sdk, model, { tools: WEATHER }, ASK_WEATHER)
  const waiting = await threads.runs.createAndPoll(thread.id, { assistant_id: assistant.id })
  const calls = assertRequiresAction(waiting)
  const { submitToolOutputsAndPoll } = threads.runs
  const done = await submitToolOutputsAndPoll.call(
    threads.runs,
    thread.id,
    waiting.id,
    outputsFor(calls),
  )
  assertCompleted(done)
  const both = await threads.createAndRunPoll({
    assistant_id: assistant.id,
    thread: { messages: [user('Hello there.')] },
  })
  assertCompleted(both)
  return { status: done.status }
}

async function stream({ sdk, model, isDemo }) {
  const { threads } = sdk.client.beta
  const { assistant, thread } = await prepare(sdk, model, TUTOR, EQUATION)
  const helper = threads.runs.stream(thread.id, { assistant_id: assistant.id })
  const seen = { text: '', code: '' }
  helper
    .on('textDelta', (delta) => (seen.text += delta.value ?? ''))
    .on('toolCallDelta', (delta) => (seen.code += delta.code_interpreter?.input ?? ''))
  const run = await helper.finalRun()
  assertCompleted(run)
  const messages = await helper.finalMessages()
  const stored = (await threads.messages.list(thread.id, { order: 'asc' })).data
  const truth = stored.filter(({ run_id }) => run_id === run.id)
  assert.equal(seen.text, truth.map(textOf).join(''), 'the thread holds what was streamed')
  assert.deepEqual(messages.map(textOf), truth.map(textOf))
  if (isDemo) assert.match(seen.code, /3x \+ 11 = 14/)

  const weather = await prepare(sdk, model, { tools: WEATHER }, ASK_WEATHER)
  const asks = threads.runs.stream(weather.thread.id, { assistant_id: weather.assistant.id })
  const waiting = await asks.finalRun()
  const outputs = outputsFor(assertRequiresAction(waiting))
  const goesOn = threads.runs.submitToolOutputsStream(weather.thread.id, waiting.id, outputs)
  assertCompleted(await goesOn.finalRun())

  await threads.messages.create(thread.id, user(EQUATION))
  const rules = createStreamRules()
  const raw = await threads.runs.create(thread.id, { assistant_id: assistant.id, stream: true })
  for await (const event of raw) rules.see(event)
  const facts = rules.end()
  assert.equal(facts.runStatus, 'completed')
  const created = { assistant_id: assistant.id, thread: { messages: [user(EQUATION)] } }
  const whole = await threads.createAndRun({ ...created, stream: true })
  const names = []
  for await (const { event } of whole) names.push(event)
  assert.deepEqual([names[0], names.at(-1)], ['thread.created', 'thread.run.completed'])
  return facts
}

/** No status and no event of v1 says `incomplete`: its helpers would wait for ever, or without a pause. */
async function incomplete({ sdk, model }) {
  const { threads } = sdk.client.beta
  const { assistant, thread } = await prepare(sdk, model, {}, 'Please count to 100.')
  const body = { assistant_id: assistant.id, max_completion_tokens: 16 }
  const polled = await threads.runs.createAndPoll(thread.id, body)
  const streamed = await threads.runs.stream(thread.id, body).finalRun()
  for (const run of [polled, streamed]) {
    assert.equal(run.status, 'completed')
    assert.equal(run.incomplete_details.reason, 'max_completion_tokens')
  }
  return { status: polled.status }
}

/** A helper of ours: the oldest clients have none. */
async function settled(sdk, { id, thread_id }) {
  for (;;) {
    const run = await sdk.client.beta.threads.runs.retrieve(thread_id, id)
    if (!['queued', 'in_progress', 'cancelling'].includes(run.status)) return run
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}

async function prepare(sdk, model, assistantBody, content) {
  const assistant = await sdk.client.beta.assistants.create({ model, ...assistantBody })
  const thread = await sdk.client.beta.threads.create({ messages: [user(content)] })
  return { assistant, thread }
}

async function upload(sdk, name) {
  const file = await sdk.toFile(Buffer.from(`This is ${name}.`), `${name}.txt`)
  return (await sdk.client.files.create({ file, purpose: 'assistants' })).id
}

async function collect(pages) {
  const ids = []
  for await (const item of pages) ids.push(item.id)
  return ids
}

function assertCompleted(run) {
  assert.equal(run.status, 'completed', `the run is ${run.status}: ${run.last_error?.message}`)
}

function assertRequiresAction(run) {
  const why = `the run is ${run.status}: ${run.last_error?.message}`
  assert.equal(run.status, 'requires_action', why)
  return run.required_action.submit_tool_outputs.tool_calls
}

function outputsFor(calls) {
  return {
    tool_outputs: calls.map((call) => ({
      tool_call_id: call.id,
      output: `output of ${call.function.name}`,
    })),
  }
}

function withHeader(name, value) {
  return (url, init) => {
    const headers = new Headers(init.headers)
    headers.set(name, value)
    return fetch(url, { ...init, headers })
  }
}

function user(content) {
  return { role: 'user', content }
}

function textOf(message) {
  return message.content.map((part) => part.text?.value ?? '').join('')
}

function own(object) {
  return JSON.parse(JSON.stringify(object))
}
