import type { Sql, Tx } from './db.ts'
import type { RunRow, TurnRow, Usage } from './rows.ts'

export const noUsage: Usage = {
  prompt_tokens: 0,
  completion_tokens: 0,
  total_tokens: 0,
  prompt_token_details: { cached_tokens: 0 },
  completion_tokens_details: { reasoning_tokens: 0 },
}

/** What the model calls of a run have used so far. */
export async function usageOf(sql: Sql, runId: string): Promise<Usage> {
  const [sum] = await sql<Record<'prompt' | 'completion' | 'cached' | 'reasoning', number>>(
    `SELECT coalesce(sum(prompt_tokens), 0)::int AS prompt, coalesce(sum(completion_tokens), 0)::int AS completion,
       coalesce(sum(cached_tokens), 0)::int AS cached, coalesce(sum(reasoning_tokens), 0)::int AS reasoning
     FROM usage WHERE run_id = $1`,
    [runId],
  )
  const { prompt, completion, cached, reasoning } = sum ?? {
    prompt: 0,
    completion: 0,
    cached: 0,
    reasoning: 0,
  }
  return {
    prompt_tokens: prompt,
    completion_tokens: completion,
    total_tokens: prompt + completion,
    prompt_token_details: { cached_tokens: cached },
    completion_tokens_details: { reasoning_tokens: reasoning },
  }
}

export async function insertUsage(tx: Tx, run: RunRow, row: TurnRow, usage: Usage): Promise<void> {
  await tx.sql(
    `INSERT INTO usage (run_id, turn, generation, project_id, thread_id, assistant_id, model,
       prompt_tokens, completion_tokens, cached_tokens, reasoning_tokens)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)`,
    [
      run.id,
      row.turn,
      row.generation,
      run.project_id,
      run.thread_id,
      run.assistant_id,
      run.model,
      usage.prompt_tokens,
      usage.completion_tokens,
      usage.prompt_token_details.cached_tokens,
      usage.completion_tokens_details.reasoning_tokens,
    ],
  )
}
