import { runEvent, type RunEvent } from '../wire/events.ts'
import { presentRun } from '../wire/present/run.ts'
import { isTerminal } from '../wire/run-status.ts'
import type { Tx } from './db.ts'
import type { EventLog } from './events.ts'
import type { RunRow, RunStepRow, TurnResult, TurnRow, Usage } from './rows.ts'
import { closeOpenWork } from './run-end.ts'
import { completeStep, lockRun, moveRun } from './run-state.ts'
import type { Claim, WantedTurn } from './turns.ts'
import { noUsage, usageOf } from './usage.ts'

export type ClaimedRow =
  | Exclude<Claim, { kind: 'claimed' }>
  | { kind: 'claimed'; run: RunRow; row: TurnRow; lastSeq: number; spent: Usage }

export async function claimTurn(tx: Tx, events: EventLog, wanted: WantedTurn): Promise<ClaimedRow> {
  const run = await lockRun(tx, wanted.runId)
  if (!run) return { kind: 'stopped', status: 'gone' }
  const [row] = await tx.sql<TurnRow & { last_seq: number }>(
    `INSERT INTO run_turns (run_id, turn, generation_id, model) VALUES ($1, $2, $3, $4)
     ON CONFLICT (run_id, turn) DO UPDATE SET fence = run_turns.fence + 1, model = excluded.model
     RETURNING *, (SELECT last_seq FROM run_streams WHERE run_id = $1)`,
    [wanted.runId, wanted.turn, wanted.generationId, wanted.model],
  )
  if (!row) throw new Error('INSERT INTO run_turns returned no row')
  // First, for a workflow that begins again: its run may have been cancelled while there was none to hear of it.
  if (isTerminal(run.status) || run.status === 'cancelling') {
    return { kind: 'stopped', status: run.status }
  }
  if (row.result) return { kind: 'done', result: await resultNow(tx, row.result) }
  const said: RunEvent[] = []
  if (row.emitted) {
    said.push(
      ...(await closeOpenWork(tx, run, {
        messageReason: 'run_failed',
        stepStatus: 'failed',
        error: {
          code: 'server_error',
          message: 'The worker was replaced; the turn is written anew.',
        },
        superseded: true,
      })),
    )
    await tx.sql(
      `UPDATE run_turns SET emitted = false, generation = generation + 1 WHERE run_id = $1 AND turn = $2`,
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
  const spent = isFirst ? noUsage : await usageOf(tx.sql, run.id)
  return { kind: 'claimed', run: current, row, lastSeq: row.last_seq + said.length, spent }
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
