import type { ThreadMessage, ThreadView } from '../store/context.ts'
import type { Store } from '../store/index.ts'
import type { ModelRoute } from '../models.ts'
import type { Parts, Sized, SizedRound } from './context.ts'
import { countPieces, messagePiece, mostOf, roundPiece, type Piece } from './prompt-size.ts'
import type { Round } from './prompt.ts'

export type SizedMessage = ThreadMessage & Sized
export type PromptRound = Round & SizedRound

export interface PromptParts extends Parts<SizedMessage, PromptRound> {
  /** Tokens of what every prompt of the run has. */
  settings: number
  /** Whether the thread has nothing older than `newest`, not even what the run does not ask for. */
  isAll: boolean
}

export interface WantedParts {
  view: ThreadView
  /** How many of the newest messages the run asks for; null for all. */
  last: number | null
  settings: Piece
  rounds: Round[]
  route: ModelRoute
  /** Tokens for the whole prompt. */
  room: number
}

/** Messages of most threads are one page; a long one is read in larger pages from then on. */
const firstPage = 100
const laterPage = 1000

/**
 * Reads of a thread what there is room for, and a little more. What surely fits is not counted: then the sizes are the most
 * that the pieces can have.
 */
export async function readParts(
  store: Pick<Store, 'context'>,
  wanted: WantedParts,
): Promise<PromptParts> {
  const { view, last, settings, rounds, route, room } = wanted
  const limit = (got: number, page: number) => (last === null ? page : Math.min(page, last - got))
  let page = await store.context.newest(view, limit(0, firstPage))
  const messages = [...page.messages]
  const isWhole = () => page.isLast || messages.length === last
  const piecesOf = (some: ThreadMessage[]) => some.map((one) => messagePiece(one, route))
  const roundPieces = rounds.map(roundPiece)

  if (isWhole()) {
    const most = [settings, ...roundPieces, ...piecesOf(messages)].map(mostOf)
    if (total(most) <= room) {
      const newest = sized(messages, piecesOf(messages).map(mostOf))
      const sizedRounds = sized(rounds, roundPieces.map(mostOf))
      const isAll = page.isLast
      return {
        settings: mostOf(settings),
        oldest: newest,
        newest,
        isWhole: true,
        isAll,
        rounds: sizedRounds,
      }
    }
  }

  const [settingsTokens = 0, ...roundTokens] = await countPieces([settings, ...roundPieces])
  let tokens = await countPieces(piecesOf(messages))
  while (!isWhole() && settingsTokens + total(tokens) <= room) {
    page = await store.context.newest(view, limit(messages.length, laterPage), messages[0]?.seq)
    tokens = [...(await countPieces(piecesOf(page.messages))), ...tokens]
    messages.unshift(...page.messages)
  }
  const newest = sized(messages, tokens)
  const oldest = isWhole() ? undefined : await store.context.oldest(view, last)
  return {
    settings: settingsTokens,
    oldest: oldest ? sized(oldest, await countPieces(piecesOf(oldest))) : newest,
    newest,
    isWhole: isWhole(),
    isAll: page.isLast,
    rounds: sized(rounds, roundTokens),
  }
}

function sized<T>(items: T[], tokens: number[]): (T & { tokens: number })[] {
  return items.map((item, index) => ({ ...item, tokens: tokens[index] ?? 0 }))
}

function total(tokens: number[]): number {
  return tokens.reduce((sum, one) => sum + one, 0)
}
