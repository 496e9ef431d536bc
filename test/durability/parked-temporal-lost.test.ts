import { Connection } from '@temporalio/client'
import { expect, test } from 'vitest'

import { lookUp, newThread, startCluster, type Cluster } from '../support/cluster.ts'
import { call, say } from '../support/model.ts'
import { ownTemporal } from '../support/own-parts.ts'
import type { ServerProcess } from '../support/processes.ts'

type Runs = ServerProcess['client']['beta']['threads']['runs']

/** One run that waits for outputs, and one that no worker has begun. */
async function parkedAndQueued(cluster: Cluster) {
  cluster.model.respond(({ question, toolResults }) =>
    question === 'parked' && toolResults.length === 0
      ? call({ name: 'look_up', arguments: {} })
      : say('End.'),
  )
  const api = await cluster.spawn('api')
  const runs: Runs = api.client.beta.threads.runs
  const worker = await cluster.spawn('worker')
  const one = await newThread(api.client, 'parked', [lookUp])
  const parked = await runs.createAndPoll(one.threadId, { assistant_id: one.assistantId })
  expect(parked.status).toBe('requires_action')
  await worker.kill('SIGKILL')
  const other = await newThread(api.client, 'queued')
  const queued = await runs.create(other.threadId, { assistant_id: other.assistantId })
  // Temporal has it, so that nothing but the comparison can find it.
  await expect.poll(() => cluster.sql('SELECT 1 FROM outbox'), { timeout: 10_000 }).toEqual([])
  return { runs, parked, queued }
}

/** A worker goes on with both; gives what came of them, and how often the model was asked. */
async function endBoth(
  cluster: Cluster,
  { runs, parked, queued }: Awaited<ReturnType<typeof parkedAndQueued>>,
) {
  await cluster.spawn('worker')
  const began = await runs.poll(queued.id, { thread_id: queued.thread_id })
  const [pending] = parked.required_action?.submit_tool_outputs.tool_calls ?? []
  const done = await runs.submitToolOutputsAndPoll(parked.id, {
    thread_id: parked.thread_id,
    tool_outputs: [{ tool_call_id: pending?.id ?? '', output: '42' }],
  })
  const { calls } = cluster.model
  const locks = await cluster.sql('SELECT 1 FROM runs WHERE holds_lock')
  return { queued: began.status, parked: done.status, calls, locks: locks.length }
}

/** One call was for the queued run; the parked one did not ask again for what it had been told. */
const asIfNothingWas = { queued: 'completed', parked: 'completed', calls: 3, locks: 0 }

test('parked and queued runs survive a Temporal that has lost its data', async () => {
  await using temporal = await ownTemporal()
  await using cluster = await startCluster({
    temporalAddress: temporal.address,
    env: { RECONCILE_S: '1' },
  })
  const open = await parkedAndQueued(cluster)
  await temporal.stop()
  temporal.wipe()
  await temporal.start()
  expect(await endBoth(cluster, open)).toEqual(asIfNothingWas)
})

test('parked and queued runs survive the deletion of their namespace', async () => {
  await using temporal = await ownTemporal()
  await using cluster = await startCluster({
    temporalAddress: temporal.address,
    env: { RECONCILE_S: '1' },
  })
  const open = await parkedAndQueued(cluster)
  const connection = await Connection.connect({ address: temporal.address })
  await connection.operatorService.deleteNamespace({ namespace: 'longrun' })
  await connection.close()
  expect(await endBoth(cluster, open)).toEqual(asIfNothingWas)
})
