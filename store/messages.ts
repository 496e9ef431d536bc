import { threadLockedForMessage } from '../wire/errors.ts'
import type { Db } from './db.ts'
import type { MessageRow, RunRow, ToolCallRow } from './rows.ts'
import { addMessages, lockedThread, type NewMessage } from './thread-rows.ts'

export interface Messages {
  /** Throws notFound(thread), noSuchFile and threadLockedForMessage. */
  create(projectId: string, threadId: string, message: NewMessage): Promise<MessageRow>
  /** The newest messages of a run's thread that a model may be shown, oldest first, up to `limit`. */
  newest(run: Pick<RunRow, 'thread_id' | 'id'>, limit: number): Promise<MessageRow[]>
  /** What the run itself has written and called so far, in order. */
  ofRun(runId: string): Promise<{ messages: MessageRow[]; calls: ToolCallRow[] }>
}

export function createMessages(db: Db): Messages {
  return {
    create: (projectId, threadId, message) =>
      db.tx(async (tx) => {
        const thread = await lockedThread(tx, projectId, threadId, [message])
        const [active] = await tx.sql<RunRow>(
          'SELECT id FROM runs WHERE thread_id = $1 AND holds_lock',
          [threadId],
        )
        if (active) throw threadLockedForMessage(threadId, active.id)
        const {
          messages: [row],
        } = await addMessages(tx, thread, [message])
        if (!row) throw new Error('INSERT INTO messages returned no row')
        return row
      }),
    async newest(run, limit) {
      const rows = await db.sql<MessageRow>(
        `SELECT * FROM messages WHERE thread_id = $1 AND run_id IS DISTINCT FROM $2
           AND NOT superseded AND status <> 'in_progress'
         ORDER BY seq DESC LIMIT $3`,
        [run.thread_id, run.id, limit],
      )
      return rows.toReversed()
    },
    async ofRun(runId) {
      const messages = await db.sql<MessageRow>(
        `SELECT * FROM messages WHERE run_id = $1 AND NOT superseded AND status <> 'in_progress' ORDER BY seq`,
        [runId],
      )
      const calls = await db.sql<ToolCallRow>(
        `SELECT c.* FROM tool_calls c JOIN run_steps s ON s.id = c.step_id
         WHERE c.run_id = $1 AND NOT s.superseded ORDER BY c.turn, c.idx`,
        [runId],
      )
      return { messages, calls }
    },
  }
}
