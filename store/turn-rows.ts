import { runEvent, type RunEvent } from '../wire/events.ts'
import { presentRun } from '../wire/present/run.ts'
import { presentRunStep } from '../wire/present/run-step.ts'
import type { Tx } from './db.ts'
import type { RunRow, RunStepRow, ToolCallRow, TurnResult, TurnRow, Usage } from './rows.ts'
import { closeOpenSteps, released } from './run-end.ts'
import { handOn } from './run-handover.ts'
import { moveRun } from './run-state.ts'
import { insert } from './sql.ts'
import { requireAction } from './tool-outputs.ts'
import type { TurnEnd } from './turns.ts'
import { usageColumns, type CountedUsage } from './usage.ts'

export async function insertStep(
  tx: Tx,
  run: RunRow,
  { turn, model, failed_models }: TurnRow,
  step: Pick<RunStepRow, 'id' | 'type'> & Partial<RunStepRow>,
): Promise<RunStepRow> {
  const [row] = await insert<RunStepRow>(tx.sql, 'run_steps', [
    {
      ...step,
      project_id: run.project_id,
      thread_id: run.thread_id,
      run_id: run.id,
      assistant_id: run.assistant_id,
      turn,
      model,
      failed_models,
      status: 'in_progress',
      created_at: new Date(),
      expires_at: run.expires_at,
    },
  ])
  if (!row) throw new Error('INSERT INTO run_steps returned no row')
  return row
}

export function stepBegins(run: RunRow, step: RunStepRow): RunEvent[] {
  const object = presentRunStep(step, [], run.expires_at)
  return [
    runEvent('thread.run.step.created', object),
    runEvent('thread.run.step.in_progress', object),
  ]
}

export async function finishStep(
  tx: Tx,
  run: RunRow,
  id: string,
  usage: Usage | null,
): Promise<RunEvent[]> {
  const [step] = await tx.sql<RunStepRow>(
    `UPDATE run_steps SET status = 'completed', completed_at = $2, usage = $3 WHERE id = $1 RETURNING *`,
    [id, new Date(), usage && JSON.stringify(usage)],
  )
  if (!step) throw new Error(`Step ${id} is gone`)
  return [runEvent('thread.run.step.completed', presentRunStep(step, [], run.expires_at))]
}

/** Keeps the calls that the model asked for, and says who has to act. The step of the calls carries the turn's usage. */
export async function keepCalls(
  tx: Tx,
  run: RunRow,
  row: TurnRow,
  stepId: RunStepRow['id'],
  end: TurnEnd,
): Promise<TurnResult> {
  await insert<ToolCallRow>(
    tx.sql,
    'tool_calls',
    end.calls.map((call, idx) => ({
      id: call.id,
      run_id: run.id,
      step_id: stepId,
      turn: row.turn,
      idx,
      type: call.type,
      name: call.name,
      arguments: call.arguments,
      output: call.output,
      runs_on: call.runsOn,
    })),
  )
  await tx.sql('UPDATE run_steps SET usage = $2 WHERE id = $1', [
    stepId,
    JSON.stringify(end.used.usage),
  ])
  if (end.incomplete) return { kind: 'ended', status: 'incomplete' }
  const open = end.calls.filter(({ output }) => output === null)
  const ours = open.filter(({ runsOn }) => runsOn === 'server')
  if (ours.length === 0 && open.length > 0) return { kind: 'requires_action', stepId }
  return {
    kind: 'tools',
    stepId,
    calls: ours.map(({ id, name }) => ({ id, name })),
    waitsForClient: ours.length < open.length,
  }
}

/** Moves the run where the turn's outcome decides it; a cancel that came first wins over everything but the end. */
export async function settleRun(
  tx: Tx,
  current: RunRow,
  outcome: TurnResult,
  end: TurnEnd,
  /** By all calls of the run, with this one. */
  used: CountedUsage,
): Promise<RunEvent[]> {
  switch (outcome.kind) {
    case 'tools':
      return []
    case 'requires_action':
      return current.status === 'cancelling' ? [] : requireAction(tx, current, outcome.stepId)
    case 'ended': {
      const status = outcome.status === 'incomplete' ? 'incomplete' : 'completed'
      const steps = end.incomplete
        ? await closeOpenSteps(tx, current, { stepStatus: 'completed', superseded: false })
        : []
      const ended = await moveRun(tx, current.id, status, {
        ...released,
        ...usageColumns(used),
        completed_at: new Date(),
        ...(end.incomplete && { incomplete_reason: end.incomplete }),
      })
      if (!ended)
        throw new Error(`Run ${current.id} may not go from ${current.status} to ${status}`)
      await handOn(tx, current, ended)
      return [...steps, runEvent(`thread.run.${status}`, presentRun(ended))]
    }
    default:
      return outcome satisfies never
  }
}
