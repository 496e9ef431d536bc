import type { ThreadRow } from '../../store/rows.ts'
import type { Thread } from '../openai.ts'
import { seconds } from '../time.ts'

export function presentThread(row: ThreadRow): Thread {
  return {
    id: row.id,
    object: 'thread',
    created_at: seconds(row.created_at),
    metadata: row.metadata,
    tool_resources: row.tool_resources,
  }
}
