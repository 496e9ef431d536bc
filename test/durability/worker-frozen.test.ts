import { expect, test } from 'vitest'

import { eventually } from '../local/scratch.ts'
import { answersIn, newThread, startCluster, everythingOf } from '../support/cluster.ts'
import { checkEvents, parsed, postStream } from '../support/event-stream.ts'
import { say, stallAfter } from '../support/model.ts'

/**
 * A process that is stopped and goes on later (a paused machine, a long swap) still believes that the run is its own. Three
 * runs are on it, and of each the model does something else when it wakes.
 */
test('a worker that was frozen and replaced can write nothing when it wakes, and stops', async () => {
  // What it believes is measured in time too: the idle timeout must not be what stops it.
  await using cluster = await startCluster({
    env: { MODEL_IDLE_TIMEOUT_S: '300', LOG_LEVEL: 'info' },
  })
  const { model } = cluster
  const [{ client, baseUrl }, frozen] = await Promise.all([
    cluster.spawn('api'),
    cluster.spawn('worker', 'frozen'),
  ])
  const words = Array.from({ length: 2000 }, (_, n) => `${n} `)
  const first = {
    'goes on': say(words, { delayMs: 50 }),
    'says nothing more': stallAfter(3, words),
    'has finished': stallAfter(3, words),
  }
  const questions = Object.keys(first) as (keyof typeof first)[]
  model.respond(({ question, headers }) =>
    headers.authorization === 'Bearer frozen'
      ? first[question as keyof typeof first]
      : say('Taken over.'),
  )
  const runs = await Promise.all(
    questions.map(async (question) => {
      const { threadId, assistantId } = await newThread(client, question)
      const url = `${baseUrl}/threads/${threadId}/runs`
      const stream = await postStream(url, { assistant_id: assistantId })
      await stream.saw('thread.message.delta')
      return { question, threadId, stream }
    }),
  )
  const requestOf = (wanted: string) => {
    const found = model.requests.find(({ question }) => question === wanted)
    if (!found) throw new Error(`The model was not asked '${wanted}'`)
    return found
  }

  await frozen.kill('SIGSTOP')
  await cluster.spawn('worker', 'replacement')
  for (const { stream, threadId } of runs) {
    expect(await stream.ended).toBe('done')
    const { runStatus, texts } = await checkEvents(parsed(stream.frames))
    expect(runStatus).toBe('completed')
    expect(texts).toHaveLength(2)
    expect(texts[1]).toBe('Taken over.')
    expect(await answersIn(client, threadId)).toEqual(['Taken over.'])
  }
  requestOf('has finished').release()
  expect(await requestOf('has finished').closed).toBe('finished')

  const before = await everythingOf(cluster)
  await frozen.kill('SIGCONT')

  // It says so of each run that it gives up.
  await eventually(() => frozen.output().split('this attempt was replaced').length - 1 === 3)
  expect(await requestOf('goes on').closed).toBe('closed by the client')
  expect(await requestOf('says nothing more').closed).toBe('closed by the client')
  expect(await everythingOf(cluster)).toEqual(before)
  for (const { threadId } of runs) {
    expect(await answersIn(client, threadId)).toEqual(['Taken over.'])
  }
  expect(model.calls).toBe(6)
})
