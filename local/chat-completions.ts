import { randomUUID } from 'node:crypto'
import { createServer, type IncomingHttpHeaders, type IncomingMessage } from 'node:http'
import type { ServerResponse } from 'node:http'

/**
 * `/chat/completions` as OpenAI-compatible servers speak it, from the server's side: reading a
 * request, writing chunks, and a small HTTP server. The demo model and the model that scripts the
 * tests both stand on it.
 */

export type ChatRequest = {
  model: string
  messages: ChatMessage[]
  tools: FunctionTool[]
  toolChoice: ToolChoice
  parallelToolCalls: boolean
  stream: boolean
  includeUsage: boolean
  maxTokens: number | null
  responseFormat: ResponseFormat
}

export type ChatMessage =
  | { role: 'instructions'; text: string }
  | { role: 'user'; text: string; images: number }
  | { role: 'assistant'; text: string; calls: ToolCall[] }
  | { role: 'tool'; callId: string; text: string }

export type FunctionTool = { name: string; description: string; parameters: unknown }
export type ToolCall = { id: string; name: string; arguments: string }
export type ToolChoice =
  | { type: 'auto' }
  | { type: 'none' }
  | { type: 'required' }
  | { type: 'function'; name: string }
export type ResponseFormat =
  | { type: 'text' }
  | { type: 'json_object' }
  | { type: 'json_schema'; schema: unknown }

export type FinishReason = 'stop' | 'length' | 'tool_calls' | 'content_filter'
export type Usage = {
  promptTokens: number
  completionTokens: number
  cachedTokens?: number
  reasoningTokens?: number
}
export type Completion = {
  text: string | null
  refusal: string | null
  calls: ToolCall[]
  finishReason: FinishReason
  usage: Usage | null
}

/** The request is not one that we can read: becomes a 400 with OpenAI's envelope. */
export class InvalidChatRequest extends Error {
  readonly param: string | null
  constructor(message: string, param: string | null = null) {
    super(message)
    this.param = param
  }
}

export function parseChatRequest(body: unknown): ChatRequest {
  if (!isRecord(body)) throw new InvalidChatRequest('The body must be a JSON object.')
  if (typeof body.model !== 'string' || body.model === '') {
    throw new InvalidChatRequest("Missing required parameter: 'model'.", 'model')
  }
  if (!Array.isArray(body.messages) || body.messages.length === 0) {
    throw new InvalidChatRequest("'messages' must be a non-empty array.", 'messages')
  }
  const tools = parseTools(body.tools)
  return {
    model: body.model,
    messages: body.messages.map(parseMessage),
    tools,
    toolChoice: parseToolChoice(body.tool_choice, tools),
    parallelToolCalls: body.parallel_tool_calls !== false,
    stream: body.stream === true,
    includeUsage: isRecord(body.stream_options) && body.stream_options.include_usage === true,
    maxTokens: parseMaxTokens(body.max_completion_tokens ?? body.max_tokens),
    responseFormat: parseResponseFormat(body.response_format),
  }
}

/** Everything that one streamed answer sends, as ready `data:` lines. */
export type ChunkEncoder = ReturnType<typeof chunkEncoder>

export function chunkEncoder(model: string) {
  const frame = {
    id: `chatcmpl-${randomUUID()}`,
    object: 'chat.completion.chunk',
    created: Math.floor(Date.now() / 1000),
    model,
  }
  const chunk = (delta: object, finishReason: FinishReason | null = null) =>
    sse({
      ...frame,
      choices: [{ index: 0, delta, logprobs: null, finish_reason: finishReason }],
      usage: null,
    })
  return {
    start: () => chunk({ role: 'assistant', content: '', refusal: null }),
    text: (content: string) => chunk({ content }),
    refusal: (refusal: string) => chunk({ refusal }),
    callStart: (index: number, call: { id: string; name: string }) =>
      chunk({
        tool_calls: [
          { index, id: call.id, type: 'function', function: { name: call.name, arguments: '' } },
        ],
      }),
    callArguments: (index: number, fragment: string) =>
      chunk({ tool_calls: [{ index, function: { arguments: fragment } }] }),
    finish: (reason: FinishReason) => chunk({}, reason),
    usage: (usage: Usage) => sse({ ...frame, choices: [], usage: wireUsage(usage) }),
  }
}

export const DONE = 'data: [DONE]\n\n'

/** The answer to a request without `stream`. */
export function completionBody(model: string, completion: Completion): object {
  const { text, refusal, calls, finishReason, usage } = completion
  const toolCalls = calls.map((call) => ({
    id: call.id,
    type: 'function',
    function: { name: call.name, arguments: call.arguments },
  }))
  return {
    id: `chatcmpl-${randomUUID()}`,
    object: 'chat.completion',
    created: Math.floor(Date.now() / 1000),
    model,
    choices: [
      {
        index: 0,
        message: {
          role: 'assistant',
          content: text,
          refusal,
          ...(toolCalls.length > 0 && { tool_calls: toolCalls }),
        },
        logprobs: null,
        finish_reason: finishReason,
      },
    ],
    ...(usage && { usage: wireUsage(usage) }),
  }
}

export type ErrorFacts = {
  message: string
  type?: string
  param?: string | null
  code?: string | null
}

export function errorBody(facts: ErrorFacts): object {
  const { message, type = 'invalid_request_error', param = null, code = null } = facts
  return { error: { message, type, param, code } }
}

export function newCallId(): string {
  return `call_${randomUUID().replaceAll('-', '').slice(0, 24)}`
}

/** Cuts a text the way that a tokenizer would: short pieces, blanks in front, nothing lost. */
export function pieces(text: string): string[] {
  return text.match(/\s*\S{1,6}|\s+/gu) ?? []
}

export type Exchange = {
  body: unknown
  headers: IncomingHttpHeaders
  response: ServerResponse
}

export type ChatServer = AsyncDisposable & {
  /** The base URL that clients are given; ends in `/v1`. */
  url: string
  port: number
  close: () => Promise<void>
}

type ServerOptions = {
  port: number
  models: string[]
  complete(exchange: Exchange): Promise<void>
  other?(request: IncomingMessage, response: ServerResponse): Promise<void>
}

const LARGEST_BODY_BYTES = 128 * 1024 * 1024

/** Serves `POST /v1/chat/completions` by `complete`, `GET /v1/models`, and all else by `other` or not at all; on loopback. */
export async function serveChatCompletions(options: ServerOptions): Promise<ChatServer> {
  const server = createServer((request, response) => {
    answer(request, response, options).catch((error: unknown) => answerError(response, error))
  })
  // Streams may be silent for as long as a test wants; no timeout of ours may end them.
  server.requestTimeout = 0
  await new Promise<void>((resolve, reject) => {
    server.once('error', (cause) =>
      reject(new Error(`The model server cannot listen on port ${options.port}.`, { cause })),
    )
    server.listen(options.port, '127.0.0.1', resolve)
  })
  const address = server.address()
  // A TCP server's address is an object; only a pipe has a string.
  if (address === null || typeof address === 'string') throw new Error(`Bound to ${address}`)
  const { port } = address
  const close = () =>
    new Promise<void>((resolve) => {
      server.close(() => resolve())
      server.closeAllConnections()
    })
  return { url: `http://127.0.0.1:${port}/v1`, port, close, [Symbol.asyncDispose]: close }
}

export function sendJson(
  response: ServerResponse,
  status: number,
  body: object,
  headers: Record<string, string> = {},
): void {
  response.writeHead(status, { 'content-type': 'application/json', ...headers })
  response.end(JSON.stringify(body))
}

export function startStream(response: ServerResponse): void {
  response.socket?.setNoDelay(true)
  response.writeHead(200, {
    'content-type': 'text/event-stream; charset=utf-8',
    'cache-control': 'no-cache',
  })
  response.flushHeaders()
}

export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

async function answer(
  request: IncomingMessage,
  response: ServerResponse,
  options: ServerOptions,
): Promise<void> {
  const path = (request.url ?? '/').split('?')[0] ?? '/'
  const route = `${request.method} ${path}`
  if (route === 'POST /v1/chat/completions') {
    const body = parseJson(await readBody(request))
    return options.complete({ body, headers: request.headers, response })
  }
  if (route === 'GET /v1/models') {
    return sendJson(response, 200, { object: 'list', data: options.models.map(modelObject) })
  }
  if (route.startsWith('GET /v1/models/')) {
    const id = decode(path.slice('/v1/models/'.length))
    if (options.models.includes(id)) return sendJson(response, 200, modelObject(id))
    const facts = { message: `The model '${id}' does not exist`, code: 'model_not_found' }
    return sendJson(response, 404, errorBody({ ...facts, param: 'model' }))
  }
  if (options.other) return options.other(request, response)
  return sendJson(
    response,
    404,
    errorBody({
      message: `${route} is not served by this model, which answers chat completions alone.`,
    }),
  )
}

function answerError(response: ServerResponse, error: unknown): void {
  if (response.headersSent) {
    response.destroy()
    return
  }
  if (error instanceof InvalidChatRequest) {
    sendJson(response, 400, errorBody({ message: error.message, param: error.param }))
    return
  }
  const message = error instanceof Error ? error.message : String(error)
  sendJson(response, 500, errorBody({ message, type: 'server_error' }))
}

async function readBody(request: IncomingMessage): Promise<string> {
  const parts: Buffer[] = []
  let sizeBytes = 0
  for await (const part of request as AsyncIterable<Buffer>) {
    sizeBytes += part.length
    if (sizeBytes > LARGEST_BODY_BYTES) throw new InvalidChatRequest('The body is too large.')
    parts.push(part)
  }
  return Buffer.concat(parts).toString('utf8')
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause)
    throw new InvalidChatRequest(`We could not parse the JSON body of your request: ${reason}`)
  }
}

function decode(segment: string): string {
  try {
    return decodeURIComponent(segment)
  } catch {
    return segment
  }
}

function modelObject(id: string): object {
  return { id, object: 'model', created: 1_700_000_000, owned_by: 'longrun' }
}

function parseMessage(message: unknown, index: number): ChatMessage {
  const param = `messages[${index}]`
  if (!isRecord(message)) {
    throw new InvalidChatRequest(`Invalid type for '${param}': expected an object.`, param)
  }
  const { text, images } = parseContent(message.content, `${param}.content`)
  switch (message.role) {
    case 'system':
    case 'developer':
      return { role: 'instructions', text }
    case 'user':
      return { role: 'user', text, images }
    case 'assistant':
      return { role: 'assistant', text, calls: parseCalls(message.tool_calls) }
    case 'tool':
    case 'function':
      return { role: 'tool', callId: asText(message.tool_call_id), text }
    default:
      throw new InvalidChatRequest(
        `Invalid value: '${asText(message.role)}'. Supported values are: 'system', 'developer', ` +
          `'user', 'assistant', and 'tool'.`,
        `${param}.role`,
      )
  }
}

function parseContent(content: unknown, param: string): { text: string; images: number } {
  if (content === undefined || content === null) return { text: '', images: 0 }
  if (typeof content === 'string') return { text: content, images: 0 }
  if (!Array.isArray(content)) {
    throw new InvalidChatRequest(
      `Invalid type for '${param}': expected a string or an array of parts.`,
      param,
    )
  }
  const parts = content.filter(isRecord)
  return {
    text: parts
      .map((part) => part.text ?? part.refusal)
      .filter((text) => typeof text === 'string')
      .join('\n'),
    images: parts.filter((part) => asText(part.type).startsWith('image')).length,
  }
}

function parseCalls(calls: unknown): ToolCall[] {
  if (!Array.isArray(calls)) return []
  return calls.filter(isRecord).flatMap((call) => {
    if (!isRecord(call.function)) return []
    const { name, arguments: args } = call.function
    return [{ id: asText(call.id), name: asText(name), arguments: asText(args) }]
  })
}

function parseTools(tools: unknown): FunctionTool[] {
  if (tools === undefined || tools === null) return []
  if (!Array.isArray(tools)) throw new InvalidChatRequest("'tools' must be an array.", 'tools')
  return tools.map((tool: unknown, index) => {
    if (!isRecord(tool) || !isRecord(tool.function) || typeof tool.function.name !== 'string') {
      const param = `tools[${index}].function.name`
      throw new InvalidChatRequest(`Missing required parameter: '${param}'.`, param)
    }
    const { name, description, parameters } = tool.function
    return { name, description: asText(description), parameters }
  })
}

function parseToolChoice(choice: unknown, tools: FunctionTool[]): ToolChoice {
  if (choice === undefined || choice === null || choice === 'auto') return { type: 'auto' }
  if (choice === 'none') return { type: 'none' }
  if (tools.length === 0) {
    const message = "'tool_choice' is only allowed when 'tools' are specified."
    throw new InvalidChatRequest(message, 'tool_choice')
  }
  if (choice === 'required') return { type: 'required' }
  const name = isRecord(choice) && isRecord(choice.function) ? choice.function.name : undefined
  if (typeof name === 'string' && tools.some((tool) => tool.name === name)) {
    return { type: 'function', name }
  }
  throw new InvalidChatRequest(
    "Invalid value for 'tool_choice': it must be 'none', 'auto', 'required' or name one of 'tools'.",
    'tool_choice',
  )
}

function parseMaxTokens(value: unknown): number | null {
  if (value === undefined || value === null) return null
  if (typeof value === 'number' && Number.isInteger(value) && value >= 1) return value
  throw new InvalidChatRequest(
    "Invalid 'max_completion_tokens': expected an integer >= 1.",
    'max_completion_tokens',
  )
}

function parseResponseFormat(format: unknown): ResponseFormat {
  if (!isRecord(format)) return { type: 'text' }
  if (format.type === 'json_object') return { type: 'json_object' }
  if (format.type === 'json_schema' && isRecord(format.json_schema)) {
    return { type: 'json_schema', schema: format.json_schema.schema }
  }
  return { type: 'text' }
}

function wireUsage(usage: Usage): object {
  return {
    prompt_tokens: usage.promptTokens,
    completion_tokens: usage.completionTokens,
    total_tokens: usage.promptTokens + usage.completionTokens,
    prompt_tokens_details: { cached_tokens: usage.cachedTokens ?? 0 },
    completion_tokens_details: { reasoning_tokens: usage.reasoningTokens ?? 0 },
  }
}

function sse(value: object): string {
  return `data: ${JSON.stringify(value)}\n\n`
}

function asText(value: unknown): string {
  return typeof value === 'string' ? value : ''
}
