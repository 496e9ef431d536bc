import { Client } from 'pg'
import { expect, test } from 'vitest'

import { eventually } from '../local/scratch.ts'
import { answersIn, newThread, startCluster } from '../support/cluster.ts'
import { checkEvents, parsed, postStream, runIdOf } from '../support/event-stream.ts'
import { say } from '../support/model.ts'

test('a worker that is frozen inside a transaction does not keep the lock of its run', async () => {
  await using cluster = await startCluster({ env: { LOG_LEVEL: 'info' } })
  const { model } = cluster
  const [{ client, baseUrl }, frozen] = await Promise.all([
    cluster.spawn('api'),
    cluster.spawn('worker', 'frozen'),
  ])
  const mayAnswer = Promise.withResolvers<void>()
  model.respond(async ({ headers }) => {
    if (headers.authorization !== 'Bearer frozen') return say('Taken over.')
    await mayAnswer.promise
    return say('Never to be seen.')
  })
  const { threadId, assistantId } = await newThread(client)
  const stream = await postStream(`${baseUrl}/threads/${threadId}/runs`, {
    assistant_id: assistantId,
  })
  await model.called(1)

  // We hold the lock until the worker waits for it, so that it gets it while it is frozen.
  await using holder = await connected(cluster.databaseUrl)
  await holder.client.query('BEGIN')
  await holder.client.query('SELECT 1 FROM run_streams WHERE run_id = $1 FOR UPDATE', [
    runIdOf(stream),
  ])
  mayAnswer.resolve()
  await eventually(async () => {
    const waiting = await cluster.sql(
      `SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`,
    )
    return waiting.length > 0
  })
  await frozen.kill('SIGSTOP')
  await holder.client.query('ROLLBACK')
  await cluster.spawn('worker', 'replacement')

  await expect
    .poll(() => client.beta.threads.runs.retrieve(runIdOf(stream), { thread_id: threadId }), {
      timeout: 90_000,
    })
    .toMatchObject({ status: 'completed' })
  expect(await stream.ended).toBe('done')
  expect(await checkEvents(parsed(stream.frames))).toMatchObject({ texts: ['Taken over.'] })

  await frozen.kill('SIGCONT')
  // Its transaction is gone and its time is over: which of the two it notices first does not matter.
  await eventually(() => /this attempt was replaced|Activity failed/.test(frozen.output()))
  expect(await answersIn(client, threadId)).toEqual(['Taken over.'])
})

async function connected(url: string): Promise<{ client: Client } & AsyncDisposable> {
  const client = new Client({ connectionString: url })
  await client.connect()
  return { client, [Symbol.asyncDispose]: () => client.end() }
}
