import { randomUUID } from 'node:crypto'
import { cpSync, globSync, readFileSync } from 'node:fs'
import { basename, join } from 'node:path'

import type OpenAI from 'openai'
import { describe, expect, test } from 'vitest'

import { statusFile, writeStatus } from '../../sandbox/rootfs/status.ts'
import { eventually, scratchDir } from '../local/scratch.ts'
import { newThread, startCluster } from '../support/cluster.ts'
import { call, say, type ScriptedModel, type Step } from '../support/model.ts'
import { cacheDir, codeEnv, noCode, written } from '../support/sandboxes.ts'
import { startServer } from '../support/server.ts'

const interpreter: OpenAI.Beta.AssistantTool = { type: 'code_interpreter' }
const runs = (code: string): Step => call({ name: 'code_interpreter', arguments: { code } })
type Ids = { threadId: string; assistantId: string }

describe.skipIf(noCode)(`hosts of sandboxes${noCode ? `: ${noCode}` : ''}`, () => {
  test("a thread's code stays where its variables are, whichever worker has the run", async () => {
    await using cluster = await startCluster({ env: codeEnv() })
    const [{ client }] = await Promise.all([
      cluster.spawn('api'),
      cluster.spawn('worker', 'one'),
      cluster.spawn('worker', 'two'),
    ])
    const isReady = `SELECT 1 FROM sandbox_hosts WHERE state ->> 'kind' = 'ready'`
    await eventually(async () => (await cluster.sql(isReady)).length === 2)
    const thread = await newThread(client, 'Count.', [interpreter])
    const counts: string[] = []
    // Which worker takes a run is Temporal's choice: of this many, each gets some.
    for (let n = 1; n <= 8; n += 1) {
      await runCell(client, cluster.model, thread, 'n = globals().get("n", 0) + 1\nprint(n)')
      counts.push(lastOutput(cluster.model))
    }
    expect(counts).toEqual(['1', '2', '3', '4', '5', '6', '7', '8'])
    const where = await cluster.sql<{ host: string }>(
      `SELECT DISTINCT begun ->> 'host_id' AS host FROM tool_calls`,
    )
    expect(where).toHaveLength(1)
    expect(new Set(cluster.model.requests.map(({ headers }) => headers.authorization)).size).toBe(2)
  })

  test('a host that is full makes room: who was idle for longest is told when it comes back', async () => {
    await using server = await startServer(codeEnv({ SANDBOX_MAX: '1' }))
    const { client, model } = server
    const [a, b] = [
      await newThread(client, 'A', [interpreter]),
      await newThread(client, 'B', [interpreter]),
    ]
    await runCell(client, model, a, 'x = "a"')
    await runCell(client, model, b, 'print("x" in globals())')
    expect(lastOutput(model)).toBe('False')
    await runCell(client, model, a, 'print("x" in globals())')
    expect(lastOutput(model)).toMatch(/variables of earlier code are gone[^]*False/)
  })

  test('many threads at once on a host that has room for two all get their turn, two at a time', async () => {
    using dir = scratchDir()
    await using server = await startServer(codeEnv({ SANDBOX_MAX: '2', DATA_DIR: dir.path }))
    const { client, model } = server
    let most = 0
    model.respond(({ toolResults }) => {
      most = Math.max(most, globSync(join(dir.path, 'sandbox', '*', 'data', '*')).length)
      return toolResults.length === 0 ? runs('6 * 7') : say(toolResults.join())
    })
    const statuses = await Promise.all(
      Array.from({ length: 6 }, async () => {
        const { threadId, assistantId } = await newThread(client, 'Compute.', [interpreter])
        const run = await client.beta.threads.runs.createAndPoll(threadId, {
          assistant_id: assistantId,
        })
        const { data } = await client.beta.threads.messages.list(threadId, { run_id: run.id })
        return [run.status, JSON.stringify(data[0]?.content).includes('42')]
      }),
    )
    expect(statuses).toEqual(Array.from({ length: 6 }, () => ['completed', true]))
    expect(most).toBe(2)
  })

  test('a cancel is heard by a run that waits for room', async () => {
    await using server = await startServer(codeEnv({ SANDBOX_MAX: '1' }))
    const { client, model } = server
    const [a, b] = [
      await newThread(client, 'A', [interpreter]),
      await newThread(client, 'B', [interpreter]),
    ]
    const name = randomUUID()
    model.script(runs(`open("/mnt/data/${name}", "w").close()\nimport time; time.sleep(600)`))
    const holder = await client.beta.threads.runs.create(a.threadId, {
      assistant_id: a.assistantId,
    })
    await written(server.config.dataDir, name)
    model.script(runs('print("never")'))
    const waiter = await client.beta.threads.runs.create(b.threadId, {
      assistant_id: b.assistantId,
    })
    await eventually(async () => {
      const run = await client.beta.threads.runs.retrieve(waiter.id, { thread_id: b.threadId })
      const { longrun } = run as unknown as { longrun: { activity: { type: string } | null } }
      return longrun.activity?.type === 'running_tools'
    })
    for (const { id, thread_id } of [waiter, holder]) {
      await client.beta.threads.runs.cancel(id, { thread_id })
      const ended = await client.beta.threads.runs.poll(id, { thread_id })
      expect(ended.status).toBe('cancelled')
    }
    const steps = await client.beta.threads.runs.steps.list(waiter.id, { thread_id: b.threadId })
    expect(JSON.stringify(steps.data)).not.toContain('"logs":"never')
  })

  test('a run that comes while Python is being set up waits, says so, and goes on', async () => {
    using dir = scratchDir()
    const file = statusFile(dir.path)
    writeStatus(file, { state: 'building', percent: 62, message: 'downloading scipy' })
    await using server = await startServer(codeEnv({ LONGRUN_CACHE: dir.path }))
    const { client, model } = server
    const { threadId, assistantId } = await newThread(client, 'Compute.', [interpreter])
    model.script(runs('6 * 7'), say('Done.'))
    const run = await client.beta.threads.runs.create(threadId, { assistant_id: assistantId })
    const told = await eventually(async () => {
      const read = await client.beta.threads.runs.retrieve(run.id, { thread_id: threadId })
      const { longrun } = read as unknown as { longrun: { activity: { text: string } | null } }
      return longrun.activity?.text.includes('62 %') && longrun.activity.text
    })
    expect(told).toMatch(/sandbox.*62 %, downloading scipy/)
    const built = statusFile(cacheDir)
    expect(basename(built)).toBe(basename(file))
    cpSync(built, join(dir.path, basename(file)))
    const ended = await client.beta.threads.runs.poll(run.id, { thread_id: threadId })
    expect(ended.status).toBe('completed')
    expect(lastOutput(model)).toBe('42')
    expect(readFileSync(file, 'utf8')).toContain('ready')
  })

  test('where Python could not be set up the model is told why', async () => {
    using dir = scratchDir()
    writeStatus(statusFile(dir.path), {
      state: 'failed',
      why: 'No pip was found.',
      remedy: 'Install it.',
      bwrapPath: undefined,
    })
    await using server = await startServer(codeEnv({ LONGRUN_CACHE: dir.path }))
    const { client, model } = server
    await runCell(client, model, await newThread(client, 'Compute.', [interpreter]), '1')
    expect(lastOutput(model)).toMatch(
      /code_interpreter cannot be used.*No pip was found\. Install it\./,
    )
  })
})

async function runCell(
  client: OpenAI,
  model: ScriptedModel,
  { threadId, assistantId }: Ids,
  code: string,
): Promise<void> {
  model.script(runs(code), say('Done.'))
  const run = await client.beta.threads.runs.createAndPoll(threadId, { assistant_id: assistantId })
  expect(run.status).toBe('completed')
}

/** What the model was told in its last request that its last call came to. */
const lastOutput = ({ requests }: ScriptedModel): string =>
  requests.at(-1)?.toolResults.at(-1) ?? ''
