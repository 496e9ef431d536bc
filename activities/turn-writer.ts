import type { ContentPart, Json } from '../store/rows.ts'
import type { ClaimedTurn, TurnCall } from '../store/turns.ts'
import { createStreamedCode, type StreamedCode } from '../wire/streamed-code.ts'
import { createAnnotator, type MarkedPiece } from './annotator.ts'
import type { Addition, Answer } from './answer.ts'
import type { CountedCall } from './counted-call.ts'
import { builtInTool, offeredTools } from './prompt.ts'

/** Says to clients what the model adds; steps and messages begin with the first thing that is in them. */
export interface TurnWriter {
  add(addition: Addition): Promise<void>
  /** Says what was held back: the beginning of a mark that did not become one. Nothing is added after it. */
  end(): void
  /** The content of the answer with what was found in its text. */
  annotated(content: ContentPart[]): ContentPart[]
}

/** `marks` are what annotations stand for in the text of this turn, `answer` is what `add` is told of, piece by piece. */
export function createTurnWriter(
  turn: ClaimedTurn,
  call: CountedCall,
  marks: ReadonlyMap<string, Json>,
  answer: Pick<Answer, 'content'>,
): TurnWriter {
  const annotator = createAnnotator(marks)
  const annotations: Json[] = []
  const begunParts = new Set<number>()
  const calls: { type: TurnCall['type']; code: StreamedCode }[] = []
  let textIndex = 0
  let hasMessage = false
  let hasTools = false
  /** A message ends where calls begin. */
  let isSaid = false

  function push(index: number, type: 'text' | 'refusal', { text, annotation }: MarkedPiece): void {
    const first = !begunParts.has(index)
    begunParts.add(index)
    const position = annotation ? annotations.push(annotation) - 1 : 0
    if (isSaid) return
    turn.pushText(index, type, {
      text,
      first,
      ...(annotation && { annotation: { index: position, ...annotation } }),
    })
  }

  function annotated(content: ContentPart[]): ContentPart[] {
    return content.map((part) =>
      part.type === 'text' ? { ...part, text: { ...part.text, annotations } } : part,
    )
  }

  function pushArguments(index: number, text: string): void {
    if (text !== '') turn.pushArguments(index, calls[index]?.type ?? 'function', text)
  }

  return {
    async add(addition) {
      switch (addition.kind) {
        case 'text': {
          if (!hasMessage) await turn.openMessage(await call.asked())
          hasMessage = true
          const { index, type, text } = addition
          if (type === 'refusal') return push(index, type, { text })
          textIndex = index
          for (const piece of annotator.read(text)) push(index, type, piece)
          return
        }
        case 'call': {
          if (!hasTools) {
            for (const piece of annotator.end()) push(textIndex, 'text', piece)
            isSaid = hasMessage
            await turn.openToolStep(await call.asked(), annotated(answer.content()))
          }
          hasTools = true
          const { index, name } = addition
          const type = builtInTool(name, offeredTools(turn.run)) ?? 'function'
          calls[index] = { type, code: createStreamedCode() }
          turn.pushCall(index, { id: turn.callId(index), type, name })
          return
        }
        case 'arguments': {
          const { index, text } = addition
          const called = calls[index]
          // What our own tools are asked for is JSON around what clients are shown.
          if (called?.type === 'code_interpreter') pushArguments(index, called.code.read(text))
          else if (called?.type !== 'file_search') pushArguments(index, text)
          return
        }
        default:
          addition satisfies never
      }
    },
    end() {
      for (const piece of annotator.end()) push(textIndex, 'text', piece)
      for (const [index, { type, code }] of calls.entries()) {
        if (type === 'code_interpreter') pushArguments(index, code.end())
      }
    },
    annotated,
  }
}
