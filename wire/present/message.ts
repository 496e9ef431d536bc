import type { MessageRow } from '../../store/rows.ts'
import type { Message } from '../openai.ts'
import { seconds, secondsOrNull } from '../time.ts'

export function presentMessage(row: MessageRow): Message {
  return {
    id: row.id,
    object: 'thread.message',
    created_at: seconds(row.created_at),
    assistant_id: row.assistant_id,
    thread_id: row.thread_id,
    run_id: row.run_id,
    ...messageEnd(row),
    role: row.role,
    attachments: row.attachments,
    metadata: row.metadata,
  }
}

/** What the end of a message changes of it. */
export function messageEnd(
  row: Pick<
    MessageRow,
    'status' | 'incomplete_reason' | 'incomplete_at' | 'completed_at' | 'content'
  >,
) {
  return {
    status: row.status,
    // It may be known before the message ends.
    incomplete_details:
      row.status === 'incomplete' && row.incomplete_reason
        ? { reason: row.incomplete_reason as IncompleteReason }
        : null,
    incomplete_at: secondsOrNull(row.incomplete_at),
    completed_at: secondsOrNull(row.completed_at),
    // Checked at the edge, or written by us in the same shapes.
    content: row.content as Message['content'],
  } satisfies Partial<Message>
}

type IncompleteReason = Message.IncompleteDetails['reason']
