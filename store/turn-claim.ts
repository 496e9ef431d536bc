import { runEvent, type RunEvent } from '../wire/events.ts'
import { presentRun } from '../wire/present/run.ts'
import { isTerminal } from '../wire/run-status.ts'
import { countCutCall } from './cut-call.ts'
import type { Tx } from './db.ts'
import type { EventLog } from './events.ts'
import type { RunFailure, RunRow, RunStepRow, TurnResult, TurnRow } from './rows.ts'
import { closeOpenWork, failureOfAttempt } from './run-end.ts'
import { completeStep, lockRun, moveRun } from './run-state.ts'
import type { Claim, WantedTurn } from './turns.ts'
import { nothingUsed, usageOf, type CountedUsage } from './usage.ts'

export type ClaimedRow =
  | Exclude<Claim, { kind: 'claimed' }>
  | { kind: 'claimed'; run: RunRow; row: TurnRow; lastSeq: number; spent: CountedUsage }

export async function claimTurn(tx: Tx, events: EventLog, wanted: WantedTurn): Promise<ClaimedRow> {
  const run = await lockRun(tx, wanted.runId)
  if (!run) return { kind: 'stopped', status: 'gone' }
  const [row] = await tx.sql<TurnRow & { last_seq: number; last_failure: RunFailure | null }>(
    `INSERT INTO run_turns (run_id, turn, generation_id, model, begun_at, failed_models)
     VALUES ($1, $2, $3, $4, clock_timestamp(),
       coalesce((SELECT failed_models FROM run_turns WHERE run_id = $1 AND turn = $2 - 1), '[]'))
     ON CONFLICT (run_id, turn) DO UPDATE SET fence = run_turns.fence + 1, begun_at = excluded.begun_at
     RETURNING *, (SELECT last_seq FROM run_streams WHERE run_id = $1),
       (SELECT ${failureOfAttempt} FROM run_turns WHERE run_id = $1 AND turn = $2) AS last_failure`,
    [wanted.runId, wanted.turn, wanted.generationId, wanted.model],
  )
  if (!row) throw new Error('INSERT INTO run_turns returned no row')
  // First, for a workflow that begins again: its run may have been cancelled while there was none to hear of it.
  if (isTerminal(run.status) || run.status === 'cancelling') {
    return { kind: 'stopped', status: run.status }
  }
  if (row.result) return { kind: 'done', result: await resultNow(tx, row.result) }
  await askModel(tx, row, wanted.model, row.last_failure)
  const said: RunEvent[] = []
  if (row.emitted) {
    const cut = await countCutCall(tx, run)
    said.push(
      ...(await closeOpenWork(tx, run, {
        messageReason: 'run_failed',
        stepStatus: 'failed',
        error: row.last_failure ?? {
          code: 'server_error',
          message: 'The worker was replaced; the turn is written anew.',
        },
        superseded: true,
        cut,
      })),
    )
    // Its message may have ended before the attempt did.
    for (const table of ['messages', 'run_steps']) {
      const ofTurn = `UPDATE ${table} SET superseded = true WHERE run_id = $1 AND turn = $2`
      await tx.sql(ofTurn, [run.id, wanted.turn])
    }
    await tx.sql(
      `UPDATE run_turns SET emitted = false, call = NULL, generation = generation + 1 WHERE run_id = $1 AND turn = $2`,
      [run.id, wanted.turn],
    )
    row.generation += 1
  }
  said.push(...(await completeEarlierStep(tx, run, wanted.turn)))
  let current = run
  if (run.status === 'queued') {
    const moved = await moveRun(tx, run.id, 'in_progress', { started_at: new Date() })
    if (!moved) throw new Error(`Run ${run.id} may not start from ${run.status}`)
    said.push(runEvent('thread.run.in_progress', presentRun(moved)))
    current = moved
  }
  if (said.length > 0) await events.append(tx, run.id, said)
  const isFirst = row.turn + row.generation === 0
  const spent = isFirst ? nothingUsed : await usageOf(tx.sql, run.id)
  return { kind: 'claimed', run: current, row, lastSeq: row.last_seq + said.length, spent }
}

/** Where another model is asked than before, keeps that the one before has failed, and why. */
async function askModel(
  tx: Tx,
  row: TurnRow,
  model: string,
  lastFailure: RunFailure | null,
): Promise<void> {
  // A workflow that begins anew asks them in order again.
  const asked = row.failed_models.findIndex((failed) => failed.model === model)
  if (asked < 0 && (row.model === null || row.model === model)) return
  const failure = lastFailure ?? { code: 'server_error', message: 'The model did not answer.' }
  row.failed_models =
    asked < 0
      ? [...row.failed_models, { model: row.model ?? '', ...failure }]
      : row.failed_models.slice(0, asked)
  row.model = model
  row.failure = null
  await tx.sql(
    `UPDATE run_turns SET model = $3, failed_models = $4, failure = NULL WHERE run_id = $1 AND turn = $2`,
    [row.run_id, row.turn, model, JSON.stringify(row.failed_models)],
  )
}

/** A workflow that begins again meets results whose consequences have come about: outputs may be there by now. */
async function resultNow(tx: Tx, result: TurnResult): Promise<TurnResult> {
  if (result.kind === 'ended') return result
  const [step] = await tx.sql<RunStepRow>('SELECT * FROM run_steps WHERE id = $1', [result.stepId])
  return step && step.status !== 'in_progress'
    ? { kind: 'tools', stepId: result.stepId, calls: [], waitsForClient: false }
    : result
}

/** The step of our own tools is completed by the turn that reads their outputs: one activity less for every round. */
async function completeEarlierStep(tx: Tx, run: RunRow, turn: number): Promise<RunEvent[]> {
  if (turn === 0) return []
  const open = await tx.sql<RunStepRow>(
    `SELECT id FROM run_steps WHERE run_id = $1 AND turn < $2 AND type = 'tool_calls' AND status = 'in_progress'`,
    [run.id, turn],
  )
  const events: RunEvent[] = []
  for (const { id } of open) events.push(...(await completeStep(tx, run, id)))
  return events
}
