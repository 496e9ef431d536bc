import type { Db } from './db.ts'
import type { EventLog } from './events.ts'
import type { RunRow, ThreadRow } from './rows.ts'
import { insertMessages, lockThread, type NewMessage, type NewThread } from './runs.ts'
import { insert } from './sql.ts'

export interface Threads {
  create(
    projectId: ThreadRow['project_id'],
    thread: NewThread,
    messages: NewMessage[],
  ): Promise<ThreadRow>
  /** Takes everything of the thread along; a run of it that is going on stops. Throws notFound. */
  delete(projectId: string, id: string): Promise<void>
}

export function createThreads(db: Db, events: EventLog): Threads {
  return {
    create: (projectId, thread, messages) =>
      db.tx(async (tx) => {
        const [row] = await insert<ThreadRow>(tx.sql, 'threads', [
          { ...thread, project_id: projectId },
        ])
        if (!row) throw new Error('INSERT INTO threads returned no row')
        await insertMessages(tx.sql, projectId, thread.id, messages)
        return row
      }),
    delete: (projectId, id) =>
      db.tx(async (tx) => {
        await lockThread(tx, projectId, id)
        // The locks of its runs come before their rows, as everywhere: a turn may be writing.
        const running = await tx.sql<Pick<RunRow, 'id'>>(
          `SELECT s.run_id AS id FROM run_streams s JOIN runs r ON r.id = s.run_id
           WHERE r.thread_id = $1 AND NOT s.closed ORDER BY s.run_id FOR UPDATE OF s`,
          [id],
        )
        for (const run of running) await events.tellControl(tx, run.id)
        await tx.sql('DELETE FROM threads WHERE id = $1', [id])
      }),
  }
}
