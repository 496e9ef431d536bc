import { randomInt } from 'node:crypto'

import { describe, expect, test } from 'vitest'

import { keptParts, type EarlierCut, type Kept, type Parts } from '../../activities/context.ts'

interface Message {
  seq: string
  tokens: number
}
interface Round {
  calls: number
  tokens: number
}
type Thread = Parts<Message, Round>

/** A thread that was read whole, of messages of these sizes, and calls of the run of those. */
function parts(messages: number[], rounds: number[] = []): Thread {
  const newest = messages.map((tokens, index) => ({ seq: String(index + 1), tokens }))
  return {
    oldest: newest,
    newest,
    isWhole: true,
    rounds: rounds.map((tokens) => ({ calls: 2, tokens })),
  }
}

function sizes(count: number, tokens = 10): number[] {
  return Array.from({ length: count }, () => tokens)
}

function seqs({ head, tail }: Kept<Message, Round>): number[] {
  return [...head, ...tail].map(({ seq }) => Number(seq))
}

function cutOf(shown: Kept<Message, Round>, given: Partial<EarlierCut> = {}): EarlierCut {
  return {
    head_until: shown.head.at(-1)?.seq ?? null,
    tail_from: shown.tail[0]?.seq ?? null,
    dropped_tool_calls: 0,
    isOwn: true,
    ...given,
  }
}

describe('a thread', () => {
  test('that fits exactly is shown whole', () => {
    expect(seqs(keptParts(parts(sizes(10)), 100, undefined))).toEqual([
      1, 2, 3, 4, 5, 6, 7, 8, 9, 10,
    ])
  })

  test('that does not fit loses its middle, and keeps its beginning and more of its end', () => {
    const shown = keptParts(parts(sizes(100)), 500, undefined)
    const { head, tail } = shown
    expect(head.length).toBeGreaterThan(0)
    expect(tail.length).toBeGreaterThan(head.length)
    expect(head.map(({ seq }) => Number(seq))).toEqual(head.map((_, index) => index + 1))
    expect(tail.map(({ seq }) => Number(seq))).toEqual(
      tail.map((_, index) => 100 - tail.length + index + 1),
    )
    // A new cut uses about three quarters of the room.
    expect(shown.tokens).toBeGreaterThan(500 * 0.7)
    expect(shown.tokens).toBeLessThanOrEqual(500 * 0.75)
  })

  test('that begins with a document keeps it where it leaves room for as much again', () => {
    const shown = seqs(keptParts(parts([170, ...sizes(99)]), 500, undefined))
    expect(shown[0]).toBe(1)
    expect(shown.at(-1)).toBe(100)
    expect(shown.length).toBeGreaterThan(10)
    expect(seqs(keptParts(parts([300, ...sizes(99)]), 500, undefined))[0]).toBeGreaterThan(50)
  })

  test('keeps its last message, whatever its size', () => {
    const shown = keptParts(parts([...sizes(5), 1000]), 100, undefined)
    expect(seqs(shown)).toEqual([6])
    expect(shown.tokens).toBe(1000)
  })

  test('of which beginning and end were read shows no message twice', () => {
    const all = parts(sizes(30)).newest
    const thread = { oldest: all.slice(0, 20), newest: all.slice(10), isWhole: false, rounds: [] }
    const shown = seqs(keptParts(thread, 150, undefined))
    expect(shown).toEqual([...new Set(shown)])
    expect(shown[0]).toBe(1)
    expect(shown.at(-1)).toBe(30)
  })

  test('without messages is shown as it is', () => {
    expect(keptParts(parts([]), 10, undefined)).toEqual({
      head: [],
      tail: [],
      rounds: [],
      tokens: 0,
    })
  })
})

describe('calls of the run', () => {
  test('stay while messages can make way for them', () => {
    const shown = keptParts(parts(sizes(100), [100, 100, 100]), 500, undefined)
    expect(shown.rounds).toHaveLength(3)
    expect(shown.tokens).toBeLessThanOrEqual(500)
  })

  test('are dropped from their old end, when messages have no more than a quarter of the room', () => {
    const thread = parts(sizes(100), sizes(10, 100))
    const shown = keptParts(thread, 500, undefined)
    expect(shown.rounds).toEqual(thread.rounds.slice(-shown.rounds.length))
    expect(shown.rounds.length).toBeLessThan(10)
    const messages = shown.tokens - shown.rounds.length * 100
    expect(messages).toBeGreaterThan(10)
    expect(shown.tokens).toBeLessThanOrEqual(500)
  })

  test('keep the newest round, whatever its size', () => {
    const shown = keptParts(parts(sizes(3), [10, 1000]), 100, undefined)
    expect(shown.rounds).toEqual([{ calls: 2, tokens: 1000 }])
    expect(seqs(shown)).toEqual([3])
  })

  test('leave a short thread whole, when they are too much by themselves', () => {
    const shown = keptParts(parts([10, 10], sizes(10, 100)), 500, undefined)
    expect(seqs(shown)).toEqual([1, 2])
  })
})

describe('an earlier cut', () => {
  const first = keptParts(parts(sizes(100)), 500, undefined)

  test('of the run itself is kept while it fits, so that a prompt only grows at its end', () => {
    const grown = keptParts(parts(sizes(100), [50]), 500, cutOf(first))
    expect(seqs(grown)).toEqual(seqs(first))
    expect(grown.rounds).toHaveLength(1)
    const more = keptParts(parts(sizes(100), [50, 500]), 1000, cutOf(first))
    expect(seqs(more)).toEqual(seqs(first))
  })

  test('of the run itself is made anew once it does not fit', () => {
    const shown = keptParts(parts(sizes(100), [200]), 500, cutOf(first))
    expect(seqs(shown)).not.toEqual(seqs(first))
    expect(shown.tokens).toBeLessThanOrEqual(500)
    expect(shown.rounds).toHaveLength(1)
  })

  test('that left out calls leaves out as many again', () => {
    const thread = parts(sizes(10), [100, 100, 100, 10])
    const shown = keptParts(thread, 400, {
      ...cutOf(first),
      head_until: null,
      tail_from: null,
      dropped_tool_calls: 4,
    })
    expect(shown.rounds).toEqual(thread.rounds.slice(2))
  })

  test('of an earlier run is begun from, with what was written since', () => {
    const shown = keptParts(parts(sizes(105)), 500, cutOf(first, { isOwn: false }))
    expect(seqs(shown)).toEqual([...seqs(first), 101, 102, 103, 104, 105])
  })

  test('of an earlier run is not used where it has less than half of the room', () => {
    const cut = cutOf(first, { isOwn: false })
    const shown = keptParts(parts(sizes(100)), 900, cut)
    expect(seqs(shown)).not.toEqual(seqs(first))
    expect(shown.tokens).toBeGreaterThan(900 / 2)
  })

  test('of an earlier run is not used where all fits', () => {
    const shown = keptParts(parts(sizes(100)), 1000, cutOf(first, { isOwn: false }))
    expect(seqs(shown)).toHaveLength(100)
  })

  test('whose end was not read does not fit', () => {
    const all = parts(sizes(100)).newest
    const thread = { oldest: all.slice(0, 20), newest: all.slice(60), isWhole: false, rounds: [] }
    const shown = keptParts(thread, 300, cutOf(first, { tail_from: '50' }))
    expect(shown.tokens).toBeLessThanOrEqual(300)
    expect(seqs(shown).at(-1)).toBe(100)
  })
})

test('every cut keeps the order, the last message and the newest calls, and fits where that can be', () => {
  const seed = randomInt(2 ** 31)
  const random = randomFrom(seed)
  for (let round = 0; round < 2000; round += 1) {
    const given = aThread(random)
    const room = 1 + random(2000)
    const before = random(2) === 0 ? undefined : cutAnywhere(random, given)
    const shown = keptParts(given, room, before)
    expect({ seed, round, wrong: wrongIn(shown, given, room) }).toEqual({ seed, round, wrong: [] })
  }
})

function wrongIn(shown: Kept<Message, Round>, given: Thread, room: number): string[] {
  const numbers = seqs(shown)
  const newestRounds = given.rounds.slice(given.rounds.length - shown.rounds.length)
  const tokens = [...shown.head, ...shown.tail, ...shown.rounds].map((part) => part.tokens)
  const least = (given.newest.at(-1)?.tokens ?? 0) + (given.rounds.at(-1)?.tokens ?? 0)
  const rules = {
    'in order, and none twice': numbers.every((n, at) => at === 0 || n > (numbers[at - 1] ?? n)),
    'with the last message': shown.tail.at(-1) === given.newest.at(-1),
    'with whole rounds from the newest on': shown.rounds.every(
      (one, at) => one === newestRounds[at],
    ),
    'with the newest round': shown.rounds.length > 0 || given.rounds.length === 0,
    'as large as it says': tokens.reduce((sum, one) => sum + one, 0) === shown.tokens,
    'in the room, or the least there is': shown.tokens <= Math.max(room, least),
  }
  return Object.entries(rules).flatMap(([rule, holds]) => (holds ? [] : [rule]))
}

/** A thread as it is read: whole, or its beginning and an end that may overlap or leave a gap. */
function aThread(random: (below: number) => number): Thread {
  const messages = Array.from({ length: 1 + random(60) }, () => 1 + random(100))
  const rounds = Array.from({ length: random(8) }, () => 1 + random(300))
  const thread = parts(messages, rounds)
  if (random(2) === 0) return thread
  return {
    ...thread,
    isWhole: false,
    oldest: thread.newest.slice(0, 1 + random(messages.length)),
    newest: thread.newest.slice(random(messages.length)),
  }
}

function cutAnywhere(random: (below: number) => number, { newest, rounds }: Thread): EarlierCut {
  const last = Number(newest.at(-1)?.seq)
  const tailFrom = 1 + random(last)
  return {
    head_until: random(3) === 0 ? null : String(random(tailFrom)),
    tail_from: random(5) === 0 ? null : String(tailFrom),
    dropped_tool_calls: random(2) * 2 * random(Math.max(1, rounds.length)),
    isOwn: random(2) === 0,
  }
}

/** Whole numbers below a bound, the same ones for the same seed (mulberry32). */
function randomFrom(seed: number): (below: number) => number {
  let state = seed
  return (below) => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below
  }
}
