/**
 * Follows runs with the helpers of one generation of the official npm client, and prints one line of JSON with what they made
 * of them, as python_follow.py does, with the same environment:
 *
 *   BASE_URL=http://127.0.0.1:3000/v1 API_KEY=sk-any THREAD_ID=thread_1 ASSISTANT_ID=asst_1 node node-follow.mjs openai-6 stream
 */
import { openSdk } from './node-sdk.mjs'

const [packageName = '', how = ''] = process.argv.slice(2)
const { BASE_URL, API_KEY, THREAD_ID: threadId, ASSISTANT_ID, EXTRA = '{}' } = process.env
const sdk = openSdk(packageName, { baseURL: BASE_URL, apiKey: API_KEY })
const { runs } = sdk.client.beta.threads
const body = { assistant_id: ASSISTANT_ID, ...JSON.parse(EXTRA) }

async function follow(stream) {
  const events = []
  stream.on('event', ({ event }) => {
    // Deltas that follow each other are one: how a text is cut is the provider's business.
    if (!(event.endsWith('.delta') && events.at(-1) === event)) events.push(event)
  })
  const run = await stream.finalRun()
  const messages = await stream.finalMessages()
  const texts = messages.map(({ content }) =>
    content.map((part) => part.text?.value ?? '').join(''),
  )
  return { run, found: { events, status: run.status, texts } }
}

function outputsOf(run) {
  const calls = run.required_action.submit_tool_outputs.tool_calls
  return { tool_outputs: calls.map(({ id }) => ({ tool_call_id: id, output: 'rain' })) }
}

const ways = {
  async stream() {
    const { run, found } = await follow(runs.stream(threadId, body))
    if (run.status !== 'requires_action') return [found]
    const rest = await follow(sdk.submitAndStream(threadId, run.id, outputsOf(run)))
    return [found, rest.found]
  },
  async poll() {
    const run = await runs.createAndPoll(threadId, body)
    if (run.status !== 'requires_action') return [run.status]
    const over = await sdk.submitAndPoll(threadId, run.id, outputsOf(run))
    return [run.status, over.status]
  },
}

process.stdout.write(`${JSON.stringify(await ways[how]())}\n`)
// Kept-alive sockets of the older clients would hold the process for seconds.
process.exit(0)
