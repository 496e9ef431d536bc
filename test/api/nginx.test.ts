import OpenAI from 'openai'
import { expect, test } from 'vitest'

import { lookUp, newThread } from '../support/cluster.ts'
import { checkEvents, parsed, postStream, runIdOf } from '../support/event-stream.ts'
import { call, say, stallAfter } from '../support/model.ts'
import { startNginx, withoutNginx } from '../support/nginx.ts'
import { createRandom } from '../support/random.ts'
import { readWithCuts } from '../support/resuming-client.ts'
import { startServer } from '../support/server.ts'

const words = Array.from({ length: 60 }, (_, n) => `${n} `)

test.skipIf(withoutNginx !== '')(
  `a stream comes through nginx token by token, and can be resumed there${withoutNginx}`,
  async () => {
    await using server = await startServer()
    await using nginx = await startNginx(server.baseUrl)
    const client = new OpenAI({ baseURL: nginx.baseUrl, apiKey: 'test' })
    server.model.script(stallAfter(1, words))
    const { threadId, assistantId } = await newThread(client)
    const stream = await postStream(`${nginx.baseUrl}/threads/${threadId}/runs`, {
      assistant_id: assistantId,
    })
    // The model says no more until this is here: a proxy that collected the stream would wait for ever.
    await stream.saw('thread.message.delta')
    const path = `/threads/${threadId}/runs/${runIdOf(stream)}`
    const reading = readWithCuts(() => nginx.baseUrl, path, {
      random: createRandom(7),
      mostBytes: 3000,
      patienceMs: 60_000,
    })
    server.model.requests.at(-1)?.release()
    expect(await stream.ended).toBe('done')
    const { runStatus, texts } = await checkEvents(parsed(stream.frames))
    expect({ runStatus, texts }).toEqual({ runStatus: 'completed', texts: [words.join('')] })
    const frames = stream.frames.map(
      ({ seq, event, data }) => `id: ${seq}\nevent: ${event}\ndata: ${data}\n\n`,
    )
    const { text, cuts } = await reading
    expect(text).toBe(`${frames.join('')}event: done\ndata: [DONE]\n\n`)
    expect(cuts).toBeGreaterThan(0)

    server.model.script(say(words))
    const helper = client.beta.threads.runs.stream(threadId, { assistant_id: assistantId })
    expect((await helper.finalRun()).status).toBe('completed')
    expect(await helper.finalMessages()).toHaveLength(1)
  },
)

test.skipIf(withoutNginx !== '')(
  `a run that is parked is resumed through nginx at once${withoutNginx}`,
  async () => {
    await using server = await startServer()
    await using nginx = await startNginx(server.baseUrl)
    const client = new OpenAI({ baseURL: server.baseUrl, apiKey: 'test' })
    server.model.script(call({ name: lookUp.function.name, arguments: {} }))
    const { threadId, assistantId } = await newThread(client, 'How long is it?', [lookUp])
    const stream = await postStream(`${server.baseUrl}/threads/${threadId}/runs`, {
      assistant_id: assistantId,
    })
    expect(await stream.ended).toBe('done')
    const path = `/threads/${threadId}/runs/${runIdOf(stream)}`
    const answer = await fetch(`${nginx.baseUrl}${path}/events?after=${stream.frames.length}`, {
      headers: { authorization: 'Bearer test', 'openai-beta': 'assistants=v2' },
    })
    // The headers came before anything was said, a ping too.
    await client.beta.threads.runs.cancel(runIdOf(stream), { thread_id: threadId })
    expect(await answer.text()).toMatch(/^id: \d+\nevent: thread.run./)
  },
)
