import type {
  MessageRow,
  RunRow,
  RunStepRow,
  ThreadRow,
  ToolCallRow,
  VectorStoreFileRow,
  VectorStoreRow,
} from '../../store/rows.ts'
import { seconds } from '../time.ts'
import { presentMessage } from './message.ts'
import { presentRunStep } from './run-step.ts'
import { presentRun, type RunObject } from './run.ts'
import { presentThread } from './thread.ts'

/** What an export's lines hold where no endpoint answers with just that. A thread's line is put together from these two. */
export const exportedThread = (row: ThreadRow): string => JSON.stringify(presentThread(row))
export const exportedMessage = (row: MessageRow): string => JSON.stringify(presentMessage(row))

export type ExportedRun = RunObject & { steps: object[] }

export function exportedRun(
  row: RunRow,
  steps: { step: RunStepRow; calls: ToolCallRow[] }[],
): ExportedRun {
  return {
    ...presentRun(row),
    steps: steps.map(({ step, calls }) => presentRunStep(step, calls, null)),
  }
}

export function exportedVectorStore(row: VectorStoreRow): object {
  return {
    id: row.id,
    object: 'vector_store',
    created_at: seconds(row.created_at),
    name: row.name,
    description: row.description,
    metadata: row.metadata,
    expires_after:
      row.expires_after_days === null
        ? null
        : { anchor: 'last_active_at', days: row.expires_after_days },
    last_active_at: seconds(row.last_active_at),
  }
}

export function exportedVectorStoreFile(row: VectorStoreFileRow): object {
  return {
    id: row.file_id,
    object: 'vector_store.file',
    created_at: seconds(row.created_at),
    vector_store_id: row.vector_store_id,
    status: row.status,
    attributes: row.attributes,
    chunking_strategy: row.chunking_strategy,
  }
}
