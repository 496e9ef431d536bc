import type { ContentPart, Usage } from '../store/rows.ts'
import { usageFrom } from '../store/usage.ts'
import type { ChatCompletionChunk } from '../wire/openai.ts'
import { storable } from '../wire/storable.ts'

/** What one chunk of the model adds to its answer. */
export type Addition =
  | { kind: 'text'; index: number; type: 'text' | 'refusal'; text: string; first: boolean }
  | { kind: 'call'; index: number; name: string }
  | { kind: 'arguments'; index: number; text: string }

/** The answer of a model as it comes in: chunks are read into additions, which are kept. Plain values, no clocks. */
export interface Answer {
  read(chunk: ChatCompletionChunk): Addition[]
  content(): ContentPart[]
  calls(): { name: string; arguments: string }[]
  /** All that the model wrote so far, as one text; empty where it wrote nothing. */
  written(): string
  /** Null until the model has said why it stopped, which some never do. */
  finishReason(): string | null
  /** What the provider told that the call used; undefined until it does. */
  usage(): Usage | undefined
}

/** Calls beyond `mostCalls` are read and forgotten: models that were told to make one at a time may make several. */
export function createAnswer(mostCalls = Infinity): Answer {
  const parts: { type: 'text' | 'refusal'; text: string }[] = []
  const calls: { upstreamIndex: number; name: string; arguments: string }[] = []
  let finishReason: string | null = null
  let usage: Usage | undefined
  // A character outside the first plane may be cut in two between chunks.
  let halfCharacter = ''

  function text(type: 'text' | 'refusal', received: string): Addition[] {
    const whole = halfCharacter + received
    halfCharacter = /[\uD800-\uDBFF]$/.test(whole) ? whole.slice(-1) : ''
    const piece = storable(halfCharacter ? whole.slice(0, -1) : whole)
    if (piece === '') return []
    let index = parts.findIndex((part) => part.type === type)
    const first = index < 0
    if (first) index = parts.push({ type, text: '' }) - 1
    const part = parts[index]
    if (part) part.text += piece
    return [{ kind: 'text', index, type, text: piece, first }]
  }

  function call(piece: ToolCallPiece): Addition[] {
    let index = calls.findLastIndex((one) => one.upstreamIndex === piece.index)
    const additions: Addition[] = []
    // Some servers number every call 0 and tell them apart by their names.
    const current = calls[index]
    const startsAnother =
      current && piece.function?.name && piece.id && isWholeJson(current.arguments)
    if (!current || startsAnother) {
      const name = storable(piece.function?.name ?? '')
      index = calls.push({ upstreamIndex: piece.index, name, arguments: '' }) - 1
      additions.push({ kind: 'call', index, name })
    }
    const fragment = storable(piece.function?.arguments ?? '')
    const open = calls[index]
    if (fragment !== '' && open) {
      open.arguments += fragment
      additions.push({ kind: 'arguments', index, text: fragment })
    }
    return index < mostCalls ? additions : []
  }

  return {
    read(chunk) {
      if (chunk.usage) usage = usageOf(chunk.usage) ?? usage
      const [choice] = chunk.choices ?? []
      if (!choice) return []
      if (choice.finish_reason) finishReason = choice.finish_reason
      const { content, refusal, tool_calls, function_call } = choice.delta ?? {}
      const said = textOf(content)
      return [
        ...(said ? text('text', said) : []),
        ...(refusal ? text('refusal', refusal) : []),
        ...(tool_calls ?? []).flatMap(call),
        // As tools were called before there were several in an answer.
        ...(function_call ? call({ index: 0, function: function_call }) : []),
      ]
    },
    content: () =>
      parts.map((part) =>
        part.type === 'text'
          ? { type: 'text', text: { value: part.text, annotations: [] } }
          : { type: 'refusal', refusal: part.text },
      ),
    calls: () =>
      calls.slice(0, mostCalls).map(({ name, arguments: args }) => ({ name, arguments: args })),
    written: () =>
      [
        ...parts.map(({ text: written }) => written),
        ...calls.map(({ name, arguments: args }) => name + args),
      ].join(''),
    finishReason: () => finishReason,
    usage: () => usage,
  }
}

/** Some servers send text as a list of parts, as it is in requests; what is no text has no place in a message. */
function textOf(content: unknown): string {
  if (!Array.isArray(content)) return typeof content === 'string' ? content : ''
  return content.map((part: { text?: unknown } | null) => textOf(part?.text)).join('')
}

type ToolCallPiece = NonNullable<ChatCompletionChunk.Choice.Delta['tool_calls']>[number]

export function isWholeJson(text: string): boolean {
  try {
    JSON.parse(text)
    return true
  } catch {
    return false
  }
}

/** Undefined where a server says less than both numbers, or what is none: then they are counted here. */
function usageOf(given: NonNullable<ChatCompletionChunk['usage']>): Usage | undefined {
  const { prompt_tokens: prompt, completion_tokens: completion } = given
  if (!isCount(prompt) || !isCount(completion)) return undefined
  const cached = given.prompt_tokens_details?.cached_tokens
  const reasoning = given.completion_tokens_details?.reasoning_tokens
  return usageFrom({
    prompt,
    completion,
    cached: isCount(cached) ? cached : 0,
    reasoning: isCount(reasoning) ? reasoning : 0,
  })
}

/** Far above any context: a provider that tells more is mistaken. */
const mostTokens = 100_000_000

function isCount(value: unknown): value is number {
  return Number.isInteger(value) && Number(value) >= 0 && Number(value) <= mostTokens
}
