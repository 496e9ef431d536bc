import { Client, Connection, type WorkflowHandle } from '@temporalio/client'
import { afterAll, beforeAll, expect, inject, test } from 'vitest'

import { lookUp, newThread } from '../support/cluster.ts'
import { call, say } from '../support/model.ts'
import { startServer, type TestServer } from '../support/server.ts'

/**
 * What a run costs the server of Temporal, which is most of what a run costs at all. Each of these is an action, as Temporal
 * counts and its cloud bills them.
 */
type History = Awaited<ReturnType<WorkflowHandle['fetchHistory']>>
type Attributes = keyof NonNullable<History['events']>[number]
const actions: Partial<Record<Attributes, string>> = {
  workflowExecutionStartedEventAttributes: 'start',
  activityTaskScheduledEventAttributes: 'activity',
  workflowExecutionSignaledEventAttributes: 'signal',
  upsertWorkflowSearchAttributesEventAttributes: 'search attributes',
  timerStartedEventAttributes: 'timer',
}

let server: TestServer
let connection: Connection
beforeAll(async () => {
  server = await startServer()
  connection = await Connection.connect({ address: inject('temporalAddress') })
})
afterAll(async () => {
  await connection.close()
  await server[Symbol.asyncDispose]()
})

/** How often a run did each of them that asked for functions in so many rounds. */
async function actionsOf(rounds: number): Promise<Record<string, number>> {
  const { client, model } = server
  model.script(
    ...Array.from({ length: rounds }, () => call({ name: 'look_up', arguments: {} })),
    say('It is 42.'),
  )
  const { threadId: thread_id, assistantId } = await newThread(client, 'What is it?', [lookUp])
  let run = await client.beta.threads.runs.createAndPoll(thread_id, { assistant_id: assistantId })
  for (let round = 0; round < rounds; round += 1) {
    const calls = run.required_action?.submit_tool_outputs.tool_calls ?? []
    run = await client.beta.threads.runs.submitToolOutputsAndPoll(run.id, {
      thread_id,
      tool_outputs: calls.map(({ id }) => ({ tool_call_id: id, output: '42' })),
    })
  }
  expect(run.status).toBe('completed')
  const handle = new Client({ connection, namespace: 'longrun' }).workflow.getHandle(run.id)
  await handle.result()
  const { events } = await handle.fetchHistory()
  const done = (events ?? []).flatMap((event) =>
    Object.entries(actions).flatMap(([attributes, name]) =>
      event[attributes as Attributes] ? [name] : [],
    ),
  )
  return Object.fromEntries(
    Object.values(actions).map((name) => [name, done.filter((one) => one === name).length]),
  )
}

test('an answer costs two actions: the start and one activity', async () => {
  expect(await actionsOf(0)).toEqual({
    start: 1,
    activity: 1,
    signal: 0,
    'search attributes': 0,
    timer: 0,
  })
})

test.each([1, 3])('%i rounds of functions cost four each, and one timer in all', async (rounds) => {
  expect(await actionsOf(rounds)).toEqual({
    start: 1,
    activity: 1 + rounds,
    signal: rounds,
    'search attributes': 2 * rounds,
    timer: 1,
  })
})
