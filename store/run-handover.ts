import type { Tx } from './db.ts'
import { rememberGone } from './gone.ts'
import type { RunRow, ThreadRow } from './rows.ts'
import { enqueue, lockRun, type MovedRun } from './run-state.ts'

/** To be called where a run has ended, with the run as it was before and as it is: hands its thread to the next one. */
export async function handOn(tx: Tx, before: RunRow, ended: MovedRun): Promise<void> {
  if (ended.rolls_back) await rollBack(tx, ended.id)
  if (before.holds_lock && ended.has_queue) await promoteNext(tx, ended.thread_id)
}

/** Gives the free lock of a thread to the run that has waited longest, and lets go the messages that were held for it. */
export async function promoteNext(tx: Tx, threadId: ThreadRow['id']): Promise<void> {
  for (;;) {
    const [id] = await waitingRuns(tx, threadId, 1)
    if (!id) break
    const next = await lockRun(tx, id)
    // It may have been cancelled while its lock was waited for.
    if (next?.status !== 'queued' || next.holds_lock) continue
    // A thread that was empty then has nothing that the run is to see.
    await releaseMessages(tx, threadId, next.messages_until ?? '0')
    // Its deadline begins now: the time in the queue is not its own.
    await tx.sql(
      `UPDATE runs SET holds_lock = true, expires_at = clock_timestamp() + (expires_at - created_at)
       WHERE id = $1`,
      [id],
    )
    await enqueue(tx, id, { kind: 'start' })
    tx.leavesCommand(id)
    return
  }
  await releaseMessages(tx, threadId, null)
}

/** The ids of the runs that wait for a thread, in their order. */
export async function waitingRuns(
  tx: Tx,
  threadId: string,
  limit?: number,
): Promise<RunRow['id'][]> {
  const rows = await tx.sql<Pick<RunRow, 'id'>>(
    `SELECT id FROM runs WHERE thread_id = $1 AND status = 'queued' AND NOT holds_lock ORDER BY seq LIMIT $2`,
    [threadId, limit ?? null],
  )
  return rows.map(({ id }) => id)
}

/**
 * Moves messages that were held back, up to `until` or all of them, to the end of the thread; and among them the places of
 * those that were deleted, from which lists still go on.
 */
async function releaseMessages(tx: Tx, threadId: string, until: string | null): Promise<void> {
  await tx.sql(
    `WITH places AS (
       SELECT id, nextval(pg_get_serial_sequence('messages', 'seq')) AS seq FROM (
         SELECT id, seq FROM messages WHERE thread_id = $1 AND held AND ($2::bigint IS NULL OR seq <= $2)
         UNION ALL
         SELECT id, seq FROM gone WHERE list = 'messages ' || $1 AND seq > (1::bigint << 61)
           AND ($2::bigint IS NULL OR seq <= $2)
         ORDER BY seq
       ) held
     ), gone_places AS (
       UPDATE gone g SET seq = p.seq FROM places p WHERE g.id = p.id AND g.seq > (1::bigint << 61)
     )
     UPDATE messages m SET held = false, seq = p.seq FROM places p WHERE m.id = p.id AND m.held`,
    [threadId, until],
  )
}

/** What it wrote, and what came with it. */
async function rollBack(tx: Tx, runId: string): Promise<void> {
  await tx.sql(
    `WITH deleted AS (DELETE FROM messages WHERE run_id = $1 OR came_with = $1 RETURNING *) ${rememberGone('messages')}`,
    [runId],
  )
}
