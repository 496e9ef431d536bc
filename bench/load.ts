import { Agent, request, type IncomingMessage } from 'node:http'

import { nowMs, pause } from './clock.ts'

/** The client of the measurements: plain HTTP over connections that stay open, and as little work per event as can be. */
export interface Load extends Disposable {
  /** POSTs and reads the JSON answer. Throws where it is not a success. */
  post(path: string, body: object): Promise<{ id: string }>
  /** The newest of a list. */
  list(path: string): Promise<{ id: string }[]>
  /** The run as it is once it is terminal or waits for its client. */
  settled(threadId: string, runId: string): Promise<{ status: string }>
  /** A streamed run on the thread, until `[DONE]`. Throws where it does not complete. `onToken` is called for each token. */
  run(
    assistantId: string,
    threadId: string,
    onToken?: OnToken,
  ): Promise<Timings & { runId: string }>
  /** Follows a run from its first event, until `[DONE]`. */
  watch(threadId: string, runId: string, onToken?: OnToken): Promise<void>
  /** Asks for the events of a run and reads none of them, until it is asked to read them all or is disposed. */
  stall(threadId: string, runId: string): Promise<Stalled>
  /** What `create_and_poll` of the official clients does, in milliseconds until the run is seen to have ended. */
  poll(assistantId: string, threadId: string): Promise<number>
  /** The model itself, asked without us in between. */
  direct(model: string, onToken?: OnToken): Promise<Timings>
}

export interface Stalled extends Disposable {
  /** Reads from the first event until `[DONE]`. */
  read(onToken: OnToken): Promise<void>
}

/** Told when a token is there, and how long it was on its way since the model has sent it, in milliseconds. */
export type OnToken = (atMs: number, delayMs: number) => void

/** Milliseconds, from before the request is made. */
export interface Timings {
  firstEvent: number
  firstToken: number
  /** Per token after the first: from when the model sent it to when it was here. */
  tokenDelays: number[]
  done: number
}

const terminal = /"status":\s*"(completed|failed|incomplete|expired|cancelled|requires_action)"/

export function createLoad(baseUrl: string, modelUrl: string, stop: AbortSignal): Load {
  const agent = new Agent({ keepAlive: true, maxFreeSockets: 1000 })
  const headers = {
    authorization: 'Bearer bench',
    'openai-beta': 'assistants=v2',
    'content-type': 'application/json',
  }

  function send(method: string, url: string, body?: object, more: Record<string, string> = {}) {
    return new Promise<IncomingMessage>((resolve, reject) => {
      const data = body && JSON.stringify(body)
      const length = data ? { 'content-length': String(Buffer.byteLength(data)) } : {}
      const options = { method, agent, signal: stop, headers: { ...headers, ...length, ...more } }
      request(url, options, resolve).on('error', reject).end(data)
    })
  }

  async function json(method: string, url: string, body?: object, more?: Record<string, string>) {
    const response = await send(method, url, body, more)
    let text = ''
    response.setEncoding('utf8')
    for await (const part of response as AsyncIterable<string>) text += part
    if (response.statusCode !== 200) throw new Error(`${method} ${url}: ${text}`)
    return { response, text }
  }

  return {
    async post(path, body) {
      const { text } = await json('POST', `${baseUrl}${path}`, body)
      return JSON.parse(text) as { id: string }
    },
    async list(path) {
      const { text } = await json('GET', `${baseUrl}${path}`)
      return (JSON.parse(text) as { data: { id: string }[] }).data
    },
    async settled(threadId, runId) {
      const helper = { 'x-stainless-poll-helper': 'true' }
      for (;;) {
        const url = `${baseUrl}/threads/${threadId}/runs/${runId}`
        const { text } = await json('GET', url, undefined, helper)
        if (terminal.test(text)) return JSON.parse(text) as { status: string }
      }
    },
    async run(assistantId, threadId, onToken) {
      const began = nowMs()
      const body = { assistant_id: assistantId, stream: true }
      const response = await send('POST', `${baseUrl}/threads/${threadId}/runs`, body)
      const seen = await readStream(response, began, messageDelta, onToken)
      if (!seen.last.includes('event: done') || !seen.beforeLast.includes('thread.run.completed')) {
        throw new Error(`The run did not complete: ${seen.beforeLast}\n${seen.last}`)
      }
      const runId = /"id":\s*"(run_\w+)"/.exec(seen.beforeLast)?.[1] ?? ''
      return { ...seen.timings, runId }
    },
    async watch(threadId, runId, onToken) {
      const response = await send('GET', `${baseUrl}/threads/${threadId}/runs/${runId}/events`)
      await readStream(response, nowMs(), messageDelta, onToken)
    },
    async stall(threadId, runId) {
      const response = await send('GET', `${baseUrl}/threads/${threadId}/runs/${runId}/events`)
      response.on('error', () => {})
      response.pause()
      return {
        async read(onToken) {
          const all = readStream(response, nowMs(), messageDelta, onToken)
          response.resume()
          await all
        },
        [Symbol.dispose]: () => void response.destroy(),
      }
    },
    async poll(assistantId, threadId) {
      const began = nowMs()
      const runs = `${baseUrl}/threads/${threadId}/runs`
      const created = await json('POST', runs, { assistant_id: assistantId })
      const { id } = JSON.parse(created.text) as { id: string }
      for (;;) {
        const helper = { 'x-stainless-poll-helper': 'true' }
        const { response, text } = await json('GET', `${runs}/${id}`, undefined, helper)
        const [, status] = terminal.exec(text) ?? []
        if (status === 'completed') return nowMs() - began
        if (status) throw new Error(`The run did not complete: ${text}`)
        await pause(Number(response.headers['openai-poll-after-ms'] ?? 5000), stop)
      }
    },
    async direct(model, onToken) {
      const began = nowMs()
      const messages = [{ role: 'user', content: 'Say something.' }]
      const body = { model, messages, stream: true, stream_options: { include_usage: true } }
      const response = await send('POST', `${modelUrl}/chat/completions`, body)
      return (await readStream(response, began, 'data: ', onToken)).timings
    },
    [Symbol.dispose]: () => agent.destroy(),
  }
}

const messageDelta = 'event: thread.message.delta'

/** Reads an event stream to its end. Tokens are looked for in frames that hold `tokenFrame`. */
function readStream(
  response: IncomingMessage,
  began: number,
  tokenFrame: string,
  onToken: OnToken = () => {},
) {
  return new Promise<{ timings: Timings; last: string; beforeLast: string }>((resolve, reject) => {
    const timings: Timings = { firstEvent: 0, firstToken: 0, tokenDelays: [], done: 0 }
    let [rest, last, beforeLast] = ['', '', '']
    response.setEncoding('utf8')
    response.on('data', (part: string) => {
      const now = nowMs()
      const frames = (rest + part).split('\n\n')
      rest = frames.pop() ?? ''
      for (const frame of frames) {
        timings.firstEvent ||= now - began
        if (frame.includes(tokenFrame)) {
          for (const [, sentUs] of frame.matchAll(/@(\d+)/g)) {
            onToken(now, now - Number(sentUs) / 1000)
            if (timings.firstToken) timings.tokenDelays.push(now - Number(sentUs) / 1000)
            else timings.firstToken = now - began
          }
        }
        if (frame.endsWith('data: [DONE]')) timings.done = now - began
        beforeLast = last
        last = frame
      }
    })
    response.on('error', reject)
    response.on('end', () => {
      if (timings.done) resolve({ timings, last, beforeLast })
      else reject(new Error(`The stream ended early, after: ${last}${rest}`))
    })
  })
}
