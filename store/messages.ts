import { threadLockedForMessage } from '../wire/errors.ts'
import type { Db, Tx } from './db.ts'
import type { MessageRow, OnActiveRun, ProjectRow, RunRow, ThreadRow } from './rows.ts'
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
