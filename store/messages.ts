import { threadLockedForMessage } from '../wire/errors.ts'
import type { Db, Tx } from './db.ts'
import type { MessageRow, OnActiveRun, ProjectRow, RunRow, ThreadRow, ToolCallRow } from './rows.ts'
import { lockHolder } from './run-queue.ts'
import { addMessages, lockedThread, type NewMessage } from './thread-rows.ts'

export interface Messages {
  /**
   * Where the thread is busy the message is held back, or rejected, as `onActiveRun` says, or else the project. Throws
   * notFound(thread), noSuchFile and threadLockedForMessage.
   */
  create(
    projectId: string,
    threadId: string,
    message: NewMessage,
    onActiveRun: OnActiveRun | null,
  ): Promise<MessageRow>
  /** The newest messages of a run's thread that a model may be shown, oldest first, up to `limit`. */
  newest(run: Pick<RunRow, 'thread_id' | 'id'>, limit: number): Promise<MessageRow[]>
  /** What the run itself has written and called so far, in order. */
  ofRun(runId: string): Promise<{ messages: MessageRow[]; calls: ToolCallRow[] }>
}

export function createMessages(db: Db): Messages {
  return {
    create: (projectId, threadId, message, onActiveRun) =>
      db.tx(async (tx) => {
        const thread = await lockedThread(tx, projectId, threadId, [message])
        const held = await isBusy(tx, thread, onActiveRun)
        const {
          messages: [row],
        } = await addMessages(tx, thread, [message], { held })
        if (!row) throw new Error('INSERT INTO messages returned no row')
        return row
      }),
    async newest(run, limit) {
      const rows = await db.sql<MessageRow>(
        `SELECT * FROM messages WHERE thread_id = $1 AND run_id IS DISTINCT FROM $2
           AND NOT superseded AND NOT held AND status <> 'in_progress'
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

/** Whether a run has the thread, whose end a message then waits for. Throws threadLockedForMessage where it may not. */
async function isBusy(
  tx: Tx,
  thread: ThreadRow,
  onActiveRun: OnActiveRun | null,
): Promise<boolean> {
  const [active] = await tx.sql<Pick<RunRow, 'id'> & Pick<ProjectRow, 'on_active_run'>>(
    `SELECT r.id, p.on_active_run FROM runs r JOIN projects p ON p.id = r.project_id
     WHERE r.thread_id = $1 AND r.holds_lock`,
    [thread.id],
  )
  if (!active) return false
  const mode = onActiveRun ?? active.on_active_run ?? 'reject'
  if (mode === 'reject') throw threadLockedForMessage(thread.id, active.id)
  return (await lockHolder(tx, thread.id)) !== undefined
}
