import { Client, Connection, type WorkflowExecutionDescription } from '@temporalio/client'
import { expect, inject, test, vi } from 'vitest'

import { call, say } from '../support/model.ts'
import { startServer } from '../support/server.ts'

test('an operator sees of each run whose it is, what it does and how it ended', async () => {
  await using server = await startServer()
  const { client, model } = server
  const connection = await Connection.connect({ address: inject('temporalAddress') })
  try {
    const temporal = new Client({ connection, namespace: 'longrun' })
    model.script(call({ name: 'weather', arguments: {} }), say('Rain.'))
    const assistant = await client.beta.assistants.create({
      model: 'gpt-4o',
      name: 'Forecaster',
      tools: [{ type: 'function', function: { name: 'weather' } }],
    })
    const run = await client.beta.threads.createAndRunPoll({
      assistant_id: assistant.id,
      thread: { messages: [{ role: 'user', content: 'And tomorrow?' }] },
    })
    const handle = temporal.workflow.getHandle(run.id)
    // The client hears of it by the turn's commit, a moment before the workflow does.
    const waiting = await vi.waitFor(async () => {
      const described = await handle.describe()
      expect(attributesOf(described)).toMatchObject({
        AssistantId: assistant.id,
        ThreadId: run.thread_id,
        Model: 'gpt-4o',
        RunStatus: 'requires_action',
      })
      return described
    }, 10_000)
    expect(await waiting.staticSummary()).toBe('Forecaster · gpt-4o')
    expect(await waiting.staticDetails()).toContain(run.thread_id)
    expect(await handle.query('__temporal_workflow_metadata')).toMatchObject({
      currentDetails: 'Turn 1: waiting for the client to submit tool outputs.',
    })
    await client.beta.threads.runs.cancel(run.id, { thread_id: run.thread_id })
    expect(await handle.result()).toBe('cancelled')
    const { events } = await handle.fetchHistory()
    expect(JSON.stringify(events)).not.toContain('And tomorrow?')
  } finally {
    await connection.close()
  }
})

function attributesOf({ typedSearchAttributes }: WorkflowExecutionDescription) {
  return Object.fromEntries(
    typedSearchAttributes.getAll().map(({ key, value }) => [key.name, value]),
  )
}
