import { runEvent, type RunEvent } from '../wire/events.ts'
import { presentRunStep } from '../wire/present/run-step.ts'
import { isTerminal, mayBecome, type RunStatus } from '../wire/run-status.ts'
import type { Sql, Tx } from './db.ts'
import type { OutboxCommand, RunRow, RunStepRow, ToolCallRow } from './rows.ts'
import { assignments } from './sql.ts'

/**
 * Takes the run's lock (the row of its stream, then the run): the first statement of every transaction that changes a run.
 * Undefined when the run is gone. Both rows are locked, so both are read as they are after the wait.
 */
export async function lockRun(tx: Tx, runId: string): Promise<RunRow | undefined> {
  const [run] = await tx.sql<RunRow>(
    `SELECT r.* FROM run_streams s JOIN runs r ON r.id = s.run_id
     WHERE s.run_id = $1 FOR NO KEY UPDATE OF s, r`,
    [runId],
  )
  return run
}

/** Whether a thread has something for after the run that holds its lock: other runs, or messages that are held back. */
const hasQueue = `(EXISTS (SELECT FROM runs w WHERE w.thread_id = runs.thread_id AND w.status = 'queued' AND NOT w.holds_lock)
  OR EXISTS (SELECT FROM messages m WHERE m.thread_id = runs.thread_id AND m.held))`

/** A run that has just been moved; where it ended it is known with it whether others wait (`handOn`). */
export type MovedRun = RunRow & { has_queue?: boolean }

/** A guarded change of status; undefined when the run's status does not allow it. The event is the caller's. */
export async function moveRun(
  tx: Tx,
  runId: string,
  status: RunStatus,
  patch: Partial<RunRow> = {},
): Promise<MovedRun | undefined> {
  const { set, values } = assignments({ status, ...patch }, 1)
  const from = mayBecome(status)
    .map((s) => `'${s}'`)
    .join(', ')
  const returned = isTerminal(status) ? `*, ${hasQueue} AS has_queue` : '*'
  const [row] = await tx.sql<MovedRun>(
    `UPDATE runs SET ${set} WHERE id = $1 AND status IN (${from}) RETURNING ${returned}`,
    [runId, ...values],
  )
  return row
}

/** The tool calls of a step, in order; none for the step of a message. */
export async function callsOf(sql: Sql, step: RunStepRow): Promise<ToolCallRow[]> {
  if (step.type !== 'tool_calls') return []
  return sql<ToolCallRow>('SELECT * FROM tool_calls WHERE step_id = $1 ORDER BY idx', [step.id])
}

export async function enqueue(tx: Tx, runId: string, command: OutboxCommand): Promise<void> {
  await tx.sql('INSERT INTO outbox (run_id, command) VALUES ($1, $2)', [
    runId,
    JSON.stringify(command),
  ])
}

/** Completes a step of tool calls, if it is in progress, and returns the event that says so. */
export async function completeStep(tx: Tx, run: RunRow, stepId: string): Promise<RunEvent[]> {
  const [step] = await tx.sql<RunStepRow>(
    `UPDATE run_steps SET status = 'completed', completed_at = $2
     WHERE id = $1 AND status = 'in_progress' RETURNING *`,
    [stepId, new Date()],
  )
  if (!step) return []
  const calls = await callsOf(tx.sql, step)
  return [runEvent('thread.run.step.completed', presentRunStep(step, calls, run.expires_at))]
}
