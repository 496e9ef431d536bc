import { expect, test } from 'vitest'

import { newThread, startCluster, type Cluster } from '../support/cluster.ts'
import { checkEvents, parsed, postStream, runIdOf, type Frame } from '../support/event-stream.ts'
import { say, type Step } from '../support/model.ts'
import type { ServerProcess } from '../support/processes.ts'
import { createRandom } from '../support/random.ts'
import { readWithCuts, type CutStream } from '../support/resuming-client.ts'

/**
 * Many clients follow one long run, each over a connection that is cut again and again, at any byte: what each of them has in
 * the end is, byte for byte, what a client has that was never cut.
 */

const seed = Number(process.env['CUTS_SEED'] ?? Date.now() % 1_000_000)
const clients = 24

/** Some letters of several bytes, so that characters are cut too. */
const words = Array.from({ length: 600 }, (_, n) => (n % 7 === 0 ? `größer ${n} 👋🏽 ` : `${n} 的 `))
const slowly = (): Step => say(words, { delayMs: 20 })

test(`1,000 random cuts change nothing (CUTS_SEED=${seed})`, async () => {
  await using cluster = await startCluster()
  const apis = await Promise.all([
    cluster.spawn('api'),
    cluster.spawn('api'),
    cluster.spawn('worker'),
  ])
  cluster.model.respond(slowly)
  const [one, other] = apis
  const followed = await follow(cluster, () => [one, other])
  expect(followed.cuts).toBeGreaterThanOrEqual(1000)
})

test(`nor does the end of an api and of a worker in between (CUTS_SEED=${seed})`, async () => {
  await using cluster = await startCluster()
  const lasting = await cluster.spawn('api')
  let [api, worker] = await Promise.all([cluster.spawn('api', 'killed'), cluster.spawn('worker')])
  cluster.model.respond(slowly)
  const PORT = new URL(api.baseUrl ?? '').port
  const followed = follow(cluster, () => [lasting, api])
  await cluster.model.tokensOut(await cluster.model.called(1), 100)
  await api.kill('SIGKILL')
  api = await cluster.spawn('api', 'killed', { PORT })
  await worker.kill('SIGKILL')
  worker = await cluster.spawn('worker')
  await cluster.model.tokensOut(await cluster.model.called(2), 200)
  await api.kill('SIGKILL')
  const { texts } = await followed
  expect(texts).toHaveLength(2)
  expect(texts[1]).toBe(words.join(''))
})

async function follow(cluster: Cluster, apis: () => ServerProcess[]) {
  const [first] = apis()
  if (!first) throw new Error('There is no api')
  const { threadId, assistantId } = await newThread(first.client)
  // Its own connection is not cut, unless its api is.
  const stream = await postStream(`${first.baseUrl}/threads/${threadId}/runs`, {
    assistant_id: assistantId,
  })
  await stream.saw('thread.run.created')
  const path = `/threads/${threadId}/runs/${runIdOf(stream)}`
  const reading = Array.from({ length: clients }, (_, n): Promise<CutStream> => {
    const random = createRandom(seed + n)
    const baseUrl = (): string => random.pick(apis()).baseUrl ?? ''
    // Once they have come to the end of what is there, they are cut by every few events.
    return readWithCuts(baseUrl, path, { random, mostBytes: 3000, patienceMs: 240_000 })
  })
  const read = await Promise.all(reading)
  const log = await cluster.sql<Frame>(
    'SELECT seq, event, data FROM run_events WHERE run_id = $1 ORDER BY seq',
    [runIdOf(stream)],
  )
  const lines = log.map(({ seq, event, data }) => `id: ${seq}\nevent: ${event}\ndata: ${data}\n\n`)
  const whole = `${lines.join('')}event: done\ndata: [DONE]\n\n`
  expect(log.length).toBeGreaterThan(200)
  for (const { text } of read)
    expect(text === whole, 'what was read is what was written').toBe(true)
  expect(await stream.ended).toBe('done')
  expect(stream.frames).toEqual(log)
  const { runStatus, texts } = await checkEvents(parsed(log))
  expect(runStatus).toBe('completed')
  return { texts, cuts: read.reduce((sum, { cuts }) => sum + cuts, 0) }
}
