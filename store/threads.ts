import { countCutCall } from './cut-call.ts'
import type { Db } from './db.ts'
import type { EventLog } from './events.ts'
import { rememberGone } from './gone.ts'
import type { RunRow, ThreadRow, ToolResources } from './rows.ts'
import type { Objects, Patch } from './objects.ts'
import { settleResources, type NamedResources } from './resources.ts'
import { enqueue } from './run-state.ts'
import { insertThread, lockThread, type NewMessage, type NewThread } from './thread-rows.ts'

export interface Threads extends Pick<Objects<ThreadRow>, 'get'> {
  /** Throws noSuchFile and vectorStoreNotFound. */
  create(
    projectId: ThreadRow['project_id'],
    thread: NewThread,
    messages: NewMessage[],
  ): Promise<ThreadRow>
  /** Throws noSuchFile, vectorStoreNotFound; undefined where there is no such thread. Resources replace those of the same tool. */
  modify(
    projectId: string,
    id: string,
    named: NamedResources,
    metadata: Patch<ThreadRow>['metadata'],
  ): Promise<ThreadRow | undefined>
  /** Takes everything of the thread along; a run of it that is going on stops. Throws notFound. */
  delete(projectId: string, id: string): Promise<void>
}

export function createThreads(db: Db, events: EventLog, objects: Objects<ThreadRow>): Threads {
  return {
    get: (projectId, id) => objects.get(projectId, id),
    create: (projectId, thread, messages) =>
      db.tx((tx) => insertThread(tx, projectId, thread, messages)),
    modify: (projectId, id, named, metadata) =>
      objects.modify(
        projectId,
        id,
        (before, settled: ToolResources) => ({
          tool_resources: { ...before.tool_resources, ...settled },
          metadata,
        }),
        (tx) => settleResources(tx, projectId, named),
      ),
    delete: (projectId, id) =>
      db.tx(async (tx) => {
        await lockThread(tx, projectId, id)
        // The locks of its runs come before their rows, as everywhere: a turn may be writing. In the order of the queue, as
        // a run that ends takes its own and then the next one's.
        const running = await tx.sql<RunRow>(
          `SELECT r.* FROM run_streams s JOIN runs r ON r.id = s.run_id
           WHERE r.thread_id = $1 AND s.closed_at IS NULL ORDER BY r.seq FOR UPDATE OF s, r`,
          [id],
        )
        for (const run of running) {
          // What it used until now would go with its turns.
          await countCutCall(tx, run)
          await events.tellControl(tx, run.id)
          // A run that waits for its thread has no workflow yet.
          if (!run.holds_lock) continue
          await enqueue(tx, run.id, { kind: 'cancel' })
          tx.leavesCommand(run.id)
        }
        await tx.sql(
          `WITH deleted AS (DELETE FROM threads WHERE id = $1 RETURNING *) ${rememberGone('threads')}`,
          [id],
        )
      }),
  }
}
