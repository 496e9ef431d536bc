import { outputsDoNotMatch, outputsNotAccepted } from '../wire/errors.ts'
import { runEvent, type RunEvent } from '../wire/events.ts'
import { presentRun } from '../wire/present/run.ts'
import type { Tx } from './db.ts'
import type { EventLog } from './events.ts'
import type { RunRow, RunStepRow, ToolCallRow } from './rows.ts'
import { completeStep, enqueue, moveRun } from './run-state.ts'

export interface ToolOutput {
  tool_call_id: string
  output: string
}

/** Hands the run to the client: it waits for the outputs of the step's function calls. */
export async function requireAction(
  tx: Tx,
  run: RunRow,
  stepId: RunStepRow['id'],
): Promise<RunEvent[]> {
  const calls = await tx.sql<ToolCallRow>(
    `SELECT * FROM tool_calls WHERE step_id = $1 AND runs_on = 'client' AND output IS NULL ORDER BY idx`,
    [stepId],
  )
  const moved = await moveRun(tx, run.id, 'requires_action', {
    required_action: {
      step_id: stepId,
      tool_calls: calls.map(({ id, name, arguments: args }) => ({
        id,
        type: 'function',
        function: { name, arguments: args },
      })),
    },
  })
  return moved ? [runEvent('thread.run.requires_action', presentRun(moved))] : []
}

/** Whether these outputs were handed in by a request whose answer was lost; its events begin with the end of their step. */
export async function submittedBefore(
  tx: Tx,
  run: RunRow,
  outputs: ToolOutput[],
): Promise<{ run: RunRow; after: number } | undefined> {
  const [known] = await tx.sql<{ n: number; step_id: string }>(
    `SELECT count(*)::integer AS n, min(t.step_id) AS step_id FROM tool_calls t
     JOIN unnest($2::text[], $3::text[]) AS o (id, output) ON o.id = t.id AND o.output = t.output
     WHERE t.run_id = $1`,
    [run.id, outputs.map((one) => one.tool_call_id), outputs.map(({ output }) => output)],
  )
  if (!known || known.n === 0 || known.n < outputs.length) return undefined
  const [ended] = await tx.sql<{ seq: number }>(
    `SELECT seq FROM run_events WHERE run_id = $1 AND event = 'thread.run.step.completed'
       AND data::jsonb ->> 'id' = $2`,
    [run.id, known.step_id],
  )
  return ended && { run, after: ended.seq - 1 }
}

export async function submitOutputs(
  tx: Tx,
  log: EventLog,
  run: RunRow,
  outputs: ToolOutput[],
): Promise<{ run: RunRow; after: number }> {
  const pending = run.required_action
  if (run.status !== 'requires_action' || !pending) throw outputsNotAccepted(run.status)
  const expected = pending.tool_calls.map(({ id }) => id as string)
  const got = outputs.map(({ tool_call_id }) => tool_call_id)
  if (JSON.stringify(expected.toSorted()) !== JSON.stringify(got.toSorted())) {
    throw outputsDoNotMatch(expected, got)
  }

  await tx.sql(
    `UPDATE tool_calls t SET output = o.output FROM unnest($2::text[], $3::text[]) AS o (id, output)
     WHERE t.step_id = $1 AND t.id = o.id`,
    [pending.step_id, got, outputs.map(({ output }) => output)],
  )
  const [stream] = await tx.sql<{ last_seq: number }>(
    'SELECT last_seq FROM run_streams WHERE run_id = $1',
    [run.id],
  )
  const completed = await completeStep(tx, run, pending.step_id)
  const moved = await moveRun(tx, run.id, 'queued', { required_action: null })
  if (!moved) throw outputsNotAccepted(run.status)
  await log.append(tx, run.id, [...completed, runEvent('thread.run.queued', presentRun(moved))])
  await enqueue(tx, run.id, { kind: 'tool_outputs', stepId: pending.step_id })
  return { run: moved, after: stream?.last_seq ?? 0 }
}
