import { randomUUID } from 'node:crypto'
import { readFileSync } from 'node:fs'

import { describe, expect, test } from 'vitest'

import { eventually, isAlive } from '../local/scratch.ts'
import { newThread, startCluster, type Cluster } from '../support/cluster.ts'
import { call, say, type Step } from '../support/model.ts'
import type { ServerProcess } from '../support/processes.ts'
import { codeEnv, noCode, written } from '../support/sandboxes.ts'

/** As long as a heartbeat that is missed, a host that is still believed in, and the queue that it does not read any more. */
const recoveryMs = 25_000

const runs = (code: string): Step => call({ name: 'code_interpreter', arguments: { code } })

describe.skipIf(noCode)(`code whose sandbox is lost${noCode ? `: ${noCode}` : ''}`, () => {
  test.each([
    ['by one that was there already', true],
    ['by one that is started then', false],
  ])(
    'with its worker, in the middle of a cell: it is run again %s, the model is told, files are kept, nothing is left',
    async (_, isThere) => {
      await using cluster = await startCluster({ env: codeEnv() })
      const { client } = await cluster.spawn('api')
      const first = await cluster.spawn('worker', 'first')
      const thread = await newThread(client, 'Compute.', [{ type: 'code_interpreter' }])
      await runCells(cluster, client, thread, [
        'x = 1\nopen("/mnt/data/kept.txt", "w").write("kept")',
      ])
      // The one that has the session.
      const others = isThere ? [await cluster.spawn('worker', 'second')] : []
      const begun = randomUUID()
      cluster.model.script(
        runs(`open("/mnt/data/${begun}", "w").close()\nimport time\n${stallsOnce}`),
        say('Done.'),
      )
      const run = await client.beta.threads.runs.create(thread.threadId, {
        assistant_id: thread.assistantId,
      })
      await written(cluster.env['DATA_DIR'] ?? '', begun)
      const left = descendantsOf(first.pid)
      expect(left.length).toBeGreaterThan(0)
      const killedAt = performance.now()
      await first.kill('SIGKILL')
      if (others.length === 0) await cluster.spawn('worker', 'second')

      const ended = await client.beta.threads.runs.poll(run.id, { thread_id: thread.threadId })
      expect(ended.status).toBe('completed')
      expect(performance.now() - killedAt).toBeLessThan(recoveryMs)
      const told = lastOutput(cluster)
      expect(told).toMatch(/run again from its beginning/)
      expect(told).toContain('kept lost')
      await eventually(() => left.every((pid) => !isAlive(pid)))
      expect(cluster.model.calls).toBe(4)
    },
  )

  test('in the middle of a cell is not run again: the model is told what happened, and files are kept', async () => {
    await using cluster = await startCluster({ env: codeEnv() })
    const { client, pid } = await cluster.spawn('all')
    const thread = await newThread(client, 'Compute.', [{ type: 'code_interpreter' }])
    const begun = randomUUID()
    cluster.model.script(
      runs('open("/mnt/data/kept.txt", "w").write("kept")'),
      runs(`${manyFiles}\nopen("/mnt/data/${begun}", "w").close()\nimport time; time.sleep(600)`),
      runs('import os\nprint(open("/mnt/data/kept.txt").read(), len(os.listdir("/mnt/data")))'),
      say('Done.'),
    )
    const run = await client.beta.threads.runs.create(thread.threadId, {
      assistant_id: thread.assistantId,
    })
    await written(cluster.env['DATA_DIR'] ?? '', begun)
    for (const one of descendantsOf(pid)) {
      if (commandOf(one).includes('\0--args\0')) process.kill(one, 'SIGKILL')
    }
    const ended = await client.beta.threads.runs.poll(run.id, { thread_id: thread.threadId })
    expect(ended.status).toBe('completed')
    const outputs = toolOutputs(cluster)
    expect(outputs[1]).toMatch(/sandbox/)
    expect(outputs[1]).not.toMatch(/run again/)
    expect(outputs[2]).toMatch(/variables of earlier code are gone/)
    // Of the first cell one, of the one that was killed all that it had written by then.
    expect(outputs[2]).toContain('kept 22')
  })

  test('because it was idle for too long: the next cell is told, and finds the files', async () => {
    await using cluster = await startCluster({ env: codeEnv({ SANDBOX_IDLE_S: '1' }) })
    const { client } = await cluster.spawn('all')
    const thread = await newThread(client, 'Compute.', [{ type: 'code_interpreter' }])
    await runCells(cluster, client, thread, [
      'x = 1\nopen("/mnt/data/kept.txt", "w").write("kept")',
    ])
    const held = 'SELECT 1 FROM sandbox_sessions WHERE host_id IS NOT NULL'
    await eventually(async () => (await cluster.sql(held)).length === 0)
    await runCells(cluster, client, thread, [
      'print("x" in globals(), open("/mnt/data/kept.txt").read())',
    ])
    expect(lastOutput(cluster)).toMatch(/variables of earlier code are gone[^]*False kept/)
    await runCells(cluster, client, thread, ['print(2)'])
    expect(lastOutput(cluster)).toBe('2')
  })

  test('twice under the same code: that is not run a third time', async () => {
    await using cluster = await startCluster({ env: codeEnv() })
    const [{ client }, first] = await Promise.all([cluster.spawn('api'), cluster.spawn('worker')])
    const thread = await newThread(client, 'Compute.', [{ type: 'code_interpreter' }])
    const begun = randomUUID()
    cluster.model.script(
      runs(
        `open("/mnt/data/${begun}-" + str(__import__("time").time_ns()), "w").close()\nimport time; time.sleep(600)`,
      ),
      say('Done.'),
    )
    const run = await client.beta.threads.runs.create(thread.threadId, {
      assistant_id: thread.assistantId,
    })
    const dataDir = cluster.env['DATA_DIR'] ?? ''
    const before = await written(dataDir, `${begun}-*`)
    await first.kill('SIGKILL')
    const second = await cluster.spawn('worker')
    await written(dataDir, `${begun}-*`, before)
    await second.kill('SIGKILL')
    await cluster.spawn('worker')
    const ended = await client.beta.threads.runs.poll(run.id, { thread_id: thread.threadId })
    expect(ended.status).toBe('completed')
    expect(lastOutput(cluster)).toMatch(/lost 2 times.*not run again/)
  })
})

const manyFiles = 'for n in range(20): open(f"/mnt/data/{n}.txt", "w").write("x")'

/** Stands still when the interpreter has the variables of the first cell, and goes on in one that does not. */
const stallsOnce =
  'if "x" in globals(): time.sleep(600)\nprint(open("/mnt/data/kept.txt").read(), "lost")'

async function runCells(
  { model }: Cluster,
  client: ServerProcess['client'],
  { threadId, assistantId }: { threadId: string; assistantId: string },
  codes: string[],
): Promise<void> {
  model.script(...codes.map(runs), say('Done.'))
  const run = await client.beta.threads.runs.createAndPoll(threadId, { assistant_id: assistantId })
  expect(run.status).toBe('completed')
}

/** What the model was told in its last request that its calls came to, in their order. */
const toolOutputs = ({ model }: Cluster): string[] => model.requests.at(-1)?.toolResults ?? []

const lastOutput = (cluster: Cluster): string => toolOutputs(cluster).at(-1) ?? ''

function descendantsOf(pid: number): number[] {
  const children = read(`/proc/${pid}/task/${pid}/children`).trim().split(' ').filter(Boolean)
  return children.flatMap((child) => [Number(child), ...descendantsOf(Number(child))])
}

function commandOf(pid: number): string {
  return read(`/proc/${pid}/cmdline`)
}

/** Empty where the process is gone by now. */
function read(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return ''
  }
}
