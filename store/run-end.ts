import { runEvent, type RunEvent } from '../wire/events.ts'
import { presentRun } from '../wire/present/run.ts'
import { presentRunStep } from '../wire/present/run-step.ts'
import type { TerminalStatus } from '../wire/run-status.ts'
import { countCutCall, type CutCall } from './cut-call.ts'
import type { Tx } from './db.ts'
import type { EventLog } from './events.ts'
import type { RunFailure, RunRow, RunStepRow, TurnRow } from './rows.ts'
import { closeOpenMessage } from './message-end.ts'
import { handOn } from './run-handover.ts'
import { callsOf, moveRun } from './run-state.ts'
import { usageColumns, usageOf } from './usage.ts'

/** How a run ends that no model turn has ended. */
export interface RunEnd {
  status: Exclude<TerminalStatus, 'completed'>
  error?: RunFailure
  incompleteReason?: IncompleteReason
}

/** The limit that a run met. */
export type IncompleteReason = 'max_prompt_tokens' | 'max_completion_tokens' | 'max_steps'

/** The patch that every end of a run shares; it gives the thread's lock back. */
export const released = { holds_lock: false, required_action: null } satisfies Partial<RunRow>

/**
 * Ends a run outside of a model turn, in the order of events that clients expect: message, step, run. The text of a
 * message that was being written is put together from its deltas in the log, since its writer may be gone.
 */
export async function endRun(
  tx: Tx,
  log: EventLog,
  run: RunRow,
  { status: asked, error, incompleteReason }: RunEnd,
): Promise<RunRow> {
  // Whoever asked for the cancel comes before the deadline that passed meanwhile.
  const status = run.status === 'cancelling' && asked === 'expired' ? 'cancelled' : asked
  const cut = await countCutCall(tx, run)
  const closing = await closeOpenWork(tx, run, {
    cut,
    messageReason: {
      cancelled: 'run_cancelled',
      expired: 'run_expired',
      failed: 'run_failed',
      incomplete: 'max_tokens',
    }[status],
    stepStatus: status === 'incomplete' ? 'completed' : status,
    error,
    superseded: false,
  })
  // Not before the end of what it was writing.
  const now = new Date()
  const ended = await moveRun(tx, run.id, status, {
    ...released,
    ...usageColumns(await usageOf(tx.sql, run.id)),
    ...(status === 'cancelled' && { cancelled_at: now }),
    ...(status === 'failed' && { failed_at: now }),
    ...(status === 'incomplete' && { completed_at: now }),
    ...(error && { last_error: error }),
    ...(incompleteReason && { incomplete_reason: incompleteReason }),
  })
  if (!ended) throw new Error(`Run ${run.id} may not go from ${run.status} to ${status}`)
  const events = [...closing, runEvent(`thread.run.${status}`, presentRun(ended))]
  await log.append(tx, run.id, events, { last: true })
  await handOn(tx, run, ended)
  return ended
}

/**
 * The last resort, for a run that cannot be ended in order: whatever is wrong with what it has written, its thread is not to
 * be locked for ever. What was open is closed without events of its own, and `last_error` says why.
 */
export async function endBare(tx: Tx, log: EventLog, run: RunRow, reason: string): Promise<RunRow> {
  await tx.sql(
    `UPDATE messages SET status = 'incomplete', incomplete_at = now(), incomplete_reason = 'run_failed'
     WHERE run_id = $1 AND status = 'in_progress'`,
    [run.id],
  )
  await tx.sql(
    `UPDATE run_steps SET status = 'failed', failed_at = now() WHERE run_id = $1 AND status = 'in_progress'`,
    [run.id],
  )
  const message = `The run could not be ended in order: ${reason}`
  const ended = await moveRun(tx, run.id, 'failed', {
    ...released,
    failed_at: new Date(),
    last_error: { code: 'server_error', message },
  })
  if (!ended) throw new Error(`Run ${run.id} may not go from ${run.status} to failed`)
  await log.append(tx, run.id, [runEvent('thread.run.failed', presentRun(ended))], { last: true })
  await handOn(tx, run, { ...ended, rolls_back: false })
  return ended
}

/**
 * Temporal's history holds no more of a failure than its kind; the whole of it is kept with the turn. Where the run fell back
 * on other models, they are named.
 */
export async function inFull(tx: Tx, runId: string, how: RunEnd): Promise<RunEnd> {
  if (how.status !== 'failed' || !how.error) return how
  const [turn] = await tx.sql<Pick<TurnRow, 'failure' | 'model' | 'failed_models'>>(
    `SELECT ${failureOfAttempt} AS failure, model, failed_models FROM run_turns
     WHERE run_id = $1 ORDER BY turn DESC LIMIT 1`,
    [runId],
  )
  const error = turn?.failure?.code === how.error.code ? turn.failure : how.error
  const before = (turn?.failed_models ?? []).map(({ model }) => `'${model}'`)
  if (!turn || before.length === 0) return { ...how, error }
  const tried = `The models tried were ${[...before, `'${turn.model}'`].join(', ')}.`
  return { ...how, error: { ...error, message: `${error.message} ${tried}` } }
}

/** Of a row of run_turns: why its newest attempt has failed; null where it was cut off before it could say. */
export const failureOfAttempt =
  "CASE WHEN failed_at >= begun_at THEN failure - '{is_final,retry_at_ms,is_filtered}'::text[] END"

interface Closing {
  stepStatus: Exclude<RunStepRow['status'], 'in_progress'>
  error?: RunFailure
  superseded: boolean
  /** The call that is cut by this, if one is. */
  cut?: CutCall | undefined
}

/** Closes the message and the steps that are in progress, and returns the events that say so. */
export async function closeOpenWork(
  tx: Tx,
  run: RunRow,
  how: Closing & { messageReason: string },
): Promise<RunEvent[]> {
  const { messageReason: incompleteReason, superseded } = how
  return [
    ...(await closeOpenMessage(tx, run.id, { incompleteReason, superseded })),
    ...(await closeOpenSteps(tx, run, how)),
  ]
}

export async function closeOpenSteps(tx: Tx, run: RunRow, how: Closing): Promise<RunEvent[]> {
  const now = new Date()
  const events: RunEvent[] = []
  const steps = await tx.sql<RunStepRow>(
    `UPDATE run_steps SET status = $2, superseded = $3, last_error = $4,
       usage = CASE WHEN id = $6 THEN $7::jsonb ELSE usage END,
       completed_at = CASE WHEN $2 = 'completed' THEN $5::timestamptz END,
       cancelled_at = CASE WHEN $2 = 'cancelled' THEN $5::timestamptz END,
       failed_at = CASE WHEN $2 = 'failed' THEN $5::timestamptz END,
       expired_at = CASE WHEN $2 = 'expired' THEN $5::timestamptz END
     WHERE run_id = $1 AND status = 'in_progress' RETURNING *`,
    [
      run.id,
      how.stepStatus,
      how.superseded,
      stepError(how),
      now,
      how.cut?.stepId,
      how.cut && JSON.stringify(how.cut.usage),
    ],
  )
  for (const step of steps.toSorted((a, b) => Number(a.seq) - Number(b.seq))) {
    const calls = await callsOf(tx.sql, step)
    events.push(
      runEvent(`thread.run.step.${how.stepStatus}`, presentRunStep(step, calls, run.expires_at)),
    )
  }
  return events
}

function stepError(how: { stepStatus: string; error?: RunFailure }): string | null {
  if (how.stepStatus !== 'failed' || !how.error) return null
  return JSON.stringify(how.error)
}
