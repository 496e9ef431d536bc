import { setTimeout as sleep } from 'node:timers/promises'
import {
  chunkEncoder,
  completionBody,
  DONE,
  newCallId,
  parseChatRequest,
  pieces,
  sendJson,
  serveChatCompletions,
  startStream,
} from './chat-completions.ts'
import { decide } from './demo-decision.ts'
import type { ServerResponse } from 'node:http'
import type { ChatMessage, ChatRequest, ChatServer, Completion } from './chat-completions.ts'

export type DemoModel = ChatServer

/**
 * An OpenAI-compatible model that needs no key and no network: it is there to show every path of
 * the server, and says that it is a demo. Answers to any model name.
 */
export function startDemoModel(options: {
  port: number
  tokenDelayMs?: number
}): Promise<DemoModel> {
  const { port, tokenDelayMs = 8 } = options
  return serveChatCompletions({
    port,
    models: ['longrun-demo'],
    async complete({ body, response }) {
      const request = parseChatRequest(body)
      const completion = complete(request)
      if (request.stream) return streamAnswer(response, request, completion, tokenDelayMs)
      return sendJson(response, 200, completionBody(request.model, completion))
    },
  })
}

function complete(request: ChatRequest): Completion {
  const { text, calls } = decide(request)
  const whole = pieces(text ?? '')
  const kept = whole.slice(0, request.maxTokens ?? whole.length)
  const spent = kept.length + pieces(calls.map((call) => call.name + call.arguments).join()).length
  const ending = kept.length < whole.length ? 'length' : 'stop'
  return {
    text: text === null ? null : kept.join(''),
    refusal: null,
    calls: calls.map((call) => ({ id: newCallId(), ...call })),
    finishReason: calls.length > 0 ? 'tool_calls' : ending,
    usage: { promptTokens: countPrompt(request), completionTokens: Math.max(1, spent) },
  }
}

async function streamAnswer(
  response: ServerResponse,
  request: ChatRequest,
  completion: Completion,
  tokenDelayMs: number,
): Promise<void> {
  startStream(response)
  const gone = new AbortController()
  response.once('close', () => gone.abort())
  const startedAt = performance.now()
  let count = 0
  for (const chunk of chunksOf(request, completion)) {
    // Against the clock, not from the last chunk, so that late timers do not add up.
    const waitMs = startedAt + count * tokenDelayMs - performance.now()
    if (waitMs > 0) await sleep(waitMs, undefined, { signal: gone.signal }).catch(() => {})
    if (gone.signal.aborted) return
    response.write(chunk)
    count += 1
  }
  response.end(DONE)
}

function* chunksOf(request: ChatRequest, completion: Completion): Generator<string> {
  const encode = chunkEncoder(request.model)
  yield encode.start()
  for (const piece of pieces(completion.text ?? '')) yield encode.text(piece)
  for (const [index, call] of completion.calls.entries()) {
    yield encode.callStart(index, call)
    for (const piece of pieces(call.arguments)) yield encode.callArguments(index, piece)
  }
  yield encode.finish(completion.finishReason)
  if (request.includeUsage && completion.usage) yield encode.usage(completion.usage)
}

/** About four characters per token, and what OpenAI charges for a small image. */
function countPrompt(request: ChatRequest): number {
  const tools = request.tools.length > 0 ? JSON.stringify(request.tools).length : 0
  const characters = request.messages.reduce((sum, message) => sum + lengthOf(message), tools)
  const images = request.messages.reduce(
    (sum, message) => sum + (message.role === 'user' ? message.images : 0),
    0,
  )
  return Math.ceil(characters / 4) + 4 * request.messages.length + 85 * images
}

function lengthOf(message: ChatMessage): number {
  const calls = message.role === 'assistant' ? message.calls : []
  return calls.reduce((sum, call) => sum + call.arguments.length, message.text.length)
}
