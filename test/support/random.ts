/** Numbers that follow from a seed, so that a walk can be walked again. */
export interface Random {
  /** At least 0 and below 1. */
  next(): number
  /** 0 up to, and without, `below`. */
  integer(below: number): number
  chance(share: number): boolean
  pick<T>(from: readonly T[]): T
  /** One of the choices, as often as its weight says. */
  weighed<T>(choices: readonly (readonly [weight: number, choice: T])[]): T
}

/** Mulberry32: 32 bits of state are enough for a walk. */
export function createRandom(seed: number): Random {
  let state = seed >>> 0
  const next = (): number => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
  const integer = (below: number): number => Math.floor(next() * below)
  return {
    next,
    integer,
    chance: (share) => next() < share,
    pick(from) {
      const at = integer(from.length)
      if (at >= from.length) throw new Error('There is nothing to pick from')
      // Within the list, as was just seen; its elements may well be undefined.
      return from[at] as (typeof from)[number]
    },
    weighed(choices) {
      const total = choices.reduce((sum, [weight]) => sum + weight, 0)
      let left = next() * total
      for (const [weight, choice] of choices) {
        left -= weight
        if (left < 0) return choice
      }
      throw new Error('There is nothing to choose from')
    },
  }
}
