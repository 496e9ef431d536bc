import { afterAll, beforeAll, expect, test } from 'vitest'

import { lookUp, newThread, startCluster, type Cluster } from '../support/cluster.ts'
import {
  checkEvents,
  getStream,
  parsed,
  postStream,
  runIdOf,
  type Frame,
} from '../support/event-stream.ts'
import { call, say } from '../support/model.ts'
import type { ServerProcess } from '../support/processes.ts'

let cluster: Cluster
let one: ServerProcess
let other: ServerProcess
beforeAll(async () => {
  cluster = await startCluster()
  ;[one, other] = await Promise.all([
    cluster.spawn('api'),
    cluster.spawn('api'),
    cluster.spawn('worker'),
  ])
})
afterAll(() => cluster[Symbol.asyncDispose]())

test('a run that is parked is watched on another api, to where its outputs lead', async () => {
  cluster.model.script(call({ name: lookUp.function.name, arguments: {} }), say('Two metres.'))
  const { threadId, assistantId } = await newThread(one.client, 'How long is it?', [lookUp])
  const asks = await postStream(`${one.baseUrl}/threads/${threadId}/runs`, {
    assistant_id: assistantId,
  })
  expect(await asks.ended).toBe('done')
  const path = `/threads/${threadId}/runs/${runIdOf(asks)}`
  const parked = await getStream(`${other.baseUrl}${path}/events`, asks.frames.length)
  const { required_action: action } = JSON.parse(asks.frames.at(-1)?.data ?? '') as {
    required_action: { submit_tool_outputs: { tool_calls: { id: string }[] } }
  }
  const goesOn = await postStream(`${one.baseUrl}${path}/submit_tool_outputs`, {
    tool_outputs: action.submit_tool_outputs.tool_calls.map(({ id }) => ({
      tool_call_id: id,
      output: '2 m',
    })),
  })
  expect(await goesOn.ended).toBe('done')
  expect(await parked.ended).toBe('done')
  expect(parked.frames).toEqual(goesOn.frames)
  const log = await logOf(runIdOf(asks))
  expect([...asks.frames, ...parked.frames]).toEqual(log)
  // Who comes once it is over is shown all of it, and not only what the first request was.
  const whole = await getStream(`${other.baseUrl}${path}/events`, 0)
  expect(await whole.ended).toBe('done')
  expect(whole.frames).toEqual(log)
})

test('a client of an api that is told to end is not told a half answer for a whole one', async () => {
  const stopping = await cluster.spawn('api')
  cluster.model.script(
    say(
      Array.from({ length: 200 }, (_, n) => `${n} `),
      { delayMs: 30 },
    ),
  )
  const { threadId, assistantId } = await newThread(stopping.client)
  const runs = stopping.client.beta.threads.runs
  const stream = await runs.create(threadId, { assistant_id: assistantId, stream: true })
  const read = async (): Promise<void> => {
    for await (const { event } of stream) {
      if (event === 'thread.message.delta') stopping.process.kill('SIGTERM')
    }
  }
  await expect(read()).rejects.toThrow(/terminated|closed|aborted/)
})

test('an api that is told to end sends its clients to another one, where they lose nothing', async () => {
  const callsBefore = cluster.model.calls
  const words = Array.from({ length: 150 }, (_, n) => `${n} `)
  cluster.model.script(say(words, { delayMs: 30 }))
  const { threadId, assistantId } = await newThread(one.client)
  const first = await postStream(`${one.baseUrl}/threads/${threadId}/runs`, {
    assistant_id: assistantId,
  })
  await first.saw('thread.message.delta')
  const path = `/threads/${threadId}/runs/${runIdOf(first)}`
  const watchers = await Promise.all(
    [0, 2, 5].map(async (after) => ({
      after,
      stream: await getStream(`${one.baseUrl}${path}/events`, after),
    })),
  )
  for (const { stream } of watchers) await stream.saw('thread.message.delta')

  await one.kill('SIGTERM')

  expect(one.process.exitCode).toBe(0)
  const resumed = [{ after: 0, stream: first }, ...watchers].map(async ({ after, stream }) => {
    // Without [DONE]: the run goes on.
    expect(await stream.ended).toBe('broken')
    const last = stream.frames.at(-1)?.seq ?? after
    const rest = await getStream(`${other.baseUrl}${path}/events`, last)
    expect(await rest.ended).toBe('done')
    return { after, frames: [...stream.frames, ...rest.frames], rest: rest.frames.length }
  })
  const clients = await Promise.all(resumed)
  const log = await logOf(runIdOf(first))
  for (const { after, frames, rest } of clients) {
    expect(rest).toBeGreaterThan(0)
    expect(frames).toEqual(log.slice(after))
  }
  const { runStatus, texts } = await checkEvents(parsed(log))
  expect({ runStatus, texts }).toEqual({ runStatus: 'completed', texts: [words.join('')] })
  expect(cluster.model.calls).toBe(callsBefore + 1)
})

function logOf(runId: string): Promise<Frame[]> {
  return cluster.sql<Frame>(
    'SELECT seq, event, data FROM run_events WHERE run_id = $1 ORDER BY seq',
    [runId],
  )
}
