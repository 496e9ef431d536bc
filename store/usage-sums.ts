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
  /**
   * Adds calls that are in no sum yet to theirs; gives how many. Each is added once, whoever folds. It waits for nobody:
   * where another process is at it, that one goes on. What is left after many batches is for the next time.
   */
  fold(): Promise<number>
  /**
   * From day to day, both included: `2026-11-23`; in the order of days and models, the first `limit`. What is in no sum
   * yet is in them all the same.
   */
  of(wanted: {
    projectId: string
    kind: UsageKind
    id: string
    from: string
    to: string
    limit: number
  }): Promise<UsageSumRow[]>
}

const batchSize = 5000
/** A process that stops waits for the round that it is in. */
const batchesAtOnce = 20
/** Any number that no other program uses for an advisory lock in our database. */
const foldLock = 7_205_759_405

export function createUsageSums(db: Db): UsageSums {
  return {
    async fold() {
      const [waiting] = await db.sql('SELECT FROM usage WHERE NOT summed LIMIT 1')
      if (!waiting) return 0
      let folded = 0
      for (let batch = 0; batch < batchesAtOnce; batch += 1) {
        const calls = await db.tx(async (tx) => {
          const [lock] = await tx.sql<{ isOurs: boolean }>(
            'SELECT pg_try_advisory_xact_lock($1) AS "isOurs"',
            [foldLock],
          )
          if (!lock?.isOurs) return 0
          const [done] = await tx.sql<{ calls: number }>(foldBatch, [batchSize])
          return done?.calls ?? 0
        })
        folded += calls
        if (calls < batchSize) break
      }
      return folded
    },
    of: ({ projectId, kind, id, from, to, limit }) =>
      db.sql<UsageSumRow>(sumsAndRest, [projectId, kind, id, from, to, limit]),
  }
}

/** One statement has one snapshot: a call that is folded meanwhile is in the sums or in the rest, and never in both. */
const sumsAndRest = `
SELECT day::text, $2::text AS kind, $3::text AS id, model, sum(model_calls)::integer AS model_calls,
  sum(prompt_tokens) AS prompt_tokens, sum(completion_tokens) AS completion_tokens, sum(cached_tokens) AS cached_tokens,
  sum(reasoning_tokens) AS reasoning_tokens, sum(estimated_calls)::integer AS estimated_calls,
  sum(unpriced_calls)::integer AS unpriced_calls, sum(cost) AS cost
FROM (
  (SELECT day, model, model_calls, prompt_tokens, completion_tokens, cached_tokens, reasoning_tokens, estimated_calls,
     unpriced_calls, cost
   FROM usage_sums WHERE project_id = $1 AND kind = $2 AND id = $3 AND day BETWEEN $4::date AND $5::date
   ORDER BY day, model LIMIT $6)
  UNION ALL
  SELECT (created_at AT TIME ZONE 'UTC')::date, model, 1, prompt_tokens, completion_tokens, cached_tokens,
    reasoning_tokens, estimated::integer, (cost IS NULL)::integer, coalesce(cost, 0)
  FROM usage WHERE NOT summed AND project_id = $1
    AND created_at >= $4::date::timestamp AT TIME ZONE 'UTC'
    AND created_at < ($5::date + 1)::timestamp AT TIME ZONE 'UTC'
    AND CASE $2 WHEN 'project' THEN project_id WHEN 'assistant' THEN assistant_id ELSE thread_id END = $3
) calls
GROUP BY day, model ORDER BY day, model LIMIT $6`

const foldBatch = `
WITH batch AS (
  SELECT run_id, turn, generation FROM usage WHERE NOT summed ORDER BY project_id, created_at LIMIT $1 FOR UPDATE
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
