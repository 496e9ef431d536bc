import { costOf, sumOfCosts } from '../wire/cost.ts'
import type { Sql, Tx } from './db.ts'
import type { ModelCall, RunRow, TurnRow, Usage } from './rows.ts'

/** What a model call used, or all calls of a run together. */
export interface CountedUsage {
  usage: Usage
  /** Whether some of it was counted here, since a provider did not tell. */
  estimated: boolean
  /** US dollars; null where a price is not known. */
  cost: number | null
}

export interface CallUsage extends CountedUsage {
  model: string
}

export const noUsage: Usage = usageFrom({ prompt: 0, completion: 0, cached: 0, reasoning: 0 })

/** Before the first call. */
export const nothingUsed: CountedUsage = { usage: noUsage, estimated: false, cost: 0 }

/** The usage of a call as its provider told it. */
export function toldUsage(
  { model, price }: Pick<ModelCall, 'model' | 'price'>,
  usage: Usage,
): CallUsage {
  return { model, usage, estimated: false, cost: price && costOf(usage, price) }
}

/** The usage of a call whose provider does not tell. */
export function estimatedUsage(call: ModelCall, completionTokens: number): CallUsage {
  const usage = usageFrom({
    prompt: call.prompt_tokens,
    completion: completionTokens,
    cached: 0,
    reasoning: 0,
  })
  return { ...toldUsage(call, usage), estimated: true }
}

export function sumOfUsage(a: CountedUsage, b: CountedUsage): CountedUsage {
  return {
    usage: usageFrom({
      prompt: a.usage.prompt_tokens + b.usage.prompt_tokens,
      completion: a.usage.completion_tokens + b.usage.completion_tokens,
      cached:
        a.usage.prompt_token_details.cached_tokens + b.usage.prompt_token_details.cached_tokens,
      reasoning:
        a.usage.completion_tokens_details.reasoning_tokens +
        b.usage.completion_tokens_details.reasoning_tokens,
    }),
    estimated: a.estimated || b.estimated,
    cost: sumOfCosts(a.cost, b.cost),
  }
}

/** What the run's row says of it; written by the transaction that ends the run. */
export function usageColumns(
  all: CountedUsage,
): Pick<RunRow, 'usage' | 'usage_estimated' | 'cost'> {
  return {
    usage: all.usage,
    usage_estimated: all.estimated,
    cost: all.cost === null ? null : String(all.cost),
  }
}

/** What the model calls of a run have used so far. */
export async function usageOf(sql: Sql, runId: string): Promise<CountedUsage> {
  const [sum] = await sql<Counts & { estimated: boolean; cost: string | null }>(
    `SELECT coalesce(sum(prompt_tokens), 0)::float8 AS prompt,
       coalesce(sum(completion_tokens), 0)::float8 AS completion,
       coalesce(sum(cached_tokens), 0)::float8 AS cached,
       coalesce(sum(reasoning_tokens), 0)::float8 AS reasoning,
       coalesce(bool_or(estimated), false) AS estimated,
       CASE WHEN count(*) = count(cost) THEN coalesce(sum(cost), 0) END AS cost
     FROM usage WHERE run_id = $1`,
    [runId],
  )
  if (!sum) return nothingUsed
  const cost = sum.cost === null ? null : Number(sum.cost)
  return { usage: usageFrom(sum), estimated: sum.estimated, cost }
}

/** Counts a model call, once: a generation of a turn is one call, and what is there already stays. */
export async function insertUsage(
  tx: Tx,
  run: Pick<RunRow, 'id' | 'project_id' | 'thread_id' | 'assistant_id'>,
  { turn, generation }: Pick<TurnRow, 'turn' | 'generation'>,
  { model, usage, estimated, cost }: CallUsage,
): Promise<void> {
  await tx.sql(
    `INSERT INTO usage (run_id, turn, generation, project_id, thread_id, assistant_id, model,
       prompt_tokens, completion_tokens, cached_tokens, reasoning_tokens, estimated, cost)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
     ON CONFLICT (run_id, turn, generation) DO NOTHING`,
    [
      run.id,
      turn,
      generation,
      run.project_id,
      run.thread_id,
      run.assistant_id,
      model,
      usage.prompt_tokens,
      usage.completion_tokens,
      usage.prompt_token_details.cached_tokens,
      usage.completion_tokens_details.reasoning_tokens,
      estimated,
      cost,
    ],
  )
}

export interface Counts {
  prompt: number
  completion: number
  cached: number
  reasoning: number
}

export function usageFrom({ prompt, completion, cached, reasoning }: Counts): Usage {
  return {
    prompt_tokens: prompt,
    completion_tokens: completion,
    total_tokens: prompt + completion,
    prompt_token_details: { cached_tokens: cached },
    completion_tokens_details: { reasoning_tokens: reasoning },
  }
}
