import { expect, test } from 'vitest'

import { eventually } from '../local/scratch.ts'

import { answersIn, lookUp, newThread, startCluster, type Cluster } from '../support/cluster.ts'
import { checkEvents, parsed, postStream } from '../support/event-stream.ts'
import { call, say, stallAfter } from '../support/model.ts'
import { ownTemporal } from '../support/own-parts.ts'

/** Quick, so that tests need not wait for a minute. */
const reconciling = { RECONCILE_S: '1' }

test('runs are accepted while Temporal is down, and begin when it is back', async () => {
  await using temporal = await ownTemporal()
  await using cluster = await startCluster({ temporalAddress: temporal.address })
  const { model } = cluster
  const server = await cluster.spawn('all')
  const { client, baseUrl } = server
  model.respond(() => say('Better late.'))
  const [plain, streamed] = await Promise.all([newThread(client), newThread(client)])
  await temporal.stop()

  const askedAt = performance.now()
  const run = await client.beta.threads.runs.create(plain.threadId, {
    assistant_id: plain.assistantId,
  })
  const stream = await postStream(`${baseUrl}/threads/${streamed.threadId}/runs`, {
    assistant_id: streamed.assistantId,
  })
  await stream.saw('thread.run.queued')
  expect(performance.now() - askedAt).toBeLessThan(1000)
  expect(run.status).toBe('queued')
  // Not even an attempt to deliver it may change that.
  await eventually(() => server.output().includes('a command for Temporal is delayed'))
  expect(await statusOf(cluster, run.id)).toBe('queued')

  await temporal.start()
  expect(await stream.ended).toBe('done')
  expect(await checkEvents(parsed(stream.frames))).toMatchObject({ runStatus: 'completed' })
  const done = await client.beta.threads.runs.poll(run.id, { thread_id: plain.threadId })
  expect(done.status).toBe('completed')
  expect(model.calls).toBe(2)
  expect(await cluster.sql('SELECT 1 FROM outbox')).toEqual([])
})

test('a Temporal that is killed in mid-run and comes back costs no second model call', async () => {
  await using temporal = await ownTemporal()
  await using cluster = await startCluster({ temporalAddress: temporal.address })
  const { model } = cluster
  const server = await cluster.spawn('all')
  const { client, baseUrl } = server
  model.script(stallAfter(3, ['One ', 'and ', 'only.', ' Really.']))
  const { threadId, assistantId } = await newThread(client)
  const stream = await postStream(`${baseUrl}/threads/${threadId}/runs`, {
    assistant_id: assistantId,
  })
  const request = await model.called(1)
  await stream.saw('thread.message.delta')

  await temporal.kill('SIGKILL')
  await eventually(async () => (await fetch(new URL('/readyz', baseUrl))).ok)
  request.release()
  expect(await stream.ended).toBe('done')
  const { texts, runStatus } = await checkEvents(parsed(stream.frames))
  expect(runStatus).toBe('completed')
  expect(texts).toEqual(['One and only. Really.'])

  // The workflow hears of it too, and the thread is free for what comes next.
  model.script(say('And another.'))
  const next = await client.beta.threads.runs.createAndPoll(threadId, { assistant_id: assistantId })
  expect(next.status).toBe('completed')
  expect(model.calls).toBe(2)
  expect(await answersIn(client, threadId)).toEqual(['One and only. Really.', 'And another.'])
})

test('a Temporal that has lost its data is told of all open runs, which end as if nothing was', async () => {
  await using temporal = await ownTemporal()
  await using cluster = await startCluster({ temporalAddress: temporal.address, env: reconciling })
  const { model } = cluster
  const server = await cluster.spawn('all')
  const { client, baseUrl } = server
  model.respond(({ question, toolResults }, n) => {
    if (question === 'parked' && toolResults.length === 0) {
      return call({ name: 'look_up', arguments: {} })
    }
    return question === 'streaming' && n <= 2
      ? stallAfter(2, ['Cut ', 'off ', 'here'])
      : say('End.')
  })
  const parked = await newThread(client, 'parked', [lookUp])
  const run = await client.beta.threads.runs.createAndPoll(parked.threadId, {
    assistant_id: parked.assistantId,
  })
  expect(run.status).toBe('requires_action')
  const streaming = await newThread(client, 'streaming')
  const stream = await postStream(`${baseUrl}/threads/${streaming.threadId}/runs`, {
    assistant_id: streaming.assistantId,
  })
  await stream.saw('thread.message.delta')

  await temporal.stop()
  temporal.wipe()
  await temporal.start()

  expect(await stream.ended).toBe('done')
  const { texts, runStatus } = await checkEvents(parsed(stream.frames))
  expect(runStatus).toBe('completed')
  expect(texts).toEqual(['Cut off ', 'End.'])
  expect(await answersIn(client, streaming.threadId)).toEqual(['End.'])

  const [pending] = run.required_action?.submit_tool_outputs.tool_calls ?? []
  const done = await client.beta.threads.runs.submitToolOutputsAndPoll(run.id, {
    thread_id: parked.threadId,
    tool_outputs: [{ tool_call_id: pending?.id ?? '', output: '42' }],
  })
  expect(done.status).toBe('completed')
  expect(await answersIn(client, parked.threadId)).toEqual(['End.'])
  // Two for each: the parked one did not ask again for what it had been told.
  expect(model.calls).toBe(4)
  expect(await cluster.sql('SELECT 1 FROM runs WHERE holds_lock')).toEqual([])
})

async function statusOf(cluster: Cluster, runId: string): Promise<string | undefined> {
  const [row] = await cluster.sql<{ status: string }>('SELECT status FROM runs WHERE id = $1', [
    runId,
  ])
  return row?.status
}
