import { expect, inject, test } from 'vitest'

import { eventually } from '../local/scratch.ts'
import { answersIn, askedBy, newThread, startCluster, everythingOf } from '../support/cluster.ts'
import { checkEvents, parsed, postStream, runIdOf } from '../support/event-stream.ts'
import { say, stallAfter } from '../support/model.ts'
import { createDatabase } from '../support/server.ts'
import { statusOfWorkflow } from '../support/own-parts.ts'
import { startTcpProxy } from '../support/tcp-proxy.ts'

/**
 * A worker that Temporal hears no more of, while it goes on to read from the model and to write to Postgres. Three runs are
 * on it, and of each the model does something else meanwhile.
 */
test('a worker that is cut off from Temporal is replaced, and its return changes nothing', async () => {
  const temporalAddress = inject('temporalAddress')
  await using wire = await startTcpProxy(temporalAddress)
  await using cluster = await startCluster({
    env: { MODEL_IDLE_TIMEOUT_S: '300', LOG_LEVEL: 'info' },
  })
  const { model } = cluster
  const [{ client, baseUrl }, cutOff] = await Promise.all([
    cluster.spawn('api'),
    cluster.spawn('worker', 'cut off', { TEMPORAL_ADDRESS: wire.address }),
  ])
  const words = Array.from({ length: 2000 }, (_, n) => `${n} `)
  const whole = ['It ', 'was ', 'a ', 'bright ', 'cold ', 'day.']
  const first = {
    'goes on': say(words, { delayMs: 50 }),
    'says nothing more': stallAfter(3, whole),
    'finishes in time': stallAfter(3, whole),
  }
  const questions = Object.keys(first) as (keyof typeof first)[]
  model.respond((request) =>
    askedBy(request) === 'cut off'
      ? first[request.question as keyof typeof first]
      : say('Taken over.'),
  )
  const runs = await Promise.all(
    questions.map(async (question) => {
      const { threadId, assistantId } = await newThread(client, question)
      const url = `${baseUrl}/threads/${threadId}/runs`
      const stream = await postStream(url, { assistant_id: assistantId })
      await stream.saw('thread.message.delta')
      return { question, threadId, assistantId, stream }
    }),
  )
  const requestOf = (wanted: string) => {
    const found = model.requests.find(({ question }) => question === wanted)
    if (!found) throw new Error(`The model was not asked '${wanted}'`)
    return found
  }
  await cluster.spawn('worker', 'other')

  wire.partition()
  // Its answer is whole and kept before anybody takes the run over, so nobody asks for it again.
  requestOf('finishes in time').release()
  for (const { question, stream, threadId } of runs) {
    expect(await stream.ended).toBe('done')
    const { runStatus, texts } = await checkEvents(parsed(stream.frames))
    expect(runStatus).toBe('completed')
    const answer = question === 'finishes in time' ? whole.join('') : 'Taken over.'
    expect(texts.at(-1)).toBe(answer)
    expect(texts).toHaveLength(question === 'finishes in time' ? 1 : 2)
    expect(await answersIn(client, threadId)).toEqual([answer])
  }
  expect(model.requests.map(askedBy).toSorted()).toEqual([
    'cut off',
    'cut off',
    'cut off',
    'other',
    'other',
  ])
  // Temporal has heard of all three by now, from the other worker.
  for (const { stream } of runs) {
    await eventually(async () => {
      const status = await statusOfWorkflow(runIdOf(stream), temporalAddress)
      return status === 'COMPLETED'
    }, 60_000)
  }
  expect(await requestOf('goes on').closed).toBe('closed by the client')

  const before = await everythingOf(cluster)
  wire.heal()
  requestOf('says nothing more').release()
  await eventually(
    () => cutOff.output().split('this attempt was replaced').length - 1 === 2,
    60_000,
  )
  expect(await everythingOf(cluster)).toEqual(before)
  expect(model.calls).toBe(5)

  // Their threads are free, and whichever worker takes the next runs.
  model.respond(() => say('Next.'))
  for (const { threadId, assistantId } of runs) {
    const next = await client.beta.threads.runs.createAndPoll(threadId, {
      assistant_id: assistantId,
    })
    expect(next.status).toBe('completed')
  }
})

test('a worker that is cut off from Postgres is replaced, and takes no runs until it hears of it', async () => {
  await using database = await createDatabase()
  const { host, href } = new URL(database.url)
  await using wire = await startTcpProxy(host)
  await using cluster = await startCluster({
    databaseUrl: href,
    env: { MODEL_IDLE_TIMEOUT_S: '300', LOG_LEVEL: 'info', SHUTDOWN_GRACE_S: '1' },
  })
  const { model } = cluster
  const throughWire = new URL(href)
  throughWire.host = wire.address
  const [{ client, baseUrl }, cutOff] = await Promise.all([
    cluster.spawn('api'),
    cluster.spawn('worker', 'cut off', { DATABASE_URL: throughWire.href }),
  ])
  const words = Array.from({ length: 2000 }, (_, n) => `${n} `)
  model.respond((request) =>
    askedBy(request) === 'cut off' ? say(words, { delayMs: 50 }) : say('Taken over.'),
  )
  const { threadId, assistantId } = await newThread(client)
  const stream = await postStream(`${baseUrl}/threads/${threadId}/runs`, {
    assistant_id: assistantId,
  })
  await stream.saw('thread.message.delta')
  await cluster.spawn('worker', 'other')

  wire.partition()
  expect(await stream.ended).toBe('done')
  const { runStatus, texts } = await checkEvents(parsed(stream.frames))
  expect(runStatus).toBe('completed')
  expect(texts.at(-1)).toBe('Taken over.')
  expect(await answersIn(client, threadId)).toEqual(['Taken over.'])
  await eventually(() => cutOff.output().includes('the worker takes no more runs'), 60_000)

  // It swallows none of those that come now.
  for (let n = 0; n < 6; n += 1) {
    const next = await client.beta.threads.runs.createAndPoll(threadId, {
      assistant_id: assistantId,
    })
    expect(next.status).toBe('completed')
  }
  const before = await everythingOf(cluster)
  wire.heal()
  // It works again, and has written nothing of what it had in hand.
  const callsBefore = model.calls
  model.respond(() => say('Next.'))
  expect(await everythingOf(cluster)).toEqual(before)
  await eventually(async () => {
    const { status } = await client.beta.threads.runs.createAndPoll(threadId, {
      assistant_id: assistantId,
    })
    expect(status).toBe('completed')
    return model.requests.slice(callsBefore).map(askedBy).includes('cut off')
  }, 90_000)
})
