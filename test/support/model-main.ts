import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { parseArgs } from 'node:util'
import { chunkEncoder, completionBody, DONE, sendJson } from '../../local/chat-completions.ts'

/**
 * A model for measurements, in its own process: every request gets the same tokens at the same
 * pace. It shares a machine with what is measured, so it must cost next to nothing: every chunk is
 * encoded once, and one timer serves all streams.
 *
 *   node test/support/model-main.ts --port 8081 --tokens 20 --interval-ms 20 --first-ms 0
 */
const { values } = parseArgs({
  options: {
    port: { type: 'string', default: '0' },
    tokens: { type: 'string', default: '20' },
    'interval-ms': { type: 'string', default: '20' },
    'first-ms': { type: 'string', default: '0' },
  },
})
const tokens = numberOf('tokens')
const intervalMs = numberOf('interval-ms')
const firstMs = numberOf('first-ms')

type Stream = { response: ServerResponse; next: number; dueAt: number; last: number }

const encode = chunkEncoder('bench-model')
const words = Array.from({ length: tokens }, (_, index) => ` word${index + 1}`)
const usage = { promptTokens: 100, completionTokens: tokens }
const chunks = [
  ...words.map((word, index) => (index === 0 ? encode.start() : '') + encode.text(word)),
  encode.finish('stop') + DONE,
  encode.finish('stop') + encode.usage(usage) + DONE,
].map((chunk) => Buffer.from(chunk))
const whole = completionBody('bench-model', {
  text: words.join(''),
  refusal: null,
  calls: [],
  finishReason: 'stop',
  usage,
})

/**
 * All waits are one of two lengths, so each length has a queue that is in order of time by itself;
 * the timer is set for the earlier of two heads.
 */
const firsts = createQueue()
const others = createQueue()
let timer: NodeJS.Timeout | undefined
let wakesAt = Infinity

const server = createServer((request, response) => {
  void readBody(request).then((body) => begin(request, body, response))
})
server.requestTimeout = 0
server.keepAliveTimeout = 60_000
server.listen(numberOf('port'), '127.0.0.1', () => {
  const address = server.address()
  if (address !== null && typeof address === 'object') {
    process.stdout.write(`http://127.0.0.1:${address.port}/v1\n`)
  }
})
process.once('SIGTERM', () => process.exit(0))
process.once('SIGINT', () => process.exit(0))

function begin(request: IncomingMessage, body: string, response: ServerResponse): void {
  if (request.method !== 'POST') {
    sendJson(response, 200, { object: 'list', data: [{ id: 'bench-model', object: 'model' }] })
    return
  }
  if (!/"stream"\s*:\s*true/.test(body)) {
    setTimeout(() => sendJson(response, 200, whole), firstMs + intervalMs * tokens)
    return
  }
  response.socket?.setNoDelay(true)
  response.writeHead(200, { 'content-type': 'text/event-stream; charset=utf-8' })
  response.flushHeaders()
  const last = /"include_usage"\s*:\s*true/.test(body) ? tokens + 1 : tokens
  firsts.push({ response, next: 0, dueAt: performance.now() + firstMs, last })
  arm()
}

function arm(): void {
  const dueAt = Math.min(firsts.dueAt(), others.dueAt())
  if (dueAt >= wakesAt) return
  clearTimeout(timer)
  wakesAt = dueAt
  timer = setTimeout(tick, Math.max(0, dueAt - performance.now()))
}

function tick(): void {
  wakesAt = Infinity
  const now = performance.now()
  for (const queue of [firsts, others]) {
    while (queue.dueAt() <= now) {
      const stream = queue.shift()
      if (stream && sendNext(stream)) others.push(stream)
    }
  }
  arm()
}

/** False when that was the last chunk or the client is gone. */
function sendNext(stream: Stream): boolean {
  const { response } = stream
  if (response.destroyed) return false
  if (stream.next < tokens) response.write(chunks[stream.next])
  stream.next += 1
  stream.dueAt += intervalMs
  if (stream.next < tokens) return true
  // The end follows the last token at once, as with a real model.
  response.end(chunks[stream.last])
  return false
}

/** First in, first out, without moving what is left at every shift. */
function createQueue() {
  let items: Stream[] = []
  let head = 0
  return {
    push: (stream: Stream) => void items.push(stream),
    dueAt: () => items[head]?.dueAt ?? Infinity,
    shift: () => {
      const stream = items[head]
      head += 1
      if (head > 1024 && head * 2 > items.length) {
        items = items.slice(head)
        head = 0
      }
      return stream
    },
  }
}

async function readBody(request: IncomingMessage): Promise<string> {
  const parts: Buffer[] = []
  for await (const part of request as AsyncIterable<Buffer>) parts.push(part)
  return Buffer.concat(parts).toString('utf8')
}

function numberOf(name: 'port' | 'tokens' | 'interval-ms' | 'first-ms'): number {
  const value = Number(values[name])
  if (Number.isFinite(value) && value >= 0) return value
  throw new Error(`--${name} must be a number >= 0, and is '${values[name]}'.`)
}
