import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { createReadStream, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createStreamRules } from './stream-rules.mjs'

/** Each takes `{sdk, model, isDemo}`, throws when something is not as documented, returns facts. */
export const scenarios = {
  'create-poll': createPoll,
  'stream-helper': streamHelper,
  'stream-raw': streamRaw,
  'create-and-run': createAndRun,
  lists,
  crud,
  functions,
  'one-run': oneRun,
  cancel,
  'to-readable-stream': toReadableStream,
  models,
  files,
  uploads,
}

const EQUATION = 'I need to solve the equation `3x + 11 = 14`. Can you help me?'
const TUTOR = {
  name: 'Math Tutor',
  instructions: 'You are a personal math tutor. Write and run code to answer math questions.',
  tools: [{ type: 'code_interpreter' }],
}
const WEATHER = [
  {
    type: 'function',
    function: {
      name: 'get_current_temperature',
      description: 'Get the current temperature for a specific location',
      parameters: {
        type: 'object',
        properties: {
          location: { type: 'string', description: 'The city and state, e.g., San Francisco, CA' },
          unit: { type: 'string', enum: ['Celsius', 'Fahrenheit'] },
        },
        required: ['location', 'unit'],
      },
    },
  },
  {
    type: 'function',
    function: {
      name: 'get_rain_probability',
      description: 'Get the probability of rain for a specific location',
      parameters: {
        type: 'object',
        properties: { location: { type: 'string' } },
        required: ['location'],
      },
    },
  },
]
const INCLUDE = ['step_details.tool_calls[*].file_search.results[*].content']
const ASK_WEATHER =
  'Use get_current_temperature and get_rain_probability for San Francisco and tell me about today.'

async function createPoll({ sdk, model, isDemo }) {
  const { threads } = sdk.client.beta
  const assistant = await sdk.client.beta.assistants.create({ model, ...TUTOR })
  const thread = await threads.create()
  const question = await threads.messages.create(thread.id, { role: 'user', content: EQUATION })
  const run = await threads.runs.createAndPoll(thread.id, {
    assistant_id: assistant.id,
    instructions: 'Please address the user as Jane Doe.',
  })
  assertCompleted(run)
  assert.equal(run.instructions, 'Please address the user as Jane Doe.')
  assert.equal(run.thread_id, thread.id)
  assert.deepEqual(run.tools, TUTOR.tools)

  const { data } = await threads.messages.list(thread.id)
  assert.equal(data.at(-1).id, question.id, 'the newest message comes first')
  const [answer] = data
  assert.equal(answer.role, 'assistant')
  assert.equal(answer.run_id, run.id)
  assert.equal(answer.assistant_id, assistant.id)
  assert.ok(Array.isArray(answer.content[0].text.annotations))
  const text = textOf(answer)
  assert.notEqual(text, '')

  const steps = (await sdk.listSteps(thread.id, run.id, { order: 'asc' })).data
  const types = steps.map((step) => step.type)
  assert.equal(types.at(-1), 'message_creation')
  assert.equal(
    steps.reduce((sum, step) => sum + step.usage.total_tokens, 0),
    run.usage.total_tokens,
    'the usage of a run is the sum of its steps',
  )
  const code = steps.flatMap((step) => step.step_details.tool_calls ?? [])
  if (isDemo) {
    assert.match(text, /x = 1/)
    assert.deepEqual(types, ['tool_calls', 'message_creation'])
    assert.match(code[0].code_interpreter.input, /3x \+ 11 = 14/)
  }
  const first = await sdk.retrieveStep(thread.id, run.id, steps[0].id)
  assert.equal(first.id, steps[0].id)
  await sdk.deleteAssistant(assistant.id)
  return { status: run.status, text, steps: types, outputs: code[0]?.code_interpreter?.outputs }
}

async function streamHelper({ sdk, model, isDemo }) {
  const { assistant, thread } = await prepare(sdk, model, TUTOR, EQUATION)
  const stream = sdk.client.beta.threads.runs.stream(thread.id, { assistant_id: assistant.id })
  const seen = { order: [], texts: [], doneTexts: [], code: '', doneCode: '', raw: [] }
  const note = (name) => seen.order.at(-1) !== name && seen.order.push(name)
  stream
    .on('event', (event) => seen.raw.push(event.event))
    .on('messageCreated', () => note('messageCreated'))
    .on('textCreated', () => note('textCreated') && seen.texts.push(''))
    .on('textDelta', (delta, snapshot) => {
      note('textDelta')
      seen.texts.push(seen.texts.pop() + (delta.value ?? ''))
      assert.equal(snapshot.value, seen.texts.at(-1), 'the snapshot is the sum of its deltas')
    })
    .on('textDone', (text) => note('textDone') && seen.doneTexts.push(text.value))
    .on('messageDone', (message) => {
      note('messageDone')
      assert.equal(message.status, 'completed')
    })
    .on('runStepCreated', () => note('runStepCreated'))
    .on('runStepDone', (step) => {
      note('runStepDone')
      assert.equal(step.status, 'completed')
    })
    .on('toolCallCreated', () => note('toolCallCreated'))
    .on('toolCallDelta', (delta) => {
      note('toolCallDelta')
      seen.code += delta.code_interpreter?.input ?? ''
    })
    .on('toolCallDone', (call) => {
      note('toolCallDone')
      seen.doneCode += call.code_interpreter?.input ?? ''
    })
    .on('end', () => note('end'))

  const [run, steps, messages] = [
    await stream.finalRun(),
    await stream.finalRunSteps(),
    await stream.finalMessages(),
  ]
  await stream.done()
  assertCompleted(run)
  assert.deepEqual(seen.texts, seen.doneTexts, 'deltas and done texts are the same')
  assert.deepEqual(seen.doneTexts, messages.map(textOf))
  const stored = (await sdk.client.beta.threads.messages.list(thread.id, { run_id: run.id })).data
  assert.deepEqual(stored.toReversed().map(textOf), seen.texts, 'the thread holds the same text')
  assert.equal(seen.code, seen.doneCode)
  assert.equal(steps.at(-1).type, 'message_creation')
  if (isDemo) {
    assert.match(seen.texts.at(-1), /x = 1/)
    assert.match(seen.code, /3x \+ 11 = 14/)
  }
  return { status: run.status, texts: seen.texts, handlers: seen.order, events: seen.raw.length }
}

async function streamRaw({ sdk, model, isDemo }) {
  const { assistant, thread } = await prepare(sdk, model, TUTOR, EQUATION)
  const stream = await sdk.client.beta.threads.runs.create(thread.id, {
    assistant_id: assistant.id,
    stream: true,
  })
  const facts = await follow(stream)
  assert.equal(facts.runStatus, 'completed')
  if (isDemo) assert.deepEqual(facts.stepTypes, ['tool_calls', 'message_creation'])
  return facts
}

async function createAndRun({ sdk, model }) {
  const { threads } = sdk.client.beta
  const assistant = await sdk.client.beta.assistants.create({ model })
  const body = () => ({
    assistant_id: assistant.id,
    thread: { messages: [{ role: 'user', content: 'Hello there.' }] },
  })
  const polled = await threads.createAndRunPoll(body())
  assertCompleted(polled)

  const stream = threads.createAndRunStream(body())
  const events = []
  stream.on('event', (event) => events.push(event))
  const streamed = await stream.finalRun()
  assertCompleted(streamed)
  assert.equal(events[0].event, 'thread.created')
  assert.equal(events[0].data.id, streamed.thread_id)

  const raw = await follow(await threads.createAndRun({ ...body(), stream: true }))
  assert.equal(raw.events[0], 'thread.created')
  return { polled: polled.status, streamed: streamed.status, events: raw.events }
}

async function lists({ sdk, model }) {
  const { assistants, threads } = sdk.client.beta
  const made = []
  for (let n = 1; n <= 5; n += 1) made.push((await assistants.create({ model, name: `L${n}` })).id)
  const mine = async (order) =>
    (await collect(assistants.list({ limit: 2, order }))).filter((id) => made.includes(id))
  assert.deepEqual(await mine('asc'), made)
  assert.deepEqual(await mine('desc'), made.toReversed())

  const contents = ['one', 'two', 'three', 'four', 'five', 'six', 'seven']
  const thread = await threads.create({
    messages: contents.slice(0, 5).map((content) => ({ role: 'user', content })),
  })
  for (const content of contents.slice(5)) {
    await threads.messages.create(thread.id, { role: 'user', content })
  }
  const page = await threads.messages.list(thread.id, { limit: 3, order: 'asc' })
  assert.equal(page.data.length, 3)
  assert.equal(page.has_more ?? page.body?.has_more, true)
  assert.ok(page.hasNextPage())
  const texts = []
  const ids = []
  for await (const message of page) {
    texts.push(textOf(message))
    ids.push(message.id)
  }
  assert.deepEqual(texts, contents, 'messages keep their order over pages')
  const newest = await collect(threads.messages.list(thread.id, { limit: 3 }))
  assert.deepEqual(newest, ids.toReversed())
  const before = await threads.messages.list(thread.id, { before: ids[3], limit: 2, order: 'asc' })
  assert.deepEqual(
    before.data.map((message) => message.id),
    ids.slice(1, 3),
    'before is the page that precedes',
  )

  const runIds = []
  for (let n = 0; n < 3; n += 1) {
    const run = await threads.runs.createAndPoll(thread.id, {
      assistant_id: made[0],
      ...(n === 2 && { tools: TUTOR.tools, additional_messages: [user(EQUATION)] }),
    })
    assertCompleted(run)
    runIds.push(run.id)
  }
  const listed = await collect(threads.runs.list(thread.id, { limit: 2 }))
  assert.deepEqual(listed, runIds.toReversed())

  const steps = await collect(sdk.listSteps(thread.id, runIds[2], { limit: 1 }))
  assert.ok(steps.length > 0)
  assert.equal(new Set(steps).size, steps.length)
  const backwards = await collect(sdk.listSteps(thread.id, runIds[2], { limit: 1, order: 'asc' }))
  assert.deepEqual(backwards, steps.toReversed())

  const empty = await threads.messages.list((await threads.create()).id)
  assert.deepEqual(empty.data, [])
  for (const id of made) await sdk.deleteAssistant(id)
  return { assistants: made.length, messages: ids.length, runs: listed.length, steps: steps.length }
}

async function crud({ sdk, model }) {
  const { assistants, threads } = sdk.client.beta
  const { NotFoundError, BadRequestError } = sdk.errors
  const wanted = {
    model,
    name: 'Clerk',
    description: 'Files things',
    instructions: 'File it.',
    tools: [...WEATHER.slice(0, 1), { type: 'code_interpreter' }],
    metadata: { team: 'a' },
    temperature: 0.5,
    top_p: 0.9,
  }
  const assistant = await assistants.create(wanted)
  assert.match(assistant.id, /^asst_/)
  assert.equal(assistant.object, 'assistant')
  const { tools, ...plain } = wanted
  for (const [key, value] of Object.entries(plain)) assert.deepEqual(assistant[key], value, key)
  assert.equal(assistant.tools[0].function.name, tools[0].function.name)
  assert.deepEqual(own(await assistants.retrieve(assistant.id)), own(assistant))
  const renamed = await assistants.update(assistant.id, { name: 'Chief', metadata: { rank: '1' } })
  assert.equal(renamed.name, 'Chief')
  assert.equal(renamed.instructions, wanted.instructions)
  assert.equal(renamed.metadata.rank, '1')

  const thread = await threads.create({
    messages: [user('First'), { role: 'assistant', content: 'Second' }],
    metadata: { topic: 'x' },
  })
  assert.match(thread.id, /^thread_/)
  assert.equal((await threads.retrieve(thread.id)).metadata.topic, 'x')
  assert.equal((await threads.update(thread.id, { metadata: { topic: 'y' } })).metadata.topic, 'y')

  const message = await threads.messages.create(thread.id, {
    role: 'user',
    content: [
      { type: 'text', text: 'Grüße 👋🏽' },
      { type: 'image_url', image_url: { url: 'https://example.com/a.png' } },
    ],
    metadata: { n: '1' },
  })
  assert.equal(message.content[0].text.value, 'Grüße 👋🏽')
  assert.equal(message.content[1].image_url.detail, 'auto')
  assert.deepEqual(own(await sdk.retrieveMessage(thread.id, message.id)), own(message))
  const noted = await sdk.updateMessage(thread.id, message.id, { metadata: { n: '2' } })
  assert.equal(noted.metadata.n, '2')
  const gone = await sdk.deleteMessage(thread.id, message.id)
  assert.deepEqual(own(gone), { id: message.id, object: 'thread.message.deleted', deleted: true })
  await assert.rejects(sdk.retrieveMessage(thread.id, message.id), NotFoundError)

  await assert.rejects(assistants.create({ name: 'no model' }), BadRequestError)
  await assert.rejects(assistants.create({ model, nonsense: 1 }), BadRequestError)
  const { deleted, object } = await sdk.deleteThread(thread.id)
  assert.deepEqual({ deleted, object }, { deleted: true, object: 'thread.deleted' })
  await assert.rejects(threads.retrieve(thread.id), NotFoundError)
  assert.equal((await sdk.deleteAssistant(assistant.id)).object, 'assistant.deleted')
  const missing = await assistants.retrieve(assistant.id).catch((error) => error)
  assert.ok(missing instanceof NotFoundError)
  return { missing: missing.message }
}

async function functions({ sdk, model, isDemo }) {
  const { runs } = sdk.client.beta.threads
  const { assistant, thread } = await prepare(sdk, model, { tools: WEATHER }, ASK_WEATHER)
  const waiting = await runs.createAndPoll(thread.id, { assistant_id: assistant.id })
  const calls = assertRequiresAction(waiting)
  if (isDemo) {
    assert.deepEqual(
      calls.map((call) => call.function.name),
      WEATHER.map((tool) => tool.function.name),
    )
  }
  assert.equal(waiting.usage, null)
  const wrong = { tool_outputs: [{ tool_call_id: 'call_unknown', output: '' }] }
  const { BadRequestError } = sdk.errors
  await assert.rejects(sdk.submit(thread.id, waiting.id, wrong), BadRequestError)

  const done = await sdk.submitAndPoll(thread.id, waiting.id, outputsFor(calls))
  assertCompleted(done)
  assert.equal(done.required_action, null)
  const steps = (await sdk.listSteps(thread.id, done.id, { order: 'asc' })).data
  const [called] = steps.filter((step) => step.type === 'tool_calls')
  assert.deepEqual(
    called.step_details.tool_calls.map((call) => call.function.output),
    calls.map((call) => `output of ${call.function.name}`),
  )

  // The same again, streamed, with the raw order of both streams checked.
  await sdk.client.beta.threads.messages.create(thread.id, user(ASK_WEATHER))
  const first = runs.stream(thread.id, { assistant_id: assistant.id })
  const firstRules = createStreamRules()
  let streamedArguments = ''
  first.on('event', (event) => firstRules.see(snapshotOf(event)))
  first.on('toolCallDelta', (delta) => {
    streamedArguments += delta.function?.arguments ?? ''
  })
  const paused = await first.finalRun()
  await first.done()
  const open = assertRequiresAction(paused)
  assert.equal(streamedArguments, open.map((call) => call.function.arguments).join(''))

  const second = sdk.submitAndStream(thread.id, paused.id, outputsFor(open))
  const secondRules = createStreamRules({ continues: true })
  let text = ''
  second.on('event', (event) => secondRules.see(snapshotOf(event)))
  second.on('textDelta', (delta) => {
    text += delta.value ?? ''
  })
  assertCompleted(await second.finalRun())
  await second.done()
  assert.equal((await second.finalMessages()).map(textOf).join(''), text)
  if (isDemo)
    for (const call of open) assert.match(text, new RegExp(`output of ${call.function.name}`))
  return {
    calls: calls.map((call) => [call.function.name, call.function.arguments]),
    text,
    first: firstRules.end().events,
    second: secondRules.end().events,
  }
}

/** What no helper of the clients calls: each method of a run by itself. */
async function oneRun({ sdk, model }) {
  const { threads } = sdk.client.beta
  const { assistant, thread } = await prepare(sdk, model, { tools: WEATHER }, ASK_WEATHER)
  const created = await threads.runs.create(thread.id, {
    assistant_id: assistant.id,
    metadata: { n: '1' },
    include: INCLUDE,
  })
  assert.equal(created.status, 'queued')
  const noted = await sdk.updateRun(thread.id, created.id, { metadata: { n: '2' } })
  assert.equal(noted.metadata.n, '2')
  const waiting = await sdk.pollRun(thread.id, created.id)
  const calls = assertRequiresAction(waiting)
  const read = await sdk.retrieveRun(thread.id, created.id)
  assert.deepEqual(own(read), own(waiting))
  const [step] = (await sdk.listSteps(thread.id, created.id, { include: INCLUDE })).data
  const same = await sdk.retrieveStep(thread.id, created.id, step.id, { include: INCLUDE })
  assert.deepEqual(own(same), own(step))

  const stream = await sdk.submit(thread.id, created.id, { ...outputsFor(calls), stream: true })
  const facts = await follow(stream, { continues: true })
  assert.equal(facts.runStatus, 'completed')

  const second = await threads.createAndRun({
    assistant_id: assistant.id,
    thread: { messages: [user(ASK_WEATHER)] },
  })
  const paused = await sdk.pollRun(second.thread_id, second.id)
  const outputs = outputsFor(assertRequiresAction(paused))
  const resumed = await sdk.submit(second.thread_id, second.id, outputs)
  assert.equal(resumed.id, second.id)
  assertCompleted(await sdk.pollRun(second.thread_id, second.id))

  const listed = await threads.runs.list(thread.id, { limit: 1, order: 'asc' })
  assert.equal(listed.data[0].id, created.id)
  const after = await threads.runs.list(thread.id, { after: created.id })
  assert.deepEqual(after.data, [])
  return { events: facts.events }
}

async function cancel({ sdk, model, isDemo }) {
  const { messages, runs } = sdk.client.beta.threads
  const { BadRequestError } = sdk.errors
  const { assistant, thread } = await prepare(sdk, model, { tools: WEATHER }, ASK_WEATHER)
  const waiting = await runs.createAndPoll(thread.id, { assistant_id: assistant.id })
  assertRequiresAction(waiting)
  await assert.rejects(messages.create(thread.id, user('Locked?')), BadRequestError)
  const locked = await runs.create(thread.id, { assistant_id: assistant.id }).catch((e) => e)
  assert.ok(locked instanceof BadRequestError)
  const cancelling = await sdk.cancelRun(thread.id, waiting.id)
  assert.ok(['cancelling', 'cancelled'].includes(cancelling.status), cancelling.status)
  const cancelled = await sdk.pollRun(thread.id, waiting.id)
  assert.equal(cancelled.status, 'cancelled')
  assert.equal(typeof cancelled.cancelled_at, 'number')
  const again = await sdk.cancelRun(thread.id, waiting.id).catch((error) => error)
  assert.ok(again instanceof BadRequestError)

  // While it writes: only a model that takes its time can be cancelled for sure.
  await messages.create(thread.id, user('Please count to 900.'))
  const stream = await runs.create(thread.id, { assistant_id: assistant.id, stream: true })
  const rules = createStreamRules()
  let isCancelled = false
  let last
  for await (const event of stream) {
    rules.see(event)
    if (event.event === 'thread.message.incomplete') last = event.data
    if (isCancelled || event.event !== 'thread.message.delta') continue
    isCancelled = true
    const run = (await runs.list(thread.id, { limit: 1 })).data[0]
    await sdk.cancelRun(thread.id, run.id)
  }
  const facts = rules.end()
  if (isDemo) {
    assert.equal(facts.runStatus, 'cancelled')
    assert.equal(last.incomplete_details.reason, 'run_cancelled')
  }
  await messages.create(thread.id, user('Free again?'))
  return { locked: locked.message, again: again.message, events: facts.events }
}

async function toReadableStream({ sdk, model }) {
  const { assistant, thread } = await prepare(sdk, model, TUTOR, EQUATION)
  const stream = sdk.client.beta.threads.runs.stream(thread.id, { assistant_id: assistant.id })
  const behind = sdk.AssistantStream.fromReadableStream(stream.toReadableStream())
  let streamed = ''
  behind.on('textDelta', (delta) => {
    streamed += delta.value ?? ''
  })
  const run = await behind.finalRun()
  assertCompleted(run)
  const final = (await behind.finalMessages()).map(textOf).join('')
  const stored = (await sdk.client.beta.threads.messages.list(thread.id, { run_id: run.id })).data
  const truth = stored.toReversed().map(textOf).join('')
  assert.equal(final, truth, 'the final message is what the thread holds')
  assert.equal(streamed, truth, 'the piped deltas are what the thread holds')
  return { text: truth }
}

async function models({ sdk }) {
  const { NotFoundError } = sdk.errors
  const listed = await collect(sdk.client.models.list())
  assert.ok(listed.length > 0)
  const first = await sdk.client.models.retrieve(listed[0])
  assert.equal(first.object, 'model')
  assert.equal(first.id, listed[0])
  const missing = await sdk.client.models.retrieve('no-such-model').catch((error) => error)
  // A server that lets every name pass may know this one too; it may not fail in any other way.
  assert.ok(missing instanceof NotFoundError || missing.object === 'model', String(missing))
  return { models: listed }
}

async function files({ sdk }) {
  const { files } = sdk.client
  const folder = mkdtempSync(join(tmpdir(), 'longrun-files-'))
  const path = join(folder, 'Größe "1".txt')
  writeFileSync(path, 'from a disk')
  const memory = Buffer.from('{"from": "memory"}')
  const sources = [
    { file: createReadStream(path), filename: 'Größe "1".txt', text: 'from a disk' },
    {
      file: await sdk.errors.toFile(memory, '日本語.json', { type: 'application/json' }),
      filename: '日本語.json',
      text: memory.toString(),
    },
  ]
  const ids = []
  for (const { file, filename, text } of sources) {
    const made = await files.create({ file, purpose: 'assistants' })
    ids.push(made.id)
    assert.equal(made.object, 'file')
    assert.equal(made.filename, filename)
    assert.equal(made.bytes, Buffer.byteLength(text))
    assert.equal(made.status, 'processed')
    assert.deepEqual(await files.retrieve(made.id), made)
    assert.equal((await files.waitForProcessing(made.id)).id, made.id)
    assert.equal(await (await files.content(made.id)).text(), text)
  }
  rmSync(folder, { recursive: true })

  const batch = await files.create({
    file: await sdk.errors.toFile(Buffer.from('{}'), 'batch.jsonl'),
    purpose: 'batch',
  })
  assert.equal(batch.expires_at - batch.created_at, 2_592_000)
  const listed = await collect(files.list({ purpose: 'assistants' }))
  assert.ok(ids.every((id) => listed.includes(id)))
  assert.ok(!listed.includes(batch.id))

  await assert.rejects(
    files.create({ file: await sdk.errors.toFile(memory, 'a'), purpose: 'notes' }),
    sdk.errors.BadRequestError,
  )
  for (const id of [...ids, batch.id]) assert.equal((await sdk.deleteFile(id)).deleted, true)
  await assert.rejects(files.retrieve(ids[0]), sdk.errors.NotFoundError)
  return { ids }
}

async function uploads({ sdk }) {
  const { uploads, files } = sdk.client
  const contents = ['{"n": 1}\n', '{"n": 2}\n']
  const upload = await uploads.create({
    filename: 'lines.jsonl',
    purpose: 'fine-tune',
    bytes: Buffer.byteLength(contents.join('')),
    mime_type: 'application/jsonl',
  })
  assert.equal(upload.status, 'pending')
  const parts = await Promise.all(
    contents.map(async (content) =>
      uploads.parts.create(upload.id, { data: await sdk.errors.toFile(Buffer.from(content)) }),
    ),
  )
  const done = await uploads.complete(upload.id, {
    part_ids: parts.map((part) => part.id),
    md5: createHash('md5').update(contents.join('')).digest('hex'),
  })
  assert.equal(done.status, 'completed')
  assert.equal(done.file.filename, 'lines.jsonl')
  assert.equal(await (await files.content(done.file.id)).text(), contents.join(''))
  await sdk.deleteFile(done.file.id)

  const unwanted = await uploads.create({
    filename: 'a.png',
    purpose: 'vision',
    bytes: 1,
    mime_type: 'image/png',
  })
  assert.equal((await uploads.cancel(unwanted.id)).status, 'cancelled')
  return { file: done.file.id }
}

async function prepare(sdk, model, assistantBody, content) {
  const assistant = await sdk.client.beta.assistants.create({ model, ...assistantBody })
  const thread = await sdk.client.beta.threads.create({ messages: [user(content)] })
  return { assistant, thread }
}

async function follow(stream, options) {
  const rules = createStreamRules(options)
  for await (const event of stream) rules.see(event)
  return rules.end()
}

/** The older clients' helpers go on merging deltas into the object that they hand out. */
function snapshotOf(event) {
  return JSON.parse(JSON.stringify(event))
}

async function collect(pages) {
  const ids = []
  for await (const item of pages) ids.push(item.id)
  return ids
}

function assertCompleted(run) {
  assert.equal(run.status, 'completed', `the run is ${run.status}: ${run.last_error?.message}`)
  assert.equal(run.usage.total_tokens, run.usage.prompt_tokens + run.usage.completion_tokens)
  for (const key of ['created_at', 'started_at', 'completed_at']) {
    assert.ok(Number.isInteger(run[key]), `${key} is ${run[key]}`)
  }
}

function assertRequiresAction(run) {
  assert.equal(
    run.status,
    'requires_action',
    `the run is ${run.status}: ${run.last_error?.message}`,
  )
  assert.equal(run.required_action.type, 'submit_tool_outputs')
  const calls = run.required_action.submit_tool_outputs.tool_calls
  for (const call of calls) assert.equal(typeof JSON.parse(call.function.arguments), 'object')
  return calls
}

function outputsFor(calls) {
  return {
    tool_outputs: calls.map((call) => ({
      tool_call_id: call.id,
      output: `output of ${call.function.name}`,
    })),
  }
}

function user(content) {
  return { role: 'user', content }
}

function textOf(message) {
  return message.content.map((part) => part.text?.value ?? '').join('')
}

/** Without what the client adds to an answer, such as `_request_id`. */
function own(object) {
  return JSON.parse(JSON.stringify(object))
}
