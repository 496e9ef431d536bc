import type { UsageSumRow } from '../../store/usage-sums.ts'

/** Ours: what one model was used for on one UTC day, by a project, an assistant or a thread. */
export interface UsageObject {
  object: 'longrun.usage'
  day: string
  kind: string
  id: string
  model: string
  model_calls: number
  prompt_tokens: number
  completion_tokens: number
  cached_tokens: number
  reasoning_tokens: number
  /** Calls whose tokens were counted here, since the provider did not tell. */
  estimated_calls: number
  /** Of the calls whose price is known; `unpriced_calls` are the others. */
  cost: { amount: number; currency: 'USD' }
  unpriced_calls: number
}

export function presentUsage(row: UsageSumRow): UsageObject {
  return {
    object: 'longrun.usage',
    day: row.day,
    kind: row.kind,
    id: row.id,
    model: row.model,
    model_calls: row.model_calls,
    prompt_tokens: Number(row.prompt_tokens),
    completion_tokens: Number(row.completion_tokens),
    cached_tokens: Number(row.cached_tokens),
    reasoning_tokens: Number(row.reasoning_tokens),
    estimated_calls: row.estimated_calls,
    cost: { amount: Number(row.cost), currency: 'USD' },
    unpriced_calls: row.unpriced_calls,
  }
}
