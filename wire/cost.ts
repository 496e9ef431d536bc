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
  return (
    (fresh * price.input + cached * cachedPrice + usage.completion_tokens * price.output) / million
  )
}
