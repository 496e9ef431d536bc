import type { MessageRow } from '../../store/rows.ts'
import { messageFileIds } from '../dialect.ts'
import { seconds } from '../time.ts'

/** Only `assistants=v1` has these, so the official package has no type for them any more. */
export interface MessageFileObject {
  /** The id of the File. */
  id: string
  object: 'thread.message.file'
  created_at: number
  message_id: string
}

/** Files are attached when their message is made, and never after. */
export function presentMessageFiles(row: MessageRow): MessageFileObject[] {
  return messageFileIds(row.attachments).map((id) => ({
    id,
    object: 'thread.message.file',
    created_at: seconds(row.created_at),
    message_id: row.id,
  }))
}
