import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

import { Client, Connection } from '@temporalio/client'
import { historyToJSON } from '@temporalio/common/lib/proto-utils.js'
import OpenAI from 'openai'

import { loadConfig } from '../../config.ts'
import { createChildren } from '../../local/children.ts'
import { startPostgres } from '../../local/postgres.ts'
import { serve } from '../../local/serve.ts'
import { startTemporal } from '../../local/temporal.ts'
import { createLogger } from '../../log.ts'
import { createModels } from '../../models.ts'
import { installRuntime } from '../../worker/index.ts'
import { call, fail, say, stallAfter, startScriptedModel } from '../support/model.ts'
import { scrubbed } from './scrub.ts'

/**
 * Records the histories that test/workflows/replay.test.ts replays, one for each way that a run can go:
 *
 *   node local/setup.mjs --for test -- node test/histories/record.ts
 *
 * Those of a released version stay as they are: code that cannot replay them strands the runs that are under way.
 */
const tools = [{ type: 'function' as const, function: { name: 'weather' } }]

const scenarios: Record<string, Scenario> = {
  text: {
    steps: [say('Hello there.')],
  },
  functions: {
    body: { tools },
    steps: [
      call([
        { name: 'weather', arguments: { at: 'A' } },
        { name: 'weather', arguments: { at: 'B' } },
      ]),
      say('It rains.'),
    ],
    meanwhile: submitOutputs,
  },
  'function-rounds': {
    body: { tools },
    steps: [
      call({ name: 'weather', arguments: { at: 'A' } }),
      call({ name: 'weather', arguments: { at: 'B' } }),
      say('It rains.'),
    ],
    async meanwhile(recorder, run) {
      await submitOutputs(recorder, run)
      await submitOutputs(recorder, run)
    },
  },
  'mixed-tools': {
    body: { tools: [...tools, { type: 'code_interpreter' }] },
    steps: [
      call([
        { name: 'code_interpreter', arguments: { code: 'print(1 + 1)' } },
        { name: 'weather', arguments: { at: 'A' } },
      ]),
      say('It rains.'),
    ],
    meanwhile: submitOutputs,
  },
  'built-in-tool': {
    body: { tools: [{ type: 'code_interpreter' }] },
    steps: [
      call({ name: 'code_interpreter', arguments: { code: 'print(1 + 1)' } }),
      say('It is 2.'),
    ],
  },
  cancelled: {
    steps: [stallAfter(1, 'Hello there.')],
    async meanwhile({ client, model }, run) {
      await model.tokensOut(await model.called(1), 1)
      await client.beta.threads.runs.cancel(run.id, threadOf(run))
    },
  },
  expired: {
    body: { tools, expires_after_seconds: 2 },
    steps: [call({ name: 'weather', arguments: { at: 'A' } })],
  },
  failed: {
    steps: [fail(400, { message: 'No such thing.', code: 'bad_request' })],
  },
  fallback: {
    body: { tools, fallback_models: ['other'] },
    steps: [
      fail(400, { message: 'No such thing.', code: 'bad_request' }),
      call({ name: 'weather', arguments: { at: 'A' } }),
      say('It rains.'),
    ],
    meanwhile: submitOutputs,
  },
  'max-steps': {
    body: { tools: [{ type: 'code_interpreter' }], max_steps: 1 },
    steps: [call({ name: 'code_interpreter', arguments: { code: 'print(1 + 1)' } })],
  },
}

/** Waits for the run to ask, and answers each of its calls. */
async function submitOutputs({ client }: Recorder, run: OpenAI.Beta.Threads.Run): Promise<void> {
  const { required_action: action } = await client.beta.threads.runs.poll(run.id, threadOf(run))
  const calls = action?.submit_tool_outputs.tool_calls ?? []
  await client.beta.threads.runs.submitToolOutputs(run.id, {
    ...threadOf(run),
    tool_outputs: calls.map(({ id }) => ({ tool_call_id: id, output: 'rain' })),
  })
}

interface Scenario {
  /** Fields of the run beyond its assistant and its thread, `expires_after_seconds` among them. */
  body?: object
  steps: Parameters<Recorder['model']['script']>
  meanwhile?: (recorder: Recorder, run: OpenAI.Beta.Threads.Run) => Promise<void>
}

interface Recorder {
  client: OpenAI
  model: Awaited<ReturnType<typeof startScriptedModel>>
  temporal: Client
}

async function main(): Promise<void> {
  const folder = fileURLToPath(new URL('.', import.meta.url))
  const log = createLogger('warn')
  installRuntime(log)
  await using stack = new AsyncDisposableStack()
  await mkdir('.data', { recursive: true })
  const dataDir = await mkdtemp('.data/histories-')
  stack.defer(() => rm(dataDir, { recursive: true, force: true }))
  const children = stack.use(await createChildren({ dataDir, log }))
  const cliPath = process.env['LONGRUN_TEMPORAL_CLI']
  if (!cliPath) throw new Error('Run this by local/setup.mjs, as its first lines show')
  const [postgres, temporal] = await Promise.all([
    startPostgres({ children, dataDir, port: 0, database: 'histories' }),
    startTemporal({ children, dataDir, cliPath, port: 0, uiPort: undefined, namespace: 'longrun' }),
  ])
  const connection = await Connection.connect({ address: temporal.address })
  stack.defer(() => connection.close())

  for (const [name, scenario] of Object.entries(scenarios)) {
    await using parts = new AsyncDisposableStack()
    const model = parts.use(await startScriptedModel())
    const serving = parts.use(
      await serve(
        loadConfig({ SANDBOX_PROVIDER: 'none', PORT: '0', DATA_DIR: dataDir, MODEL_ATTEMPTS: '3' }),
        {
          databaseUrl: postgres.url,
          temporalAddress: temporal.address,
          temporalUiUrl: undefined,
          models: createModels({
            file: undefined,
            upstream: { baseUrl: model.url, apiKey: 'scripted' },
            defaultModel: undefined,
            env: {},
          }),
        },
        log,
      ),
    )
    await serving.working
    const recorder = {
      client: new OpenAI({ baseURL: serving.url ?? '', apiKey: 'any', maxRetries: 0 }),
      model,
      temporal: new Client({ connection, namespace: 'longrun' }),
    }
    const history = await record(recorder, scenario)
    await writeFile(join(folder, `${name}.json`), history)
    process.stdout.write(`${name}.json: ${history.length} bytes\n`)
  }
}

/** The history of a scenario's run, an event a line. */
async function record(recorder: Recorder, scenario: Scenario): Promise<string> {
  const { client, model, temporal } = recorder
  model.script(...scenario.steps)
  const assistant = await client.beta.assistants.create({ model: 'gpt-4o', name: 'Recorded' })
  const run = await client.beta.threads.createAndRun({
    assistant_id: assistant.id,
    thread: { messages: [{ role: 'user', content: 'Hi' }] },
    ...scenario.body,
  })
  await scenario.meanwhile?.(recorder, run)
  // The workflow starts after the answer: once the run has settled it is there.
  await client.beta.threads.runs.poll(run.id, threadOf(run))
  const handle = temporal.workflow.getHandle(run.id)
  await handle.result()
  const { events } = scrubbed(JSON.parse(historyToJSON(await handle.fetchHistory()))) as {
    events: unknown[]
  }
  return `{"events": [\n${events.map((event) => JSON.stringify(event)).join(',\n')}\n]}\n`
}

function threadOf(run: OpenAI.Beta.Threads.Run) {
  return { thread_id: run.thread_id }
}

await main()
process.exit(0)
