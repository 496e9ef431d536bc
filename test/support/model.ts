import { setTimeout as sleep } from 'node:timers/promises'
import {
  chunkEncoder,
  completionBody,
  DONE,
  errorBody,
  isRecord,
  newCallId,
  pieces,
  sendJson,
  serveChatCompletions,
  startStream,
} from '../../local/chat-completions.ts'
import { createEndpoints, type EndpointHandler, type EndpointRequest } from './model-endpoints.ts'
import type { IncomingHttpHeaders, ServerResponse } from 'node:http'
import type {
  ChunkEncoder,
  ErrorFacts,
  Exchange,
  FinishReason,
  ToolCall,
  Usage,
} from '../../local/chat-completions.ts'

/**
 * A model that does what a test says, request by request: answers, fails, cuts, stalls, and tells
 * when. Nothing in it waits by the clock unless a step asks for it.
 */
export async function startScriptedModel(
  options: { port?: number; models?: string[] } = {},
): Promise<ScriptedModel> {
  const { port = 0, models = ['scripted-model'] } = options
  const requests: ModelRequest[] = []
  const queue: Step[] = []
  const watchers = new Watchers()
  let respond: Respond | null = null
  const endpoints = createEndpoints()

  const server = await serveChatCompletions({
    port,
    models,
    other: endpoints.answer,
    async complete(exchange) {
      const request = new ModelRequest(requests.length + 1, exchange, watchers)
      requests.push(request)
      watchers.changed()
      const step = await nextStep(request, queue, respond)
      await perform(step, request, exchange.response)
    },
  })

  return {
    url: server.url,
    port: server.port,
    requests,
    get calls() {
      return requests.length
    },
    script: (...steps) => void queue.push(...steps),
    respond: (handler) => void (respond = handler),
    serve: endpoints.serve,
    served: endpoints.requests,
    called: (n) => watchers.until(() => requests[n - 1]),
    tokensOut: (request, n) =>
      watchers.until(() => (request.tokens >= n || request.isOver ? request : undefined)),
    close: server.close,
    [Symbol.asyncDispose]: server.close,
  }
}

export type ScriptedModel = AsyncDisposable & {
  /** The base URL for clients; ends in `/v1`. */
  url: string
  port: number
  /** Every completion asked for, in order of arrival. */
  requests: ModelRequest[]
  /** How many completions were asked for. */
  readonly calls: number
  /** Appends steps; each request takes one. The queue goes before `respond`. */
  script(...steps: Step[]): void
  /** Chooses the step by the request, for instance by what its prompt says; `n` counts from 1. */
  respond(handler: Respond): void
  /** Answers another endpoint, by `'POST /embeddings'` and the like; `*` stands for one part of a path. */
  serve(route: string, handler: EndpointHandler): void
  /** Every request of another endpoint, in order of arrival. */
  served: EndpointRequest[]
  /** The n-th request (from 1), as soon as it has arrived. */
  called(n: number): Promise<ModelRequest>
  /** When `n` tokens of the answer have been written, or the exchange is over before that. */
  tokensOut(request: ModelRequest, n: number): Promise<ModelRequest>
  close: () => Promise<void>
}

export type Respond = (request: ModelRequest, n: number) => Step | Promise<Step>

/** What a client sent. Only what tests look at is named; all of it is there. */
export type ModelRequestBody = {
  model: string
  messages: { role: string; content?: unknown; tool_calls?: unknown; tool_call_id?: string }[]
  tools?: { type: string; function: { name: string; parameters?: unknown } }[]
  tool_choice?: unknown
  stream?: boolean
  [name: string]: unknown
}

export class ModelRequest {
  readonly number: number
  readonly at: Date
  readonly body: ModelRequestBody
  readonly headers: IncomingHttpHeaders
  /** Resolves when the exchange is over, with how it ended. */
  readonly closed: Promise<'finished' | 'closed by us' | 'closed by the client'>
  /** The client went away before the answer was complete. */
  closedEarly = false
  isOver = false
  /** Tokens and argument fragments written so far. */
  tokens = 0

  #wasCut = false
  #released: PromiseWithResolvers<void> = Promise.withResolvers()
  readonly #watchers: Watchers

  constructor(number: number, exchange: Exchange, watchers: Watchers) {
    const { response } = exchange
    this.number = number
    this.at = new Date()
    // What our own code sent: a test that reads a field which is not there should fail on it.
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion
    this.body = exchange.body as ModelRequestBody
    this.headers = exchange.headers
    this.#watchers = watchers
    this.closed = new Promise((resolve) => {
      response.once('close', () => {
        const isFinished = response.writableFinished && !this.#wasCut
        this.closedEarly = !isFinished && !this.#wasCut
        this.isOver = true
        resolve(
          isFinished ? 'finished' : this.closedEarly ? 'closed by the client' : 'closed by us',
        )
        this.#released.resolve()
        watchers.changed()
      })
    })
  }

  /** The text of all messages, for `respond` to look into. */
  get prompt(): string {
    return this.body.messages.map((message) => textOf(message.content)).join('\n')
  }

  /** The text of the newest message of the user. */
  get question(): string {
    return textOf(this.body.messages.findLast((message) => message.role === 'user')?.content)
  }

  /** The texts of tool results since the newest message of the user. */
  get toolResults(): string[] {
    const at = this.body.messages.findLastIndex((message) => message.role === 'user')
    return this.body.messages
      .slice(at + 1)
      .filter((message) => message.role === 'tool')
      .map((message) => textOf(message.content))
  }

  /** Lets a stalled or silent answer go on. */
  release(): void {
    this.#released.resolve()
  }

  /** For the server only. */
  released(): Promise<void> {
    return this.#released.promise
  }

  /** For the server only. */
  countToken(): void {
    this.tokens += 1
    this.#watchers.changed()
  }

  /** For the server only. */
  cut(response: ServerResponse): void {
    this.#wasCut = true
    response.destroy()
  }
}

/** What to do with one request. Made by the functions below, which read better in a test. */
export type Step = AnswerStep | ErrorStep | RawStep | { type: 'silence' }

export type AnswerStep = {
  type: 'answer'
  text?: string | string[]
  refusal?: string | string[]
  calls?: ScriptedCall[]
  finishReason?: FinishReason
  /** Left out: a plausible one. `null`: none is sent, even when asked for. */
  usage?: Usage | null
  /** Before each token; the first waits `firstDelayMs` instead, if given. */
  delayMs?: number
  firstDelayMs?: number
  ending?: Ending
  /** Not streamed, though it was asked for. */
  whole?: true
}
export type ScriptedCall = {
  name: string
  /** An object is sent as JSON; a string as it is, so that it may be no JSON at all. */
  arguments: object | string
  id?: string
  /** How the arguments are cut on the wire; left out: into short pieces. */
  fragments?: string[]
}
export type Ending =
  | { type: 'cut'; afterTokens: number }
  | { type: 'stall'; afterTokens: number }
  | { type: 'malformed'; afterTokens: number; raw: string }
  /** All tokens, but neither finish_reason nor [DONE]. */
  | { type: 'unfinished' }
  /** All tokens and [DONE], but no finish_reason. */
  | { type: 'unreasoned' }
  /** An error as a chunk in the middle, as OpenAI and vLLM send it once a stream is open. */
  | { type: 'error'; afterTokens: number; error: ErrorFacts }

export type ErrorStep = {
  type: 'error'
  status: number
  error: ErrorFacts
  headers?: Record<string, string>
}
export type RawStep = {
  type: 'raw'
  status: number
  headers: Record<string, string>
  body: string
}

type AnswerOptions = Omit<AnswerStep, 'type' | 'text' | 'calls' | 'refusal' | 'ending' | 'whole'>

/** Answers with a text: one string is cut into tokens, an array is sent token by token. */
export function say(text: string | string[], options: AnswerOptions = {}): Step {
  return { type: 'answer', text, ...options }
}

/** Asks for tools; several calls are parallel calls of one turn. */
export function call(calls: ScriptedCall | ScriptedCall[], options: AnswerOptions = {}): Step {
  return { type: 'answer', calls: [calls].flat(), ...options }
}

export function sayAndCall(
  text: string | string[],
  calls: ScriptedCall | ScriptedCall[],
  options: AnswerOptions = {},
): Step {
  return { type: 'answer', text, calls: [calls].flat(), ...options }
}

export function refuse(refusal: string | string[], options: AnswerOptions = {}): Step {
  return { type: 'answer', refusal, ...options }
}

/** Destroys the socket after so many tokens; 0 is right after the headers. */
export function cutAfter(tokens: number, of: AnswerContent, options: AnswerOptions = {}): Step {
  const ending: Ending = { type: 'cut', afterTokens: tokens }
  return { type: 'answer', ...contentOf(of), ending, ...options }
}

/** Waits after so many tokens until `request.release()`, then goes on to the end. */
export function stallAfter(tokens: number, of: AnswerContent, options: AnswerOptions = {}): Step {
  const ending: Ending = { type: 'stall', afterTokens: tokens }
  return { type: 'answer', ...contentOf(of), ending, ...options }
}

/** Sends a chunk that is no JSON after so many tokens, then the rest. */
export function malformedAfter(
  tokens: number,
  of: AnswerContent,
  raw = 'data: {"choices": [{"delta": \n\n',
): Step {
  const ending: Ending = { type: 'malformed', afterTokens: tokens, raw }
  return { type: 'answer', ...contentOf(of), ending }
}

/** Sends an error inside the open stream after so many tokens, and ends it. */
export function errorAfter(tokens: number, of: AnswerContent, error: ErrorFacts): Step {
  const ending: Ending = { type: 'error', afterTokens: tokens, error }
  return { type: 'answer', ...contentOf(of), ending }
}

/** All tokens, then a clean end of the response without finish_reason and [DONE]. */
export function sayUnfinished(text: string | string[]): Step {
  return { type: 'answer', text, ending: { type: 'unfinished' } }
}

/** All tokens of an answer and [DONE], and never a finish_reason. */
export function withoutReason(step: Step): Step {
  return { ...answerOf(step), ending: { type: 'unreasoned' } }
}

/** The answer as one completion, from a server that does not stream whatever it is asked. */
export function unstreamed(step: Step): Step {
  return { ...answerOf(step), whole: true }
}

/** A stream of these chunks, word for word, for what no encoder of ours would write. */
export function chunks(...sent: object[]): Step {
  const body = [...sent.map((chunk) => `data: ${JSON.stringify(chunk)}\n\n`), DONE].join('')
  return raw(body, { 'content-type': 'text/event-stream' })
}

/** Accepts the request and sends nothing, not even headers; `release()` makes it answer "late". */
export function silence(): Step {
  return { type: 'silence' }
}

export function fail(
  status: number,
  error: ErrorFacts,
  headers: Record<string, string> = {},
): Step {
  return { type: 'error', status, error, headers }
}

/** `after` is put in the header that its unit belongs to. */
export function rateLimited(after?: RetryAfter): Step {
  return fail(
    429,
    {
      message: 'Rate limit reached for requests. Please try again later.',
      type: 'requests',
      code: 'rate_limit_exceeded',
    },
    retryHeaders(after),
  )
}
export type RetryAfter = { seconds: number } | { date: Date } | { ms: number }

export function insufficientQuota(): Step {
  return fail(429, {
    message: 'You exceeded your current quota, please check your plan and billing details.',
    type: 'insufficient_quota',
    code: 'insufficient_quota',
  })
}

export function serverError(status = 500): Step {
  const message = 'The server had an error while processing your request.'
  return fail(status, { message, type: 'server_error' })
}

export function unauthorized(): Step {
  return fail(401, { message: 'Incorrect API key provided.', code: 'invalid_api_key' })
}

export function contextLengthExceeded(): Step {
  return fail(400, {
    message: "This model's maximum context length is 8192 tokens. Please reduce the length.",
    param: 'messages',
    code: 'context_length_exceeded',
  })
}

/** The prompt was refused (Azure's form); for an answer that was, see `say(..., {finishReason})`. */
export function contentFiltered(): Step {
  return fail(400, {
    message: 'The response was filtered due to the prompt triggering the content policy.',
    param: 'prompt',
    code: 'content_filter',
  })
}

/** A proxy's page, or anything else that no client expects. */
export function raw(body: string, headers: Record<string, string> = {}, status = 200): Step {
  return { type: 'raw', status, headers: { 'content-type': 'text/html', ...headers }, body }
}

export type AnswerContent = string | string[] | { calls: ScriptedCall[]; text?: string | string[] }

/** Waiters that are looked at whenever something happened; no clock is asked. */
class Watchers {
  readonly #waiting = new Set<() => void>()

  changed(): void {
    for (const look of this.#waiting) look()
  }

  until<T>(find: () => T | undefined): Promise<T> {
    return new Promise((resolve) => {
      const look = () => {
        const found = find()
        if (found === undefined) return
        this.#waiting.delete(look)
        resolve(found)
      }
      this.#waiting.add(look)
      look()
    })
  }
}

async function nextStep(
  request: ModelRequest,
  queue: Step[],
  respond: Respond | null,
): Promise<Step> {
  const next = queue.shift()
  if (next) return next
  // A 400 is not retried, so the test sees these sentences in its run's last_error.
  const none = `The scripted model has no step for request ${request.number}.`
  if (!respond) return fail(400, { message: none, code: 'script_exhausted' })
  try {
    return await respond(request, request.number)
  } catch (error) {
    return fail(400, { message: `The handler of respond() threw: ${String(error)}` })
  }
}

async function perform(step: Step, request: ModelRequest, response: ServerResponse): Promise<void> {
  switch (step.type) {
    case 'answer':
      if (request.body.stream === true && !step.whole) return streamAnswer(step, request, response)
      return answerWhole(step, request, response)
    case 'error':
      return sendJson(response, step.status, errorBody(step.error), step.headers)
    case 'raw':
      response.writeHead(step.status, step.headers)
      response.end(step.body)
      return
    case 'silence':
      await request.released()
      return request.isOver ? undefined : perform(say('late'), request, response)
    default:
      return step satisfies never
  }
}

async function streamAnswer(
  step: AnswerStep,
  request: ModelRequest,
  response: ServerResponse,
): Promise<void> {
  startStream(response)
  const calls = callsOf(step)
  const encode = chunkEncoder(request.body.model)
  const ending = step.ending
  const startedAt = performance.now()
  response.write(encode.start())
  for (const [index, token] of tokensOf(step, calls, encode).entries()) {
    if (ending && 'afterTokens' in ending && ending.afterTokens === index) {
      if (await endEarly(ending, request, response)) return
    }
    await until(startedAt, index, step)
    if (request.isOver) return
    if (token.opening) response.write(token.opening)
    response.write(token.chunk)
    request.countToken()
  }
  // Asked for after more tokens than there are: still before the end.
  if (ending && 'afterTokens' in ending && ending.afterTokens >= request.tokens) {
    if (await endEarly(ending, request, response)) return
  }
  if (ending?.type !== 'unfinished') {
    if (ending?.type !== 'unreasoned') response.write(encode.finish(finishReasonOf(step)))
    const usage = usageOf(step, request)
    if (usage && wantsUsage(request)) response.write(encode.usage(usage))
    response.write(DONE)
  }
  response.end()
}

/** True when nothing comes after it. */
async function endEarly(
  ending: Extract<Ending, { afterTokens: number }>,
  request: ModelRequest,
  response: ServerResponse,
): Promise<boolean> {
  switch (ending.type) {
    case 'cut':
      // What was written must be on its way before the socket goes.
      await new Promise<void>((resolve) => response.write(': cut\n\n', () => resolve()))
      request.cut(response)
      return true
    case 'stall':
      await request.released()
      return request.isOver
    case 'malformed':
      response.write(ending.raw)
      return false
    case 'error':
      response.end(`data: ${JSON.stringify(errorBody(ending.error))}\n\n`)
      return true
    default:
      return ending satisfies never
  }
}

async function answerWhole(
  step: AnswerStep,
  request: ModelRequest,
  response: ServerResponse,
): Promise<void> {
  if (step.ending?.type === 'stall') await request.released()
  if (step.ending?.type === 'cut') return request.cut(response)
  if (step.firstDelayMs ?? step.delayMs) await sleep(step.firstDelayMs ?? step.delayMs)
  if (request.isOver) return
  const body = completionBody(request.body.model, {
    text: whole(step.text),
    refusal: whole(step.refusal),
    calls: callsOf(step),
    finishReason: finishReasonOf(step),
    usage: usageOf(step, request),
  })
  sendJson(response, 200, body)
}

type Token = { opening?: string; chunk: string }

function tokensOf(step: AnswerStep, calls: ToolCall[], encode: ChunkEncoder): Token[] {
  const text = cutUp(step.text).map((piece) => ({ chunk: encode.text(piece) }))
  const refusal = cutUp(step.refusal).map((piece) => ({ chunk: encode.refusal(piece) }))
  const fragments = calls.flatMap((call, index) => {
    const opening = encode.callStart(index, call)
    const parts = step.calls?.[index]?.fragments ?? pieces(call.arguments)
    return (parts.length > 0 ? parts : ['']).map((part, at) => ({
      ...(at === 0 && { opening }),
      chunk: encode.callArguments(index, part),
    }))
  })
  return [...text, ...refusal, ...fragments]
}

function whole(text: string | string[] | undefined): string | null {
  return text === undefined ? null : [text].flat().join('')
}

function cutUp(text: string | string[] | undefined): string[] {
  return typeof text === 'string' ? pieces(text) : (text ?? [])
}

function callsOf(step: AnswerStep): ToolCall[] {
  return (step.calls ?? []).map((call) => ({
    id: call.id ?? newCallId(),
    name: call.name,
    arguments: typeof call.arguments === 'string' ? call.arguments : JSON.stringify(call.arguments),
  }))
}

function finishReasonOf(step: AnswerStep): FinishReason {
  return step.finishReason ?? (step.calls?.length ? 'tool_calls' : 'stop')
}

function usageOf(step: AnswerStep, request: ModelRequest): Usage | null {
  if (step.usage !== undefined) return step.usage
  const promptTokens = Math.ceil(request.prompt.length / 4) + 4 * request.body.messages.length
  const calls = callsOf(step).flatMap((one) => pieces(one.arguments))
  const completionTokens = cutUp(step.text).length + cutUp(step.refusal).length + calls.length
  return { promptTokens, completionTokens }
}

function wantsUsage(request: ModelRequest): boolean {
  const options = request.body.stream_options
  return isRecord(options) && options.include_usage === true
}

/** Against the clock of the whole answer, so that late timers do not add up. */
async function until(startedAt: number, index: number, step: AnswerStep): Promise<void> {
  const { delayMs = 0, firstDelayMs = delayMs } = step
  const waitMs = startedAt + firstDelayMs + index * delayMs - performance.now()
  if (firstDelayMs + index * delayMs > 0 && waitMs > 0) await sleep(waitMs)
}

function contentOf(content: AnswerContent): { text?: string | string[]; calls?: ScriptedCall[] } {
  return typeof content === 'string' || Array.isArray(content) ? { text: content } : content
}

function answerOf(step: Step): AnswerStep {
  if (step.type === 'answer') return step
  throw new Error(`A step of the type ${step.type} is no answer`)
}

function retryHeaders(after: RetryAfter | undefined): Record<string, string> {
  if (!after) return {}
  if ('ms' in after) return { 'retry-after-ms': String(after.ms) }
  if ('date' in after) return { 'retry-after': after.date.toUTCString() }
  return { 'retry-after': String(after.seconds) }
}

function textOf(content: unknown): string {
  if (typeof content === 'string') return content
  if (!Array.isArray(content)) return ''
  return content
    .filter(isRecord)
    .map((part) => part.text)
    .filter((text) => typeof text === 'string')
    .join('\n')
}
