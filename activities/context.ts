/**
 * What of a thread and of a run's own work a prompt has room for. Pure: sizes go in, what is kept comes out. The kept
 * beginning stays the same from call to call for as long as it can, for the provider's cache.
 */
export interface Sized {
  /** bigint as text. */
  seq: string
  tokens: number
}

/** Calls of one turn of the run with all their outputs: kept together, or left out together. */
export interface SizedRound {
  calls: number
  tokens: number
}

export interface Parts<Message extends Sized, Round extends SizedRound> {
  /** The beginning of the thread, in order; may overlap with `newest`, and is the same where that is whole. */
  oldest: Message[]
  /** The end of the thread, in order: all of it, or more than there is room for. */
  newest: Message[]
  isWhole: boolean
  rounds: Round[]
}

/** A cut that was made before: the thread is shown up to `head_until` and from `tail_from` on, where null is nothing and all. */
export interface EarlierCut {
  head_until: string | null
  tail_from: string | null
  dropped_tool_calls: number
  /** Of the run itself, or of one before it in the thread. */
  isOwn: boolean
}

export interface Kept<Message extends Sized, Round extends SizedRound> {
  head: Message[]
  tail: Message[]
  rounds: Round[]
  /** Above the room where even the last message and the newest round do not fit. */
  tokens: number
}

/**
 * Keeps an earlier cut of the run itself that fits; else everything, if that fits; else an earlier cut of the thread that is
 * not too small; else cuts anew.
 */
export function keptParts<Message extends Sized, Round extends SizedRound>(
  parts: Parts<Message, Round>,
  room: number,
  earlier: EarlierCut | undefined,
): Kept<Message, Round> {
  const before = earlier && cutAsBefore(parts, earlier)
  if (before && earlier.isOwn && before.tokens <= room) return before
  const all = kept([], parts.newest, parts.rounds)
  if (parts.isWhole && all.tokens <= room) return all
  const isLargeEnough = before && before.tokens >= room * leastOfRoom && before.tokens <= room
  return isLargeEnough ? before : cutAnew(parts, room)
}

/** A cut of an earlier run that uses less of the room is made anew. */
const leastOfRoom = 1 / 2
/** A new cut leaves room free, so that it holds for the calls that come after it. */
const usedByNewCut = 3 / 4
/** For the first messages of the thread: they often say what it is about. */
const headShare = 1 / 8
/** For the very first, which may be the document that the thread is about. */
const firstShare = 1 / 2
/** Messages make way for calls of the run until they have no more than this. */
const threadShare = 1 / 4

function cutAsBefore<Message extends Sized, Round extends SizedRound>(
  { oldest, newest, isWhole, rounds }: Parts<Message, Round>,
  cut: EarlierCut,
): Kept<Message, Round> | undefined {
  const { head_until: until, tail_from: from } = cut
  const [first] = newest
  const isRead = isWhole || (from !== null && first && !isAfter(first.seq, from))
  if (!isRead) return undefined
  const isInTail = ({ seq }: Message) => from === null || !isAfter(from, seq)
  const tail = newest.filter(isInTail)
  const head = oldest.filter(
    (message) => until !== null && !isAfter(message.seq, until) && !isInTail(message),
  )
  if (tail.length === 0) return undefined
  let dropped = 0
  const start = rounds.findIndex(({ calls }) => {
    const isShown = dropped >= (cut.isOwn ? cut.dropped_tool_calls : 0)
    dropped += calls
    return isShown
  })
  return kept(head, tail, rounds.slice(Math.max(0, start)))
}

function cutAnew<Message extends Sized, Round extends SizedRound>(
  parts: Parts<Message, Round>,
  room: number,
): Kept<Message, Round> {
  const { oldest, newest, isWhole } = parts
  const last = newest.slice(-1)
  const earlierTokens = sum(newest.slice(0, -1))
  const reserve = isWhole ? Math.min(earlierTokens, room * threadShare) : room * threadShare
  const rounds = newestRounds(parts.rounds, room, sum(last) + reserve)

  const free = room - sum(last) - sum(rounds)
  // Calls that have pushed the messages aside may use the rest of the room; messages alone leave some of it.
  const left = Math.max(0, free - room * (1 - usedByNewCut), Math.min(reserve, free))
  const isBeforeLast = ({ seq }: Message) => last.every((one) => isAfter(one.seq, seq))
  const head = headOf(oldest.filter(isBeforeLast), left)
  const end = head.at(-1)
  const middle = newest.slice(0, -1).filter(({ seq }) => !end || isAfter(seq, end.seq))
  const tail = takeFitting(middle.toReversed(), left - sum(head)).toReversed()
  return kept(head, [...tail, ...last], rounds)
}

function headOf<Message extends Sized>(oldest: Message[], room: number): Message[] {
  const head = takeFitting(oldest, room * headShare)
  return head.length > 0 ? head : takeFitting(oldest.slice(0, 1), room * firstShare)
}

/** Drops oldest rounds where there is no room for all beside `other` tokens; then some more, so that it holds. */
function newestRounds<Round extends SizedRound>(
  rounds: Round[],
  room: number,
  other: number,
): Round[] {
  if (sum(rounds) + other <= room) return rounds
  const fitting = takeFitting(rounds.toReversed(), room * usedByNewCut - other).toReversed()
  return fitting.length > 0 ? fitting : rounds.slice(-1)
}

function takeFitting<T extends { tokens: number }>(items: T[], room: number): T[] {
  let used = 0
  const tooMuch = items.findIndex(({ tokens }) => (used += tokens) > room)
  return tooMuch < 0 ? items : items.slice(0, tooMuch)
}

function kept<Message extends Sized, Round extends SizedRound>(
  head: Message[],
  tail: Message[],
  rounds: Round[],
): Kept<Message, Round> {
  return { head, tail, rounds, tokens: sum(head) + sum(tail) + sum(rounds) }
}

function sum(items: { tokens: number }[]): number {
  return items.reduce((total, { tokens }) => total + tokens, 0)
}

function isAfter(seq: string, other: string): boolean {
  return BigInt(seq) > BigInt(other)
}
