import { deltaEvent } from '../wire/deltas.ts'
import { isTerminal } from '../wire/run-status.ts'
import type { Db } from './db.ts'
import type { EventLog } from './events.ts'
import type { Json, ToolCallRow } from './rows.ts'
import { lockRun } from './run-state.ts'

/** The calls that this server carries out itself. The id of a call is the idempotency key of its execution. */
export interface ToolCalls {
  /** Takes the call for this attempt; undefined when it is gone. A call that has its output is not carried out again. */
  claim(id: string): Promise<ToolCallRow | undefined>
  /** Keeps the result; changes nothing where another attempt has taken the call over. */
  finish(call: ToolCallRow, result: ToolResult): Promise<void>
}

export interface ToolResult {
  /** What the model is told. */
  output: string
  /** What the run step shows. */
  outputs: Json[]
}

export function createToolCalls(db: Db, events: EventLog): ToolCalls {
  return {
    async claim(id) {
      const [call] = await db.sql<ToolCallRow>(
        'UPDATE tool_calls SET fence = fence + 1 WHERE id = $1 RETURNING *',
        [id],
      )
      return call
    },
    finish: (call, { output, outputs }) =>
      db.tx(async (tx) => {
        const run = await lockRun(tx, call.run_id)
        const kept = await tx.sql(
          `UPDATE tool_calls SET output = $3, outputs = $4
           WHERE id = $1 AND fence = $2 AND output IS NULL RETURNING id`,
          [call.id, call.fence, output, JSON.stringify(outputs)],
        )
        if (!run || isTerminal(run.status) || kept.length === 0 || outputs.length === 0) return
        const delta = { of: 'outputs', stepId: call.step_id, index: call.idx, outputs } as const
        await events.append(tx, run.id, [deltaEvent(delta)])
      }),
  }
}
