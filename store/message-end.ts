import { contentOf } from '../wire/deltas.ts'
import { runEvent, type RunEvent } from '../wire/events.ts'
import type { Message } from '../wire/openai.ts'
import { messageEnd, presentMessage } from '../wire/present/message.ts'
import type { Tx } from './db.ts'
import type { ContentPart, MessageRow } from './rows.ts'

/**
 * Ends a message that a model has written; with a reason where it is incomplete, unless it has one of its own. Returns the
 * event that says so.
 */
export async function endMessage(
  tx: Tx,
  runId: string,
  id: string,
  how: { content: ContentPart[]; incompleteReason: string | null; superseded?: boolean },
): Promise<RunEvent> {
  const now = new Date()
  const end = {
    status: how.incompleteReason ? 'incomplete' : 'completed',
    content: how.content,
    incomplete_reason: how.incompleteReason,
    completed_at: how.incompleteReason ? null : now,
    incomplete_at: how.incompleteReason ? now : null,
  } as const
  const [row] = await tx.sql<MessageRow>(
    `UPDATE messages SET status = $2, content = $3, completed_at = $5,
       incomplete_reason = CASE WHEN $4::text IS NOT NULL THEN coalesce(incomplete_reason, $4) END, incomplete_at = $6, superseded = $7 WHERE id = $1 RETURNING *`,
    [
      id,
      end.status,
      JSON.stringify(end.content),
      end.incomplete_reason,
      end.completed_at,
      end.incomplete_at,
      how.superseded ?? false,
    ],
  )
  // A client may delete it while it is written: whoever follows the run still learns how it ended.
  const message = row
    ? presentMessage(row)
    : { ...(await openMessageOf(tx, runId)), ...messageEnd(end) }
  return runEvent(`thread.message.${end.status}`, message)
}

/** Closes the message that a run was writing, if there is one. Its text is what the log shows, since its writer may be gone. */
export async function closeOpenMessage(
  tx: Tx,
  runId: string,
  how: { incompleteReason: string; superseded: boolean },
): Promise<RunEvent[]> {
  const message = await openMessageOf(tx, runId)
  if (!message) return []
  const deltas = await tx.sql<{ data: string }>(
    `SELECT data FROM run_events WHERE run_id = $1 AND event = 'thread.message.delta'
       AND seq > (SELECT max(seq) FROM run_events WHERE run_id = $1 AND event = 'thread.message.created')
     ORDER BY seq`,
    [runId],
  )
  return [await endMessage(tx, runId, message.id, { content: contentOf(deltas), ...how })]
}

/** As it was when it began. The log knows it, also where a client has deleted it since. */
async function openMessageOf(tx: Tx, runId: string): Promise<Message | undefined> {
  const [newest] = await tx.sql<{ event: string; data: string }>(
    `SELECT event, data FROM run_events WHERE run_id = $1
       AND event IN ('thread.message.created', 'thread.message.completed', 'thread.message.incomplete')
     ORDER BY seq DESC LIMIT 1`,
    [runId],
  )
  // What we have written there ourselves.
  return newest?.event === 'thread.message.created'
    ? (JSON.parse(newest.data) as Message)
    : undefined
}
