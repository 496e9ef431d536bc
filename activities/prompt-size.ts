import type { ThreadMessage } from '../store/context.ts'
import type { ContentPart } from '../store/rows.ts'
import type { ModelRoute } from '../models.ts'
import { countEach, mostTokens, type KeyedText } from '../tokens.ts'
import { declarations, type PromptInput, type Round } from './prompt.ts'

/** A piece of a prompt: its text, and the tokens that it has beside it. */
export interface Piece extends KeyedText {
  beside: number
}

/** About what a message has around its text. */
const tokensOfMessage = 4
/** Of an image that is looked at as a whole, and of others by the tiles of a square one. */
const tokensOfImage = { low: 85, other: 765 }
/** Of the words in its place, for a model that cannot see. */
const tokensOfNoImage = 16

/** What every prompt of the run has: instructions, tools, the form of the answer. */
export function settingsPiece(given: Pick<PromptInput, 'run' | 'route' | 'dataFiles'>): Piece {
  const { tools = [], response_format = '' } = declarations(given)
  const text = [
    given.run.instructions ?? '',
    ...tools.map((tool) => JSON.stringify(tool)),
    JSON.stringify(response_format),
  ]
  return { key: undefined, text: text.join('\n'), beside: tokensOfMessage }
}

export function messagePiece({ id, content }: ThreadMessage, { quirks }: ModelRoute): Piece {
  const images = content.map((part) => (quirks.no_images ? hidden(part) : shown(part)))
  const texts = content.map((part) => {
    if (part.type === 'text') return part.text.value
    return part.type === 'refusal' ? part.refusal : ''
  })
  const beside = images.reduce((sum, tokens) => sum + tokens, tokensOfMessage)
  return { key: id, text: texts.join('\n'), beside }
}

export function roundPiece({ key, messages }: Round): Piece {
  return { key, text: JSON.stringify(messages), beside: tokensOfMessage * messages.length }
}

/** No piece has more; for the price of measuring its length. */
export function mostOf({ text, beside }: Piece): number {
  return beside + mostTokens(text)
}

export async function countPieces(pieces: Piece[]): Promise<number[]> {
  const counts = await countEach(pieces)
  return pieces.map(({ beside }, index) => beside + (counts[index] ?? 0))
}

function shown(part: ContentPart): number {
  const image = imageOf(part)
  if (!image) return 0
  return image.detail === 'low' ? tokensOfImage.low : tokensOfImage.other
}

function hidden(part: ContentPart): number {
  return imageOf(part) ? tokensOfNoImage : 0
}

function imageOf(part: ContentPart): { detail: string } | undefined {
  if (part.type === 'image_url') return part.image_url
  return part.type === 'image_file' ? part.image_file : undefined
}
