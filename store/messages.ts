import { threadLockedForMessage } from '../wire/errors.ts'
import type { Db, Tx } from './db.ts'
import type { EventLog } from './events.ts'
import type { MessageRow, OnActiveRun, RunRow, ThreadRow } from './rows.ts'
import { makeWay } from './run-queue.ts'
import { addMessages, lockedThread, type NewMessage } from './thread-rows.ts'

export interface Messages {
  /**
   * Where the thread is busy `onActiveRun` says what is done, or else the assistant of the run that has the thread, or else
   * the project: the message is rejected, or runs are cancelled, and what it still has to wait for holds it back. Throws
   * notFound(thread), noSuchFile and threadLockedForMessage.
   */
  create(
    projectId: string,
    threadId: string,
    message: NewMessage,
    onActiveRun: OnActiveRun | null,
  ): Promise<MessageRow>
}

export function createMessages(db: Db, log: EventLog): Messages {
  return {
    create: (projectId, threadId, message, onActiveRun) =>
      db.tx(async (tx) => {
        const thread = await lockedThread(tx, projectId, threadId, [message])
        const held = await hasToWait(tx, log, thread, onActiveRun)
        const {
          messages: [row],
        } = await addMessages(tx, thread, [message], { held })
        if (!row) throw new Error('INSERT INTO messages returned no row')
        return row
      }),
  }
}

/** Whether the message has to wait for the end of a run, once way has been made for it. Throws threadLockedForMessage. */
async function hasToWait(
  tx: Tx,
  log: EventLog,
  thread: ThreadRow,
  onActiveRun: OnActiveRun | null,
): Promise<boolean> {
  const [active] = await tx.sql<Pick<RunRow, 'id'> & { mode: OnActiveRun | null }>(
    `SELECT r.id, coalesce(a.on_active_run, p.on_active_run) AS mode
     FROM runs r JOIN projects p ON p.id = r.project_id LEFT JOIN assistants a ON a.id = r.assistant_id
     WHERE r.thread_id = $1 AND r.holds_lock`,
    [thread.id],
  )
  if (!active) return false
  const mode = onActiveRun ?? active.mode ?? 'reject'
  if (mode === 'reject') throw threadLockedForMessage(thread.id, active.id)
  return makeWay(tx, log, thread.id, mode)
}
