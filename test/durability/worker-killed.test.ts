import { expect, test } from 'vitest'

import { answersIn, askedBy, lookUp, newThread, startCluster } from '../support/cluster.ts'
import { checkEvents, gapFree, parsed, postStream, undisturbed } from '../support/event-stream.ts'
import { call, say, stallAfter } from '../support/model.ts'

/** Promised in the README: the worst case is a heartbeat that is missed, and a queue that nobody reads any more. */
const recoveryMs = 10_000

const cut = ['It ', 'was ', 'a ', 'bright ', 'cold ', 'day ', 'in ', 'April.']

test('a worker that is killed in mid-stream is replaced by one that is started then', async () => {
  await using cluster = await startCluster()
  const { model } = cluster
  const [{ client }, worker] = await Promise.all([cluster.spawn('api'), cluster.spawn('worker')])
  model.script(stallAfter(5, cut), say('The clocks struck thirteen.'))
  const { threadId, assistantId } = await newThread(client)

  const stream = client.beta.threads.runs.stream(threadId, { assistant_id: assistantId })
  const events: { event: string; data: unknown }[] = []
  // The helper goes on to write into the objects that it hands out.
  stream.on('event', (event) => void events.push(structuredClone(event)))
  await new Promise((resolve) => stream.once('textDelta', resolve))
  const killedAt = performance.now()
  await worker.kill('SIGKILL')
  await cluster.spawn('worker')

  const run = await stream.finalRun()
  const tookMs = performance.now() - killedAt
  expect(run.status).toBe('completed')
  expect(tookMs).toBeLessThan(recoveryMs)
  expect(model.calls).toBe(2)
  const messages = await stream.finalMessages()
  expect(messages.map(({ status }) => status)).toEqual(['incomplete', 'completed'])
  expect(new Set(messages.map(({ id }) => id)).size).toBe(2)
  expect(await answersIn(client, threadId)).toEqual(['The clocks struck thirteen.'])

  const { events: names, texts } = await checkEvents(events)
  expect(names).toEqual(cutAndWrittenAnew)
  // Of the five tokens that were out, those that the killed worker had written down.
  expect(cut.slice(0, 5).join('')).toContain(texts[0])
  expect(texts[1]).toBe('The clocks struck thirteen.')
})

test('a worker that is killed in mid-stream is replaced by one that was there already', async () => {
  await using cluster = await startCluster()
  const { model } = cluster
  const [api, one, other] = await Promise.all([
    cluster.spawn('api'),
    cluster.spawn('worker', 'one'),
    cluster.spawn('worker', 'other'),
  ])
  model.script(stallAfter(5, cut), say('The clocks struck thirteen.'))
  const { threadId, assistantId } = await newThread(api.client)

  const stream = await postStream(`${api.baseUrl}/threads/${threadId}/runs`, {
    assistant_id: assistantId,
  })
  const first = await model.called(1)
  await stream.saw('thread.message.delta')
  const killed = askedBy(first) === 'one' ? one : other
  const killedAt = performance.now()
  await killed.kill('SIGKILL')

  expect(await stream.ended).toBe('done')
  expect(performance.now() - killedAt).toBeLessThan(recoveryMs)
  expect(model.requests.map(askedBy)).toEqual(killed === one ? ['one', 'other'] : ['other', 'one'])
  const { frames } = stream
  expect(frames.map(({ seq }) => seq)).toEqual(gapFree(frames))
  const { events: names, texts } = await checkEvents(parsed(frames))
  expect(names).toEqual(cutAndWrittenAnew)
  expect(texts[1]).toBe('The clocks struck thirteen.')
  expect(await answersIn(api.client, threadId)).toEqual(['The clocks struck thirteen.'])
  expect(await cluster.sql('SELECT 1 FROM runs WHERE holds_lock')).toEqual([])
})

test('a run that waits for tool outputs does not notice that its worker is killed', async () => {
  await using cluster = await startCluster()
  const { model } = cluster
  const [{ client }, worker] = await Promise.all([cluster.spawn('api'), cluster.spawn('worker')])
  model.script(call({ name: 'look_up', arguments: {} }), say('It is 42.'))
  const { threadId, assistantId } = await newThread(client, 'What is it?', [lookUp])
  const parked = await client.beta.threads.runs.createAndPoll(threadId, {
    assistant_id: assistantId,
  })
  expect(parked.status).toBe('requires_action')
  const [pending] = parked.required_action?.submit_tool_outputs.tool_calls ?? []

  await worker.kill('SIGKILL')
  await cluster.spawn('worker')
  const submittedAt = performance.now()
  const stream = client.beta.threads.runs.submitToolOutputsStream(parked.id, {
    thread_id: threadId,
    tool_outputs: [{ tool_call_id: pending?.id ?? '', output: '42' }],
  })
  const run = await stream.finalRun()

  expect(run.status).toBe('completed')
  expect(performance.now() - submittedAt).toBeLessThan(recoveryMs)
  expect(model.calls).toBe(2)
  expect(model.requests[1]?.toolResults).toEqual(['42'])
  expect(await answersIn(client, threadId)).toEqual(['It is 42.'])
})

/** Up to its first words, their end, and then another step with another message to the end. */
const cutAndWrittenAnew = [
  ...undisturbed.slice(0, undisturbed.indexOf('thread.message.delta') + 1),
  'thread.message.incomplete',
  'thread.run.step.failed',
  ...undisturbed.slice(undisturbed.indexOf('thread.run.step.created')),
]
