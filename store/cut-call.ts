import { countTokens } from '../tokens.ts'
import { textIn } from '../wire/deltas.ts'
import type { Tx } from './db.ts'
import type { RunRow, RunStepRow, TurnRow, Usage } from './rows.ts'
import { estimatedUsage, insertUsage, usageFrom, type Counts } from './usage.ts'

/** A model call that was cut, and the step that shows what it used. */
export interface CutCall {
  usage: Usage
  /** Undefined where nothing of it came to be shown. */
  stepId: RunStepRow['id'] | undefined
}

/**
 * Counts the model call that a run has open, under the run's lock and before its work is closed. Whoever heard of its usage
 * has written it down; else the provider will never tell, and what the log shows of the answer is counted. A call that
 * failed before anything was shown is not counted: nothing is known of it, and most providers charge nothing.
 */
export async function countCutCall(
  tx: Tx,
  run: Pick<RunRow, 'id' | 'project_id' | 'thread_id' | 'assistant_id'>,
): Promise<CutCall | undefined> {
  const [turn] = await tx.sql<OpenTurn>(
    `SELECT t.turn, t.generation, t.call, u.run_id IS NOT NULL AS counted, u.prompt_tokens AS prompt,
       u.completion_tokens AS completion, u.cached_tokens AS cached, u.reasoning_tokens AS reasoning
     FROM run_turns t LEFT JOIN usage u USING (run_id, turn, generation)
     WHERE t.run_id = $1 AND t.emitted AND t.result IS NULL`,
    [run.id],
  )
  if (!turn) return undefined
  const steps = await tx.sql<Pick<RunStepRow, 'id' | 'type' | 'status'>>(
    `SELECT id, type, status FROM run_steps WHERE run_id = $1 AND turn = $2 AND NOT superseded ORDER BY seq`,
    [run.id, turn.turn],
  )
  const open = steps.filter(({ status }) => status === 'in_progress')
  const stepId = (open.find(({ type }) => type === 'tool_calls') ?? open[0])?.id
  if (turn.counted) return { usage: usageFrom(turn), stepId }
  if (!turn.call || !steps[0]) return undefined
  // One answer at most, so the lock is not held for long.
  const completionTokens = await countTokens(await textSince(tx, run.id, steps[0].id))
  const used = estimatedUsage(turn.call, completionTokens)
  await insertUsage(tx, run, turn, used)
  return { usage: used.usage, stepId }
}

type OpenTurn = Pick<TurnRow, 'turn' | 'generation' | 'call'> & Counts & { counted: boolean }

/** What the log shows of an answer, whose first step this is; nothing else is written while a model writes. */
async function textSince(tx: Tx, runId: string, stepId: string): Promise<string> {
  const deltas = await tx.sql<{ data: string }>(
    `SELECT data FROM run_events WHERE run_id = $1
       AND event IN ('thread.message.delta', 'thread.run.step.delta')
       AND seq > (SELECT max(seq) FROM run_events WHERE run_id = $1
         AND event = 'thread.run.step.created' AND data::jsonb ->> 'id' = $2)
     ORDER BY seq`,
    [runId, stepId],
  )
  return deltas.map(({ data }) => textIn(data)).join('')
}
