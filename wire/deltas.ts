import type { ContentPart } from '../store/rows.ts'

/**
 * The deltas that we send, as values: what a model turn emits, what the writer merges and what a crash is mended from.
 * A message of ours has images first, and one text part and one refusal at most, in the order in which the model began them.
 */
export type Delta =
  | {
      of: 'message'
      id: string
      index: number
      type: 'text' | 'refusal'
      text: string
      first: boolean
      /** Set where the text is a mark: the annotation and its position among those of the message. */
      annotation?: { index: number } & object
    }
  | { of: 'image'; id: string; index: number; fileId: string }
  | { of: 'call'; stepId: string; index: number; opened: OpenedCall }
  | { of: 'arguments'; stepId: string; index: number; type: CallType; text: string }
  | { of: 'outputs'; stepId: string; index: number; outputs: object[] }

export type CallType = 'code_interpreter' | 'file_search' | 'function'

export interface OpenedCall {
  id: string
  type: CallType
  name: string
}

/** One delta in place of two, where the second only continues the first; undefined where both are needed. */
export function mergeDeltas(a: Delta, b: Delta): Delta | undefined {
  if (a.of === 'message' && b.of === 'message') {
    const isPlain = !a.annotation && !b.annotation
    const continues =
      isPlain && a.id === b.id && a.index === b.index && a.type === b.type && !b.first
    return continues ? { ...a, text: a.text + b.text } : undefined
  }
  if (a.of === 'arguments' && b.of === 'arguments') {
    const continues = a.stepId === b.stepId && a.index === b.index
    return continues ? { ...a, text: a.text + b.text } : undefined
  }
  return undefined
}

export interface DeltaEvent {
  event: 'thread.message.delta' | 'thread.run.step.delta'
  data: string
}

/** A delta on the wire. Ids and names go out once, since clients concatenate whatever strings they get (spec 4.4). */
export function deltaEvent(delta: Delta): DeltaEvent {
  switch (delta.of) {
    case 'message':
      return messageDelta(delta.id, contentDelta(delta))
    case 'image': {
      const { id, index, fileId } = delta
      return messageDelta(id, { index, type: 'image_file', image_file: imageFile(fileId) })
    }
    case 'call':
      return stepDelta(delta.stepId, openedCall(delta.index, delta.opened))
    case 'arguments':
      return stepDelta(delta.stepId, callArguments(delta))
    case 'outputs':
      return stepDelta(delta.stepId, {
        index: delta.index,
        type: 'code_interpreter',
        code_interpreter: { outputs: delta.outputs.map((output, index) => ({ index, ...output })) },
      })
    default:
      return delta satisfies never
  }
}

/** The content that the deltas of a message add up to; what is left of a message whose writer is gone. */
export function contentOf(deltas: { data: string }[]): ContentPart[] {
  const parts: ContentPart[] = []
  for (const { data } of deltas) {
    // The log holds what `deltaEvent` above wrote, so its shape is known.
    const { delta } = JSON.parse(data) as { delta: { content: WireContent[] } }
    for (const piece of delta.content) {
      const part = parts[piece.index]
      parts[piece.index] = part ? continued(part, piece) : begun(piece)
    }
  }
  return parts.filter((part) => part !== undefined)
}

function begun(piece: WireContent): ContentPart {
  switch (piece.type) {
    case 'text':
      return { type: 'text', text: { value: piece.text.value, annotations: annotationsOf(piece) } }
    case 'refusal':
      return { type: 'refusal', refusal: piece.refusal }
    case 'image_file':
      return { type: 'image_file', image_file: piece.image_file }
    default:
      return piece satisfies never
  }
}

function continued(part: ContentPart, piece: WireContent): ContentPart {
  if (part.type === 'text' && piece.type === 'text') {
    const { value, annotations } = part.text
    const more = annotationsOf(piece)
    return {
      type: 'text',
      text: { value: value + piece.text.value, annotations: [...annotations, ...more] },
    }
  }
  if (part.type === 'refusal' && piece.type === 'refusal') {
    return { type: 'refusal', refusal: part.refusal + piece.refusal }
  }
  return part
}

/** As a message keeps them: their position is where they stand. */
function annotationsOf(piece: Extract<WireContent, { type: 'text' }>): Record<string, unknown>[] {
  return (piece.text.annotations ?? []).map(({ index: _index, ...annotation }) => annotation)
}

/** An image that a message shows; nobody has said in how much detail. */
export function imageFile(fileId: string): { file_id: string; detail: string } {
  return { file_id: fileId, detail: 'auto' }
}

/** What a delta of ours shows of what a model wrote: its text, names of functions and arguments. */
export function textIn(data: string): string {
  // As above.
  const { delta } = JSON.parse(data) as { delta: WireDelta }
  const parts = (delta.content ?? []).map((part) => {
    if (part.type === 'image_file') return ''
    return part.type === 'text' ? part.text.value : part.refusal
  })
  const calls = (delta.step_details?.tool_calls ?? []).map(
    (call) =>
      `${call.function?.name ?? ''}${call.function?.arguments ?? ''}${call.code_interpreter?.input ?? ''}`,
  )
  return [...parts, ...calls].join('')
}

interface WireDelta {
  content?: WireContent[]
  step_details?: {
    tool_calls: {
      function?: { name?: string; arguments?: string }
      code_interpreter?: { input?: string }
    }[]
  }
}

type WireContent =
  | { index: number; type: 'text'; text: { value: string; annotations?: WireAnnotation[] } }
  | { index: number; type: 'refusal'; refusal: string }
  | { index: number; type: 'image_file'; image_file: { file_id: string; detail: string } }

type WireAnnotation = { index: number } & object

function messageDelta(id: string, content: WireContent): DeltaEvent {
  return {
    event: 'thread.message.delta',
    data: JSON.stringify({ id, object: 'thread.message.delta', delta: { content: [content] } }),
  }
}

function contentDelta(delta: Extract<Delta, { of: 'message' }>): WireContent {
  const { index, text, annotation } = delta
  if (delta.type === 'refusal') return { index, type: 'refusal', refusal: text }
  const annotations = annotation ? [annotation] : []
  return delta.first || annotation
    ? { index, type: 'text', text: { value: text, annotations } }
    : { index, type: 'text', text: { value: text } }
}

function stepDelta(id: string, call: object): DeltaEvent {
  return {
    event: 'thread.run.step.delta',
    data: JSON.stringify({
      id,
      object: 'thread.run.step.delta',
      delta: { step_details: { type: 'tool_calls', tool_calls: [call] } },
    }),
  }
}

function openedCall(index: number, { id, type, name }: OpenedCall): object {
  switch (type) {
    case 'function':
      return { index, id, type, function: { name, arguments: '', output: null } }
    case 'code_interpreter':
      return { index, id, type, code_interpreter: { input: '', outputs: [] } }
    case 'file_search':
      return { index, id, type, file_search: {} }
    default:
      return type satisfies never
  }
}

function callArguments({ index, type, text }: Extract<Delta, { of: 'arguments' }>): object {
  switch (type) {
    case 'function':
      return { index, type, function: { arguments: text } }
    case 'code_interpreter':
      return { index, type, code_interpreter: { input: text } }
    case 'file_search':
      return { index, type, file_search: {} }
    default:
      return type satisfies never
  }
}
