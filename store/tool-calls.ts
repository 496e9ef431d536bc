import { randomUUID } from 'node:crypto'

import { deltaEvent } from '../wire/deltas.ts'
import { idFrom } from '../wire/ids.ts'
import { isTerminal } from '../wire/run-status.ts'
import type { BlobLedger, Written } from './blob-ledger.ts'
import type { Db, Tx } from './db.ts'
import type { EventLog } from './events.ts'
import { createFile } from './files.ts'
import type { BegunCode, CodeFileRef, Json, RunRow, ToolCallRow } from './rows.ts'
import { lockRun } from './run-state.ts'
import { outlasting } from './turn-tx.ts'

/** The calls that this server carries out itself. The id of a call is the idempotency key of its execution. */
export interface ToolCalls {
  /** Takes the call for this attempt; undefined when it is gone. A call that has its output is not carried out again. */
  claim(id: string): Promise<{ call: ToolCallRow; run: RunRow } | undefined>
  /** Notes that the code of the call begins; false where another attempt has taken the call over, or it has its output. */
  begin(call: ToolCallRow, where: BegunCode): Promise<boolean>
  /** Keeps the result; false, and nothing is changed, where another attempt has taken the call over. */
  finish(call: ToolCallRow, result: ToolResult): Promise<boolean>
}

export interface ToolResult {
  /** What the model is told. */
  output: string
  /** What the run step shows. */
  outputs: ToolOutputPart[]
  /** What the code has written to /mnt/data: it becomes Files along with the result. */
  files?: NewCodeFile[]
  /** Paths under /mnt/data where earlier code had written, and nothing is any more. */
  removed?: string[]
}

/** An image becomes a File as well. */
export type ToolOutputPart =
  | { type: 'logs'; logs: string }
  | { type: 'image'; filename: string; mimeType: string; written: Written }

export interface NewCodeFile {
  /** Under /mnt/data. */
  path: string
  written: Written
}

export function createToolCalls(db: Db, events: EventLog, ledger: BlobLedger): ToolCalls {
  return {
    async claim(id) {
      const [call] = await db.sql<ToolCallRow>(
        'UPDATE tool_calls SET fence = fence + 1 WHERE id = $1 RETURNING *',
        [id],
      )
      const [run] = await db.sql<RunRow>('SELECT * FROM runs WHERE id = $1', [call?.run_id])
      return call && run && { call, run }
    },
    async begin(call, where) {
      const [begun] = await db.sql(
        'UPDATE tool_calls SET begun = $3 WHERE id = $1 AND fence = $2 AND output IS NULL RETURNING id',
        [call.id, call.fence, JSON.stringify(where)],
      )
      return begun !== undefined
    },
    finish: (call, result) =>
      // A commit that was not heard of is recognised by the output that is there.
      outlasting(events, call.run_id, () =>
        db.tx(async (tx) => {
          const run = await lockRun(tx, call.run_id)
          const [mine] = await tx.sql<Pick<ToolCallRow, 'output'>>(
            'SELECT output FROM tool_calls WHERE id = $1 AND fence = $2 FOR UPDATE',
            [call.id, call.fence],
          )
          if (!run || !mine) return false
          // Nobody else can have written it under this fence.
          if (mine.output !== null) return true
          const outputs: Json[] = []
          for (const part of result.outputs) outputs.push(await keptOutput(tx, ledger, run, part))
          const files: CodeFileRef[] = []
          for (const file of result.files ?? []) files.push(await keptFile(tx, ledger, run, file))
          await tx.sql(
            'UPDATE tool_calls SET output = $2, outputs = $3, files = $4 WHERE id = $1',
            [call.id, result.output, JSON.stringify(outputs), JSON.stringify(files)],
          )
          if (isTerminal(run.status) || outputs.length === 0) return true
          const delta = { of: 'outputs', stepId: call.step_id, index: call.idx, outputs } as const
          await events.append(tx, run.id, [deltaEvent(delta)])
          return true
        }),
      ),
  }
}

async function keptOutput(
  tx: Tx,
  ledger: BlobLedger,
  run: RunRow,
  part: ToolOutputPart,
): Promise<Json> {
  if (part.type === 'logs') return { ...part }
  const { id } = await createOutputFile(tx, ledger, run, part)
  return { type: 'image', image: { file_id: id } }
}

async function keptFile(
  tx: Tx,
  ledger: BlobLedger,
  run: RunRow,
  { path, written }: NewCodeFile,
): Promise<CodeFileRef> {
  const filename = path.split('/').at(-1) ?? path
  const { id } = await createOutputFile(tx, ledger, run, { filename, mimeType: null, written })
  await tx.sql(
    `INSERT INTO sandbox_files (thread_id, path, file_id, digest) VALUES ($1, $2, $3, $4)
     ON CONFLICT (thread_id, path) DO UPDATE SET file_id = $3, digest = $4`,
    [run.thread_id, path, id, written.digest],
  )
  return { path, file_id: id }
}

function createOutputFile(
  tx: Tx,
  ledger: BlobLedger,
  { project_id }: RunRow,
  { filename, mimeType, written }: { filename: string; mimeType: string | null; written: Written },
) {
  const file = {
    id: idFrom('file', randomUUID()),
    project_id,
    filename,
    purpose: 'assistants_output',
    mime_type: mimeType,
    expiresAfterS: null,
  }
  return createFile(tx, ledger, file, written)
}
