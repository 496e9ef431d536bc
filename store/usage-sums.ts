import type { Db } from './db.ts'

export type UsageKind = 'project' | 'assistant' | 'thread'

/** What the model calls of one UTC day used, of one model, for a project, an assistant or a thread. */
export interface UsageSumRow {
  day: string
  kind: UsageKind
  id: string
  /** By the name that clients use. */
  model: string
  model_calls: number
  /** bigint, which `pg` hands over as text; so are the other tokens. */
  prompt_tokens: string
  completion_tokens: string
  cached_tokens: string
  reasoning_tokens: string
  /** Calls whose tokens were counted here, since the provider did not tell. */
  estimated_calls: number
  /** Calls whose price is not known; they are not in `cost`. */
  unpriced_calls: number
  /** US dollars, numeric as text. */
  cost: string
}

/** Sums over `usage`, which is the truth and outlives its threads. */
export interface UsageSums {
  /** Adds up the calls that are in no sum yet; gives how many there were. Each is added once, whoever folds. */
  fold(): Promise<number>
  /** From day to day, both included: `2026-11-23`. */
  of(wanted: {
    projectId: string
    kind: UsageKind
    id: string
    from: string
    to: string
  }): Promise<UsageSumRow[]>
}

const batchSize = 5000
/** Any number that no other program uses for an advisory lock in our database. */
const foldLock = 7_205_759_405

export function createUsageSums(db: Db): UsageSums {
  return {
    async fold() {
      const [waiting] = await db.sql('SELECT FROM usage WHERE NOT summed LIMIT 1')
      if (!waiting) return 0
      for (let folded = 0; ; folded += batchSize) {
        const calls = await db.tx(async (tx) => {
          // One at a time: whoever waited finds the rest.
          await tx.sql('SELECT pg_advisory_xact_lock($1)', [foldLock])
          const [done] = await tx.sql<{ calls: number }>(foldBatch, [batchSize])
          return done?.calls ?? 0
        })
        if (calls < batchSize) return folded + calls
      }
    },
    of: ({ projectId, kind, id, from, to }) =>
      db.sql<UsageSumRow>(
        `SELECT day::text, kind, id, model, model_calls, prompt_tokens, completion_tokens, cached_tokens,
           reasoning_tokens, estimated_calls, unpriced_calls, cost
         FROM usage_sums WHERE project_id = $1 AND kind = $2 AND id = $3 AND day BETWEEN $4::date AND $5::date
         ORDER BY day, model`,
        [projectId, kind, id, from, to],
      ),
  }
}

const foldBatch = `
WITH batch AS (
  SELECT run_id, turn, generation FROM usage WHERE NOT summed ORDER BY created_at LIMIT $1 FOR UPDATE
), calls AS (
  UPDATE usage u SET summed = true FROM batch b
  WHERE u.run_id = b.run_id AND u.turn = b.turn AND u.generation = b.generation RETURNING u.*
), added AS (
  INSERT INTO usage_sums AS s (project_id, day, kind, id, model, model_calls, prompt_tokens, completion_tokens,
    cached_tokens, reasoning_tokens, estimated_calls, unpriced_calls, cost)
  SELECT project_id, (created_at AT TIME ZONE 'UTC')::date, k.kind, k.id, model, count(*), sum(prompt_tokens),
    sum(completion_tokens), sum(cached_tokens), sum(reasoning_tokens), count(*) FILTER (WHERE estimated),
    count(*) FILTER (WHERE cost IS NULL), coalesce(sum(cost), 0)
  FROM calls, LATERAL (VALUES ('project', project_id), ('assistant', assistant_id), ('thread', thread_id)) k (kind, id)
  GROUP BY 1, 2, 3, 4, 5
  ON CONFLICT (project_id, kind, id, day, model) DO UPDATE SET
    model_calls = s.model_calls + excluded.model_calls,
    prompt_tokens = s.prompt_tokens + excluded.prompt_tokens,
    completion_tokens = s.completion_tokens + excluded.completion_tokens,
    cached_tokens = s.cached_tokens + excluded.cached_tokens,
    reasoning_tokens = s.reasoning_tokens + excluded.reasoning_tokens,
    estimated_calls = s.estimated_calls + excluded.estimated_calls,
    unpriced_calls = s.unpriced_calls + excluded.unpriced_calls,
    cost = s.cost + excluded.cost
)
SELECT count(*)::integer AS calls FROM calls`
