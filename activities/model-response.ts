import { createParser } from 'eventsource-parser'

import type { ChatCompletionChunk } from '../wire/openai.ts'

/** What an endpoint answers with, where it does not refuse. */
export type ModelResponse =
  /** An event stream, some events at a time. */
  | { kind: 'stream'; events: AsyncGenerator<ModelEvent[]> }
  /** A completion in one piece, from an endpoint that does not stream; here as a chunk that says it all. */
  | { kind: 'whole'; chunk: ChatCompletionChunk }
  | { kind: 'empty' }
  /** Anything else: the page of a login, or what is found under a wrong address. */
  | { kind: 'other'; type: string; beginning: string }

export interface ModelEvent {
  event?: string | undefined
  data: string
}

/**
 * Reads as much of a response as tells what it is. Servers label what they send as they like, so its first characters have
 * their say. `heard` is called for each piece of what is no stream.
 */
export async function readResponse(
  response: { headers: Headers; body: AsyncIterable<Uint8Array> | null },
  heard: () => void,
): Promise<ModelResponse> {
  const type = (response.headers.get('content-type') ?? '').split(';')[0]?.trim() ?? ''
  const pieces: Pieces = (response.body ?? noBytes())[Symbol.asyncIterator]()
  const decoder = new TextDecoder()
  const head: Uint8Array[] = []
  let text = ''
  while (text === '') {
    const { done, value } = await pieces.next()
    if (done) return { kind: 'empty' }
    head.push(value)
    text = decoder.decode(value, { stream: true }).trimStart()
  }
  const isJson = text.startsWith('{')
  if (!isJson && (type === 'text/event-stream' || eventLine.test(text))) {
    return { kind: 'stream', events: eventsOf(head, pieces) }
  }

  const most = isJson ? mostJsonChars : mostChars
  while (text.length < most) {
    heard()
    const { done, value } = await pieces.next()
    if (done) break
    text += decoder.decode(value, { stream: true })
  }
  const completion = isJson ? parsed(text) : undefined
  if (completion) return { kind: 'whole', chunk: chunkOf(completion) }
  const beginning = text.slice(0, mostChars).replaceAll(/\s+/g, ' ').trimEnd()
  return { kind: 'other', type: type || 'something', beginning }
}

type Pieces = AsyncIterator<Uint8Array, unknown>

const eventLine = /^(?:data|event|id|retry)?:/
/** Far above any answer. */
const mostJsonChars = 64 * 1024 * 1024
/** Above any event: one may hold as much as a whole answer. */
const mostEventChars = mostJsonChars
/** What is told of a page. */
const mostChars = 200

/** What the pieces hold, as they come: one step for all that a piece brings, since models send thousands of events. */
async function* eventsOf(head: Uint8Array[], rest: Pieces): AsyncGenerator<ModelEvent[]> {
  const decoder = new TextDecoder()
  let events: ModelEvent[] = []
  const parser = createParser({
    onEvent: ({ event, data }) => void events.push({ event, data }),
    maxBufferSize: mostEventChars,
    onError: ({ type }) => {
      // Others tell of lines that are no fields, which mean nothing.
      if (type === 'max-buffer-size-exceeded') throw new Error('an event has no end')
    },
  })
  const taken = (text: string): ModelEvent[] => {
    events = []
    parser.feed(text)
    return events
  }
  for (const piece of head) yield taken(decoder.decode(piece, { stream: true }))
  for await (const piece of { [Symbol.asyncIterator]: () => rest }) {
    yield taken(decoder.decode(piece, { stream: true }))
  }
  // Some servers leave out the empty line after the last one.
  yield taken(`${decoder.decode()}\n\n`)
}

/** A completion as a stranger says it: only what is looked at. */
interface Completion {
  choices: { message: { tool_calls?: unknown }; finish_reason?: unknown }[]
}

/** Undefined where the text is no completion. */
function parsed(text: string): Completion | undefined {
  try {
    const body = JSON.parse(text) as Partial<Completion>
    const isCompletion = Array.isArray(body.choices) && isObject(body.choices[0]?.message)
    return isCompletion ? (body as Completion) : undefined
  } catch {
    return undefined
  }
}

function chunkOf(completion: Completion): ChatCompletionChunk {
  const choices = completion.choices.slice(0, 1).map(({ message, finish_reason }) => {
    const calls: unknown = message.tool_calls
    const tool_calls = Array.isArray(calls)
      ? calls.filter(isObject).map((call, index) => ({ ...call, index }))
      : []
    return { index: 0, delta: { ...message, tool_calls }, finish_reason: finish_reason ?? 'stop' }
  })
  return { ...completion, choices } as unknown as ChatCompletionChunk
}

function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null
}

async function* noBytes(): AsyncGenerator<Uint8Array> {}
