import { expect, test } from 'vitest'

import { answersIn, newThread, startCluster } from '../support/cluster.ts'
import {
  checkEvents,
  followRun,
  gapFree,
  parsed,
  postStream,
  runIdOf,
  type Frame,
} from '../support/event-stream.ts'
import { say } from '../support/model.ts'
import { ownPostgres, type OwnPart } from '../support/own-parts.ts'
import { createRun, openTestStore } from '../store/rows.ts'

const words = Array.from({ length: 120 }, (_, n) => `${n} `)

test.each([
  {
    name: 'away for three seconds',
    // Longer than a follower trusts the silence of its listener.
    leave: async (postgres: OwnPart, passes: () => Promise<unknown>) => {
      await postgres.stop()
      await passes()
      await postgres.start()
    },
  },
  { name: 'shut down and back at once', leave: (postgres: OwnPart) => postgres.kill('SIGINT') },
  { name: 'killed and back at once', leave: (postgres: OwnPart) => postgres.kill('SIGKILL') },
])('a Postgres that is $name in mid-stream delays a run and costs it nothing', async (given) => {
  await using postgres = await ownPostgres()
  await using cluster = await startCluster({ databaseUrl: postgres.url })
  const { model } = cluster
  const { client, baseUrl } = await cluster.spawn('all')
  model.script(say(words, { delayMs: 50 }))
  const { threadId, assistantId } = await newThread(client)
  const stream = await postStream(`${baseUrl}/threads/${threadId}/runs`, {
    assistant_id: assistantId,
  })
  await stream.saw('thread.message.delta')
  const runId = runIdOf(stream)
  const watcher = await followRun(postgres.url, runId, 0)
  await watcher.saw('thread.message.delta')
  const request = await model.called(1)
  await model.tokensOut(request, 20)

  // The model goes on to write all the while: 60 tokens are three seconds.
  await given.leave(postgres, () => model.tokensOut(request, 80))

  expect(await stream.ended).toBe('done')
  expect(await watcher.ended).toBe('done')
  const rows = await cluster.sql<Frame>(
    'SELECT seq, event, data FROM run_events WHERE run_id = $1 ORDER BY seq',
    [runId],
  )
  for (const { frames } of [stream, watcher]) {
    expect(frames.map(({ seq }) => seq)).toEqual(gapFree(frames))
    // No number was given to another event after the restart.
    expect(frames).toEqual(rows)
    const { runStatus, texts } = await checkEvents(parsed(frames))
    expect(runStatus).toBe('completed')
    expect(texts).toEqual([words.join('')])
  }
  expect(model.calls).toBe(1)
  expect(await answersIn(client, threadId)).toEqual([words.join('')])
})

test('who begins to follow a run while Postgres is away waits for it, and may leave', async () => {
  await using postgres = await ownPostgres()
  await using store = await openTestStore(postgres.url)
  const { id } = await createRun(store)
  const tip = await store.events.tip(id)
  await postgres.stop()
  const leave = new AbortController()
  const [leaving, staying] = [leave.signal, new AbortController().signal].map((signal) =>
    store.events.follow(id, 0, { signal }).next(),
  )
  leave.abort()
  expect(await leaving).toEqual({ value: undefined, done: true })
  await postgres.start()
  expect((await staying)?.value).toHaveLength(tip)
})

test('requests get a 503 while Postgres is away, and are answered when it is back', async () => {
  await using postgres = await ownPostgres()
  await using cluster = await startCluster({ databaseUrl: postgres.url })
  const { model } = cluster
  const { client, baseUrl } = await cluster.spawn('all')
  model.script(say('Back again.'))
  const { threadId, assistantId } = await newThread(client)
  await postgres.stop()

  for (let n = 0; n < 3; n += 1) {
    const askedAt = performance.now()
    const answers = await Promise.all([
      client.beta.threads.retrieve(threadId).catch(statusOf),
      client.beta.threads.runs.create(threadId, { assistant_id: assistantId }).catch(statusOf),
      fetch(new URL('/readyz', baseUrl)).then(({ status }) => status),
      fetch(new URL('/healthz', baseUrl)).then(({ status }) => status),
    ])
    expect(answers).toEqual([503, 503, 503, 200])
    expect(performance.now() - askedAt).toBeLessThan(2000)
  }

  await postgres.start()
  const run = await client.beta.threads.runs.createAndPoll(threadId, { assistant_id: assistantId })
  expect(run.status).toBe('completed')
  expect(await answersIn(client, threadId)).toEqual(['Back again.'])
})

function statusOf(error: unknown): number | undefined {
  return (error as { status?: number }).status
}
