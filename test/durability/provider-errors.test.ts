import { afterAll, beforeAll, expect, test } from 'vitest'

import { answersIn, newThread } from '../support/cluster.ts'
import {
  checkEvents,
  parsed,
  postStream,
  type Checked,
  undisturbed,
} from '../support/event-stream.ts'
import {
  contentFiltered,
  contextLengthExceeded,
  cutAfter,
  errorAfter,
  fail,
  insufficientQuota,
  malformedAfter,
  rateLimited,
  raw,
  say,
  sayUnfinished,
  serverError,
  silence,
  unauthorized,
  unstreamed,
  withoutReason,
  type Step,
} from '../support/model.ts'
import { startServer, type TestServer } from '../support/server.ts'

const attempts = 3

let server: TestServer
beforeAll(async () => {
  server = await startServer({ MODEL_ATTEMPTS: String(attempts), MODEL_IDLE_TIMEOUT_S: '1' })
})
afterAll(async () => {
  await server[Symbol.asyncDispose]()
})

/** Runs a thread against these steps of the model, and tells all that came of it. */
async function runOf(steps: Step[], body: object = {}) {
  const { client, model, baseUrl } = server
  const before = model.calls
  model.script(...steps)
  const { threadId, assistantId } = await newThread(client)
  const stream = await postStream(`${baseUrl}/threads/${threadId}/runs`, {
    assistant_id: assistantId,
    ...body,
  })
  expect(await stream.ended).toBe('done')
  const checked: Checked = await checkEvents(parsed(stream.frames))
  const requests = model.requests.slice(before)
  const [run] = (await client.beta.threads.runs.list(threadId)).data
  if (!run) throw new Error('The thread has no run')
  return {
    run,
    requests,
    gapsMs: requests.slice(1).map(({ at }, n) => at.getTime() - (requests[n]?.at.getTime() ?? 0)),
    answers: await answersIn(client, threadId),
    failed: parsed(stream.frames)
      .filter(({ event }) => event === 'thread.run.step.failed')
      .map(({ data }) => data),
    ...checked,
  }
}

test.each([
  { name: 'seconds', after: { seconds: 1 }, leastMs: 1000, mostMs: 2000 },
  { name: 'milliseconds', after: { ms: 1200 }, leastMs: 1200, mostMs: 2200 },
])('a rate limit is waited out as the provider says in $name', async (given) => {
  const { run, gapsMs, events, answers } = await runOf([rateLimited(given.after), say('Yes.')])
  expect(run.status).toBe('completed')
  expect(gapsMs).toHaveLength(1)
  expect(gapsMs[0]).toBeGreaterThanOrEqual(given.leastMs)
  expect(gapsMs[0]).toBeLessThan(given.mostMs)
  expect(answers).toEqual(['Yes.'])
  expect(events.filter((name) => name === 'thread.message.created')).toHaveLength(1)
})

test('a rate limit is waited out until the date that the provider says', async () => {
  // HTTP dates have no fractions, so this is two to three seconds away.
  const date = new Date(Math.ceil(Date.now() / 1000) * 1000 + 2000)
  const { run, requests, answers } = await runOf([rateLimited({ date }), say('Yes.')])
  expect(run.status).toBe('completed')
  expect(requests).toHaveLength(2)
  // Temporal's timers and ours round to milliseconds each.
  expect(requests[1]?.at.getTime()).toBeGreaterThanOrEqual(date.getTime() - 5)
  expect(answers).toEqual(['Yes.'])
})

test('a quota that is used up is not asked for again', async () => {
  const { run, requests, answers } = await runOf([insufficientQuota()])
  expect(run.status).toBe('failed')
  expect(run.last_error?.code).toBe('rate_limit_exceeded')
  expect(run.last_error?.message).toMatch(/429.*exceeded your current quota/)
  expect(requests).toHaveLength(1)
  expect(answers).toEqual([])
})

test('an error of the provider is tried again without a trace in the stream', async () => {
  const { run, requests, events, answers } = await runOf([serverError(500), say('Yes.')])
  expect(run.status).toBe('completed')
  expect(run.last_error).toBe(null)
  expect(requests).toHaveLength(2)
  expect(events).toEqual(undisturbed)
  expect(answers).toEqual(['Yes.'])
})

test('an error that stays fails the run, which names the status and the attempts', async () => {
  const { run, requests } = await runOf(Array.from({ length: attempts }, () => serverError(503)))
  expect(run.status).toBe('failed')
  expect(run.last_error?.code).toBe('server_error')
  expect(run.last_error?.message).toMatch(/503.*The server had an error/)
  expect(run.last_error?.message).toContain(`tried ${attempts} times`)
  expect(requests).toHaveLength(attempts)
})

test.each([
  { name: 'a wrong key', step: unauthorized(), code: 'server_error', says: /401.*Incorrect API/ },
  {
    name: 'a prompt that is too long',
    step: contextLengthExceeded(),
    code: 'invalid_prompt',
    says: /400.*maximum context length is 8192/,
  },
  {
    name: 'a prompt that the filter refuses',
    step: contentFiltered(),
    code: 'invalid_prompt',
    says: /400.*content policy/,
  },
])('$name is not tried again', async ({ step, code, says }) => {
  const { run, requests, answers } = await runOf([step])
  expect(run.status).toBe('failed')
  expect(run.last_error).toMatchObject({ code, message: expect.stringMatching(says) as unknown })
  expect(requests).toHaveLength(1)
  expect(answers).toEqual([])
})

test('an error that quotes what cannot be stored is told all the same, and not tried again', async () => {
  const quoting = fail(400, { message: 'Not understood: \0 and \ud83d.' })
  const { run, requests } = await runOf([quoting])
  expect(run.status).toBe('failed')
  expect(run.last_error?.code).toBe('invalid_prompt')
  expect(run.last_error?.message).toMatch(/400: Not understood: \u{fffd} and \u{fffd}\. The call/u)
  expect(requests).toHaveLength(1)
})

test('an answer that the filter cuts fails the run and keeps what was written', async () => {
  const { run, requests, answers, events } = await runOf([
    say('Never', { finishReason: 'content_filter' }),
  ])
  expect(run.status).toBe('failed')
  expect(run.last_error).toEqual({ code: 'invalid_prompt', message: expect.any(String) as unknown })
  expect(requests).toHaveLength(1)
  expect(answers).toEqual(['Never'])
  expect(events).toContain('thread.message.incomplete')
  const [message] = (await server.client.beta.threads.messages.list(run.thread_id)).data
  expect(message).toMatchObject({
    status: 'incomplete',
    incomplete_details: { reason: 'content_filter' },
  })
})

test('an answer that is cut after some tokens is written anew in another message', async () => {
  const { run, requests, events, texts, answers, failed } = await runOf([
    cutAfter(3, ['One ', 'two ', 'three ', 'four.']),
    say('One two three four.'),
  ])
  expect(run.status).toBe('completed')
  expect(requests).toHaveLength(2)
  expect(events.filter((name) => name === 'thread.message.incomplete')).toHaveLength(1)
  expect(events.filter((name) => name === 'thread.message.completed')).toHaveLength(1)
  expect(texts).toEqual(['One two three ', 'One two three four.'])
  expect(failed).toMatchObject([
    { last_error: { message: expect.stringContaining("connection to the model 'gpt-4o'") } },
  ])
  expect(answers).toEqual(['One two three four.'])
  // The model is not shown what it wrote before.
  expect(requests[1]?.prompt).not.toContain('One two')
})

test('an answer that is cut before its first token leaves no message behind', async () => {
  const { requests, events, answers } = await runOf([cutAfter(0, 'Lost.'), say('Found.')])
  expect(requests).toHaveLength(2)
  expect(events).toEqual(undisturbed)
  expect(answers).toEqual(['Found.'])
})

test('an answer that is cut each time fails the run, which says so', async () => {
  const { run, requests, answers, texts } = await runOf(
    Array.from({ length: attempts }, () => cutAfter(2, ['Never ', 'ever ', 'more.'])),
  )
  expect(run.status).toBe('failed')
  expect(run.last_error?.message).toContain(`tried ${attempts} times`)
  expect(requests).toHaveLength(attempts)
  expect(texts).toHaveLength(attempts)
  // The last attempt is what the run is left with; the others are superseded.
  expect(answers).toEqual(['Never ever '])
})

test('a silent provider counts as gone after the idle timeout, and in the end as a failure', async () => {
  const { run, requests } = await runOf(Array.from({ length: attempts }, silence))
  expect(run.status).toBe('failed')
  expect(run.last_error?.message).toContain('silent for 1 s')
  expect(requests).toHaveLength(attempts)
  expect(await Promise.all(requests.map(({ closed }) => closed))).toEqual(
    requests.map(() => 'closed by the client'),
  )
})

test.each([
  { name: 'a chunk that is no JSON', step: malformedAfter(2, ['So ', 'it ', 'goes.']) },
  {
    name: 'an error in the open stream',
    step: errorAfter(2, ['So ', 'it ', 'goes.'], { message: 'Overloaded', type: 'server_error' }),
  },
  { name: 'an end without a reason', step: sayUnfinished(['So ', 'it ']) },
])('$name is a cut answer: it is written anew', async ({ step }) => {
  const { run, requests, texts, answers } = await runOf([step, say('So it goes.')])
  expect(run.status).toBe('completed')
  expect(requests).toHaveLength(2)
  expect(texts).toEqual(['So it ', 'So it goes.'])
  expect(answers).toEqual(['So it goes.'])
})

test('the page of a proxy is an error that is tried again', async () => {
  const { run, requests } = await runOf([raw('<h1>Bad gateway</h1>', {}, 502), say('Yes.')])
  expect(run.status).toBe('completed')
  expect(requests).toHaveLength(2)
})

test('a page in the place of an answer fails the run at once, which says what it was', async () => {
  const { run, requests } = await runOf([raw('<h1>Log in</h1>')])
  expect(run.status).toBe('failed')
  expect(run.last_error).toEqual({
    code: 'server_error',
    message: `The model 'gpt-4o' at ${new URL(server.model.url).host} answered 200 with text/html instead of an event stream: <h1>Log in</h1>. The call was tried once.`,
  })
  expect(requests).toHaveLength(1)
})

test('an empty answer is tried again', async () => {
  const { run, requests, events } = await runOf([raw(''), say('Yes.')])
  expect(run.status).toBe('completed')
  expect(requests).toHaveLength(2)
  expect(events).toEqual(undisturbed)
})

test('an answer that ends each time without a reason fails the run, which names the model', async () => {
  const { run } = await runOf(Array.from({ length: attempts }, () => sayUnfinished(['So '])))
  expect(run.last_error?.message).toBe(
    `The answer of the model 'gpt-4o' at ${new URL(server.model.url).host} was cut off before its end. The call was tried 3 times.`,
  )
})

test.each([
  { name: 'comes in one piece', answer: unstreamed(say('So it goes.')) },
  { name: 'is done without a reason', answer: withoutReason(say('So it goes.')) },
])('an answer that $name is an answer', async ({ answer }) => {
  const { run, requests, answers, events } = await runOf([answer])
  expect(run.status).toBe('completed')
  expect(requests).toHaveLength(1)
  expect(answers).toEqual(['So it goes.'])
  expect(events).toEqual(undisturbed)
})

test('a wait past the deadline of the run fails it at once, and says so', async () => {
  const beganAt = performance.now()
  const { run, requests } = await runOf([rateLimited({ seconds: 120 })], {
    expires_after_seconds: 60,
  })
  expect(performance.now() - beganAt).toBeLessThan(5000)
  expect(run.status).toBe('failed')
  expect(run.last_error?.code).toBe('rate_limit_exceeded')
  expect(run.last_error?.message).toContain("120 s, which is past the run's deadline")
  expect(requests).toHaveLength(1)
})
