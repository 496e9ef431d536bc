import { Client, Connection } from '@temporalio/client'
import { afterAll, beforeAll, expect, inject, test } from 'vitest'

import { answersIn, lookUp, newThread, queryOnce } from '../support/cluster.ts'
import { call, say } from '../support/model.ts'
import { terminateWorkflow } from '../support/own-parts.ts'
import { startServer, type TestServer } from '../support/server.ts'

let server: TestServer
beforeAll(async () => {
  server = await startServer({ RECONCILE_S: '1' })
})
afterAll(async () => {
  await server[Symbol.asyncDispose]()
})

const dayS = 86_400

async function park(body: object = {}) {
  const { client, model } = server
  model.script(call({ name: 'look_up', arguments: {} }))
  const { threadId, assistantId } = await newThread(client, 'What is it?', [lookUp])
  const run = await client.beta.threads.runs.createAndPoll(threadId, {
    assistant_id: assistantId,
    ...body,
  })
  expect(run.status).toBe('requires_action')
  const [pending] = run.required_action?.submit_tool_outputs.tool_calls ?? []
  const answer = (output: string) =>
    client.beta.threads.runs.submitToolOutputsAndPoll(run.id, {
      thread_id: threadId,
      tool_outputs: [{ tool_call_id: pending?.id ?? '', output }],
    })
  return { run, threadId, answer }
}

async function statusOf(threadId: string, runId: string): Promise<string> {
  return (await server.client.beta.threads.runs.retrieve(runId, { thread_id: threadId })).status
}

test('a run may be parked for 90 days, and completes after its outputs are submitted', async () => {
  const { client, model } = server
  const { run, threadId, answer } = await park({ expires_after_seconds: 90 * dayS })
  expect(run.expires_at).toBe(run.created_at + 90 * dayS)

  // Nothing but the server's own clock may end it: Temporal has no deadline for the workflow, nor has the expiry loop.
  model.script(say('It is 42.'))
  const done = await answer('42')
  expect(done).toMatchObject({ status: 'completed', expires_at: null })
  expect(model.requests.at(-1)?.toolResults).toEqual(['42'])
  expect(await answersIn(client, threadId)).toEqual(['It is 42.'])
})

test('a parked run whose workflow is lost after weeks still takes its outputs', async () => {
  const { client, model, databaseUrl } = server
  const { run, threadId, answer } = await park({ expires_after_seconds: 90 * dayS })
  // As if it had been created then; deadlines are kept as times, not as durations.
  await queryOnce(
    databaseUrl,
    `UPDATE runs SET created_at = created_at - interval '45 days', started_at = started_at - interval '45 days',
       expires_at = expires_at - interval '45 days' WHERE id = $1`,
    [run.id],
  )
  await terminateWorkflow(run.id, inject('temporalAddress'))

  model.script(say('Still 42.'))
  const done = await answer('42')
  expect(done.status).toBe('completed')
  expect(await answersIn(client, threadId)).toEqual(['Still 42.'])
})

test('a run that was parked within a short deadline completes, and is not ended by it later', async () => {
  const { client, model } = server
  const { run, threadId, answer } = await park({ expires_after_seconds: 3 })
  model.script(say('In time.'))
  const done = await answer('42')
  expect(done.status).toBe('completed')

  // Once one that was created later has expired, the time of the first has passed as well.
  const later = await park({ expires_after_seconds: 3 })
  await expect
    .poll(() => statusOf(later.threadId, later.run.id), { timeout: 10_000 })
    .toBe('expired')
  expect(await statusOf(threadId, run.id)).toBe('completed')
  expect(await answersIn(client, threadId)).toEqual(['In time.'])
})

test('outputs that come after the deadline are refused, and the thread is free', async () => {
  const { client, model } = server
  const { run, threadId, answer } = await park({ expires_after_seconds: 1 })
  await expect.poll(() => statusOf(threadId, run.id), { timeout: 10_000 }).toBe('expired')
  await expect(answer('42')).rejects.toMatchObject({
    status: 400,
    message: expect.stringContaining('Runs in status "expired" do not accept tool outputs.'),
  })
  const steps = await client.beta.threads.runs.steps.list(run.id, { thread_id: threadId })
  expect(steps.data.map(({ status }) => status)).toEqual(['expired'])
  model.script(say('Anew.'))
  const next = await client.beta.threads.runs.createAndPoll(threadId, {
    assistant_id: run.assistant_id,
  })
  expect(next.status).toBe('completed')
})

test('the workflow of a parked run ends when the run is deleted with its thread', async () => {
  const { run, threadId } = await park({ expires_after_seconds: 90 * dayS })
  await server.client.beta.threads.delete(threadId)
  const connection = await Connection.connect({ address: inject('temporalAddress') })
  try {
    const temporal = new Client({ connection, namespace: 'longrun' })
    await expect(temporal.workflow.getHandle(run.id).result()).resolves.toBe('gone')
  } finally {
    await connection.close()
  }
})

test('a deadline beyond 90 days is refused', async () => {
  const { client } = server
  const { threadId, assistantId } = await newThread(client)
  const body = { assistant_id: assistantId, expires_after_seconds: 90 * dayS + 1 }
  await expect(client.beta.threads.runs.create(threadId, body)).rejects.toMatchObject({
    status: 400,
    param: 'expires_after_seconds',
  })
})
