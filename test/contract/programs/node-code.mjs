/**
 * What a program with the official npm client does about code: it uploads tables, has them read, and downloads what comes of
 * them. Prints one line of JSON with what it saw, as python_code.py does:
 *
 *   BASE_URL=http://127.0.0.1:3000/v1 API_KEY=sk-any node node-code.mjs openai-6
 *
 * GENERATION=v1: the client is one of assistants=v1 (openai 4.20 to 4.36), whose files are `file_ids`.
 */
import { openSdk as openSdk1 } from './node-scenarios-v1.mjs'
import { openSdk as openSdk2 } from './node-sdk.mjs'

const [packageName = ''] = process.argv.slice(2)
const { BASE_URL, API_KEY, GENERATION } = process.env
const inV1 = GENERATION === 'v1'
const openSdk = inV1 ? openSdk1 : openSdk2
const sdk = openSdk(packageName, { baseURL: BASE_URL, apiKey: API_KEY })
const { files } = sdk.client
const { assistants, threads } = sdk.client.beta
const tool = { type: 'code_interpreter' }

async function upload(name, text) {
  return (await files.create({ file: new File([text], name), purpose: 'assistants' })).id
}

async function download(id) {
  const { filename, purpose, bytes } = await files.retrieve(id)
  const content = Buffer.from(await (await files.content(id)).arrayBuffer())
  return { id, filename, purpose, bytes, content: content.toString('base64') }
}

async function settled(run) {
  while (['queued', 'in_progress'].includes(run.status)) {
    await new Promise((resolve) => setTimeout(resolve, 50))
    const { id, thread_id } = run
    run = inV1 ? await threads.runs.retrieve(thread_id, id) : await sdk.retrieveRun(thread_id, id)
  }
  return run
}

/** How a generation gives a file to an assistant, and to a message. */
function withFile(fileId, of) {
  if (inV1) return { file_ids: [fileId] }
  if (of === 'message') return { attachments: [{ file_id: fileId, tools: [tool] }] }
  return { tool_resources: { code_interpreter: { file_ids: [fileId] } } }
}

function filesOf(message) {
  return inV1 ? message.file_ids : message.attachments.map(({ file_id: id }) => id)
}

const january = await upload('january.csv', 'month,sales\nJan,3\n')
const february = await upload('february.csv', 'month,sales\nFeb,5\n')
const assistant = await assistants.create({
  model: 'gpt-4o',
  tools: [tool],
  ...withFile(january, 'assistant'),
})
const thread = await threads.create()
const question = await threads.messages.create(thread.id, {
  role: 'user',
  content: 'Sum it up.',
  ...withFile(february, 'message'),
})
const run = await settled(await threads.runs.create(thread.id, { assistant_id: assistant.id }))
const { data: steps } = inV1
  ? await threads.runs.steps.list(thread.id, run.id, { order: 'asc' })
  : await sdk.listSteps(thread.id, run.id, { order: 'asc' })
const calls = steps.flatMap(({ step_details: details }) => details.tool_calls ?? [])
const [answer] = (await threads.messages.list(thread.id)).data
const [figure, words] = answer.content
const [link] = words.text.annotations
const { value } = words.text
const facts = {
  status: run.status,
  given: { january, february, message: filesOf(question) },
  code: calls.map((call) => call.code_interpreter.input),
  outputs: calls
    .flatMap((call) => call.code_interpreter.outputs)
    .map(({ logs, image }) => (image ? { image: image.file_id } : { logs })),
  parts: answer.content.map(({ type }) => type),
  figure: await download(figure.image_file.file_id),
  words: value,
  link: {
    text: link.text,
    marked: Array.from(value).slice(link.start_index, link.end_index).join(''),
    ...(await download(link.file_path.file_id)),
  },
  attached: await Promise.all(filesOf(answer).map(download)),
}

process.stdout.write(`${JSON.stringify(facts)}\n`)
// Kept-alive sockets of the older clients would hold the process for seconds.
process.exit(0)
