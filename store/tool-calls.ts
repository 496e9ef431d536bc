import type { Db } from './db.ts'
import type { Json, ToolCallRow } from './rows.ts'

/** The calls that this server carries out itself. The id of a call is the idempotency key of its execution. */
export interface ToolCalls {
  /** Takes the call for this attempt; undefined when it is gone. A call that has its output is not carried out again. */
  claim(id: string): Promise<ToolCallRow | undefined>
  /** Keeps the result; changes nothing where another attempt has taken the call over. */
  finish(call: Pick<ToolCallRow, 'id' | 'fence'>, result: ToolResult): Promise<void>
}

export interface ToolResult {
  /** What the model is told. */
  output: string
  /** What the run step shows. */
  outputs: Json[]
}

export function createToolCalls(db: Db): ToolCalls {
  return {
    async claim(id) {
      const [call] = await db.sql<ToolCallRow>(
        'UPDATE tool_calls SET fence = fence + 1 WHERE id = $1 RETURNING *',
        [id],
      )
      return call
    },
    async finish({ id, fence }, { output, outputs }) {
      await db.sql(
        `UPDATE tool_calls SET output = $3, outputs = $4 WHERE id = $1 AND fence = $2 AND output IS NULL`,
        [id, fence, output, JSON.stringify(outputs)],
      )
    },
  }
}
