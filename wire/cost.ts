import type { Usage } from '../store/rows.ts'

/** What a model's provider charges: US dollars for a million tokens. */
export interface Price {
  input: number
  /** For tokens of the prompt that the provider had kept; as `input` where it is not given. */
  cached_input?: number | undefined
  /** Reasoning tokens are among the completion's. */
  output: number
}

const million = 1_000_000

/** US dollars. */
export function costOf(usage: Usage, price: Price): number {
  const cached = usage.prompt_token_details.cached_tokens
  const fresh = Math.max(0, usage.prompt_tokens - cached)
  const cachedPrice = price.cached_input ?? price.input
  return rounded(
    (fresh * price.input + cached * cachedPrice + usage.completion_tokens * price.output) / million,
  )
}

/** US dollars; null where one of them is not known. */
export function sumOfCosts(a: number | null, b: number | null): number | null {
  return a === null || b === null ? null : rounded(a + b)
}

/** A token costs millionths of dollars: what floating point adds behind the twelfth digit is nobody's money. */
function rounded(dollars: number): number {
  return Number(dollars.toFixed(12))
}
