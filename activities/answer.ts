import type { ContentPart, Usage } from '../store/rows.ts'
import type { ChatCompletionChunk } from '../wire/openai.ts'

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
  /** Null until the model has said why it stopped: an answer without it was cut. */
  finishReason(): string | null
  usage(): Usage | undefined
}

export function createAnswer(): Answer {
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
    return additions
  }

  return {
    read(chunk) {
      if (chunk.usage) usage = usageOf(chunk.usage)
      const [choice] = chunk.choices ?? []
      if (!choice) return []
      if (choice.finish_reason) finishReason = choice.finish_reason
      const { content, refusal, tool_calls } = choice.delta ?? {}
      return [
        ...(content ? text('text', content) : []),
        ...(refusal ? text('refusal', refusal) : []),
        ...(tool_calls ?? []).flatMap(call),
      ]
    },
    content: () =>
      parts.map((part) =>
        part.type === 'text'
          ? { type: 'text', text: { value: part.text, annotations: [] } }
          : { type: 'refusal', refusal: part.text },
      ),
    calls: () => calls.map(({ name, arguments: args }) => ({ name, arguments: args })),
    finishReason: () => finishReason,
    usage: () => usage,
  }
}

type ToolCallPiece = NonNullable<ChatCompletionChunk.Choice.Delta['tool_calls']>[number]

/** Postgres takes neither U+0000 nor half a character; in what a model wrote they become U+FFFD. */
export function storable(text: string): string {
  return text.replaceAll('\u0000', '\uFFFD').toWellFormed()
}

export function isWholeJson(text: string): boolean {
  try {
    JSON.parse(text)
    return true
  } catch {
    return false
  }
}

function usageOf(given: NonNullable<ChatCompletionChunk['usage']>): Usage {
  return {
    prompt_tokens: given.prompt_tokens,
    completion_tokens: given.completion_tokens,
    total_tokens: given.prompt_tokens + given.completion_tokens,
    prompt_token_details: { cached_tokens: given.prompt_tokens_details?.cached_tokens ?? 0 },
    completion_tokens_details: {
      reasoning_tokens: given.completion_tokens_details?.reasoning_tokens ?? 0,
    },
  }
}
