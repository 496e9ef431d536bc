import type { AssistantFileRow } from '../../store/rows.ts'
import { seconds } from '../time.ts'

/** Only `assistants=v1` has these, so the official package has no type for them any more. */
export interface AssistantFileObject {
  /** The id of the File. */
  id: string
  object: 'assistant.file'
  created_at: number
  assistant_id: string
}

export function presentAssistantFile(row: AssistantFileRow): AssistantFileObject {
  return {
    id: row.file_id,
    object: 'assistant.file',
    created_at: seconds(row.created_at),
    assistant_id: row.assistant_id,
  }
}
