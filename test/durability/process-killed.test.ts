import { randomUUID } from 'node:crypto'
import { join } from 'node:path'

import { expect, inject, test } from 'vitest'

import { answersIn, newThread, startCluster } from '../support/cluster.ts'
import {
  checkEvents,
  followRun,
  gapFree,
  parsed,
  postStream,
  runIdOf,
} from '../support/event-stream.ts'
import { say, stallAfter } from '../support/model.ts'

test('an api that is killed in mid-stream takes no run with it, and a new one shows it', async () => {
  await using cluster = await startCluster()
  const { model } = cluster
  const [api] = await Promise.all([cluster.spawn('api'), cluster.spawn('worker')])
  model.script(stallAfter(3, ['To ', 'be ', 'continued ', 'elsewhere.']))
  const { threadId, assistantId } = await newThread(api.client)
  const stream = await postStream(`${api.baseUrl}/threads/${threadId}/runs`, {
    assistant_id: assistantId,
  })
  await stream.saw('thread.message.delta')
  const runId = runIdOf(stream)
  await api.kill('SIGKILL')
  expect(await stream.ended).toBe('broken')
  const request = await model.called(1)
  request.release()

  const { client } = await cluster.spawn('api')
  const run = await client.beta.threads.runs.poll(runId, { thread_id: threadId })
  expect(run.status).toBe('completed')
  expect(model.calls).toBe(1)
  expect(await request.closed).toBe('finished')
  expect(await answersIn(client, threadId)).toEqual(['To be continued elsewhere.'])

  // What the client missed it gets from the new one, to the last event and nothing twice.
  const last = stream.frames.at(-1)?.seq ?? 0
  const rest = await followRun(cluster.databaseUrl, runId, last)
  expect(await rest.ended).toBe('done')
  const frames = [...stream.frames, ...rest.frames]
  expect(frames.map(({ seq }) => seq)).toEqual(gapFree(frames))
  expect(await checkEvents(parsed(frames))).toMatchObject({
    runStatus: 'completed',
    texts: ['To be continued elsewhere.'],
  })
})

test('a whole server that is killed in mid-stream goes on where it is started again', async () => {
  // With a Postgres and a Temporal that are its children, and go with it.
  const env = {
    DATABASE_URL: '',
    TEMPORAL_ADDRESS: '',
    POSTGRES_PORT: '0',
    TEMPORAL_PORT: '0',
    TEMPORAL_UI_PORT: '0',
    DATA_DIR: join(inject('testDir'), `all-${randomUUID()}`),
  }
  await using cluster = await startCluster({ env })
  const { model } = cluster
  const killed = await cluster.spawn('all')
  model.script(stallAfter(3, ['This ', 'is ', 'cut ', 'off.']), say('This is not.'))
  const { threadId, assistantId } = await newThread(killed.client)
  const stream = await postStream(`${killed.baseUrl}/threads/${threadId}/runs`, {
    assistant_id: assistantId,
  })
  await stream.saw('thread.message.delta')
  const runId = runIdOf(stream)
  await killed.kill('SIGKILL')

  const again = await cluster.spawn('all')
  const readyAt = performance.now()
  const run = await again.client.beta.threads.runs.poll(runId, { thread_id: threadId })
  expect(run.status).toBe('completed')
  expect(performance.now() - readyAt).toBeLessThan(10_000)
  expect(model.calls).toBe(2)
  expect(await answersIn(again.client, threadId)).toEqual(['This is not.'])
  await again.kill('SIGTERM')
})
