import { expect, test } from 'vitest'

import { answersIn, newThread, startCluster } from '../support/cluster.ts'
import { checkEvents, gapFree, parsed, postStream } from '../support/event-stream.ts'
import { say, stallAfter } from '../support/model.ts'
import { ownPostgres } from '../support/own-parts.ts'

test('workers that are killed one after the other use up none of the model attempts', async () => {
  await using cluster = await startCluster({ env: { MODEL_ATTEMPTS: '1' } })
  const { model } = cluster
  const api = await cluster.spawn('api')
  let worker = await cluster.spawn('worker')
  const kills = 3
  model.respond((_, n) => (n <= kills ? stallAfter(2, ['Cut ', 'off ', '.']) : say('At last.')))
  const { threadId, assistantId } = await newThread(api.client)
  const stream = await postStream(`${api.baseUrl}/threads/${threadId}/runs`, {
    assistant_id: assistantId,
  })
  for (let n = 1; n <= kills; n += 1) {
    await model.tokensOut(await model.called(n), 2)
    await worker.kill('SIGKILL')
    worker = await cluster.spawn('worker')
  }
  expect(await stream.ended).toBe('done')
  const { runStatus, texts } = await checkEvents(parsed(stream.frames))
  expect(runStatus).toBe('completed')
  expect(texts.at(-1)).toBe('At last.')
  expect(model.calls).toBe(kills + 1)
  expect(await answersIn(api.client, threadId)).toEqual(['At last.'])
})

test('a Postgres that is killed again and again under ten streams loses and repeats nothing', async () => {
  await using postgres = await ownPostgres()
  await using cluster = await startCluster({ databaseUrl: postgres.url })
  const { model } = cluster
  const { client, baseUrl } = await cluster.spawn('all')
  const words = Array.from({ length: 400 }, (_, n) => `${n} `)
  model.respond(() => say(words, { delayMs: 50 }))
  const streams = await Promise.all(
    Array.from({ length: 10 }, async () => {
      const { threadId, assistantId } = await newThread(client)
      const url = `${baseUrl}/threads/${threadId}/runs`
      return { threadId, stream: await postStream(url, { assistant_id: assistantId }) }
    }),
  )
  for (const { stream } of streams) await stream.saw('thread.message.delta')
  const [first] = model.requests
  if (!first) throw new Error('The model was not asked')
  for (const tokens of [40, 120, 200, 280]) {
    await model.tokensOut(first, tokens)
    await postgres.kill('SIGKILL')
  }
  for (const { stream, threadId } of streams) {
    expect(await stream.ended).toBe('done')
    expect(stream.frames.map(({ seq }) => seq)).toEqual(gapFree(stream.frames))
    const { runStatus, texts } = await checkEvents(parsed(stream.frames))
    expect(runStatus).toBe('completed')
    expect(texts).toEqual([words.join('')])
    expect(await answersIn(client, threadId)).toEqual([words.join('')])
  }
  expect(model.calls).toBe(10)
})
