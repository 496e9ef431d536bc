import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'

import { chunkEncoder, DONE, sendJson } from '../local/chat-completions.ts'
import { nowMs } from './clock.ts'

/**
 * The model of the measurements, in a process of its own. The name that is asked for says what it
 * does: `tokens-20-every-10` writes 20 tokens, one every 10 ms. Every token is the time at which it
 * was sent, in microseconds, so that whoever gets it knows how long it was on its way. It shares a
 * machine with what is measured: one timer serves all streams of one pace. `tokens-20-every-10-of-5000`
 * makes each token 5,000 characters longer. `rounds-2` asks for a function twice, and then says
 * what it was told.
 */
type Stream = {
  response: ServerResponse
  left: number
  dueAt: number
  usage: boolean
  made: number
  /** What each token ends with. */
  padding: string
}
type Pace = { intervalMs: number; streams: Stream[]; timer: NodeJS.Timeout | undefined }

const encode = chunkEncoder('bench')
const [beforeToken = '', afterToken = ''] = encode.text('TOKEN').split('TOKEN')
const paces = new Map<number, Pace>()

const server = createServer((request, response) => {
  void readBody(request).then((body) => begin(body, response))
})
server.requestTimeout = 0
server.keepAliveTimeout = 600_000
server.listen(0, '127.0.0.1', () => {
  const address = server.address()
  if (address !== null && typeof address === 'object') {
    process.stdout.write(`http://127.0.0.1:${address.port}/v1\n`)
  }
})
// However the benchmark ends, this ends with it.
process.once('disconnect', () => process.exit(0))

function begin(body: string, response: ServerResponse): void {
  const asked = /"model"\s*:\s*"tokens-(\d+)-every-(\d+)(?:-of-(\d+))?"/.exec(body)
  const rounds = /"model"\s*:\s*"rounds-(\d+)"/.exec(body)
  if (rounds) return answerAfter(Number(rounds[1]), body, response)
  if (!asked) return sendJson(response, 200, { object: 'list', data: [] })
  const [tokens, intervalMs] = [Number(asked[1]), Number(asked[2])]
  response.writeHead(200, { 'content-type': 'text/event-stream; charset=utf-8' })
  const usage = /"include_usage"\s*:\s*true/.test(body)
  const padding = 'x'.repeat(Number(asked[3] ?? 0))
  const dueAt = nowMs() + intervalMs
  const stream = { response, left: tokens, dueAt, usage, made: tokens, padding }
  response.write(encode.start() + token(padding))
  stream.left -= 1
  if (intervalMs === 0) while (stream.left > 0) sendNext(stream)
  if (stream.left === 0) return finish(stream)

  // The newest is due last, so the list is in order of time by itself.
  const pace = paces.get(intervalMs) ?? { intervalMs, streams: [], timer: undefined }
  paces.set(intervalMs, pace)
  pace.streams.push(stream)
  arm(pace)
}

/** One function call a turn, until so many were answered. */
function answerAfter(rounds: number, body: string, response: ServerResponse): void {
  // What our own server sent.
  const { messages } = JSON.parse(body) as { messages: { role: string; content: unknown }[] }
  const told = messages.filter(({ role }) => role === 'tool').map(({ content }) => String(content))
  response.writeHead(200, { 'content-type': 'text/event-stream; charset=utf-8' })
  const counted = encode.usage({ promptTokens: 100, completionTokens: 20 })
  if (told.length < rounds) {
    const call = { id: `call_${told.length}`, name: 'look_up' }
    const asked = encode.callStart(0, call) + encode.callArguments(0, '{"key": "answer"}')
    response.end(encode.start() + asked + encode.finish('tool_calls') + counted + DONE)
    return
  }
  const words = ['I ', 'was ', 'told: ', told.join(', ')].map((word) => encode.text(word)).join('')
  response.end(encode.start() + words + encode.finish('stop') + counted + DONE)
}

function arm(pace: Pace): void {
  const [first] = pace.streams
  if (first) pace.timer ??= setTimeout(tick, Math.max(0, first.dueAt - nowMs()), pace)
}

function tick(pace: Pace): void {
  pace.timer = undefined
  const due = pace.streams.findIndex(({ dueAt }) => dueAt > nowMs())
  const served = pace.streams.splice(0, due < 0 ? pace.streams.length : due)
  for (const stream of served) {
    sendNext(stream)
    stream.dueAt += pace.intervalMs
    if (stream.response.destroyed) continue
    if (stream.left > 0) pace.streams.push(stream)
    // The end follows the last token at once, as with a real model.
    else finish(stream)
  }
  arm(pace)
}

function sendNext(stream: Stream): void {
  stream.left -= 1
  stream.response.write(token(stream.padding))
}

function token(padding: string): string {
  return `${beforeToken} @${Math.round(nowMs() * 1000)}${padding}${afterToken}`
}

function finish({ response, usage, made }: Stream): void {
  const counted = encode.usage({ promptTokens: 100, completionTokens: made })
  response.end(encode.finish('stop') + (usage ? counted : '') + DONE)
}

async function readBody(request: IncomingMessage): Promise<string> {
  const parts: Buffer[] = []
  for await (const part of request as AsyncIterable<Buffer>) parts.push(part)
  return Buffer.concat(parts).toString('utf8')
}
