import type { Tx } from './db.ts'
import type { EventLog } from './events.ts'
import type { OnActiveRun, RunRow, ThreadRow } from './rows.ts'
import { cancelRun } from './run-cancel.ts'
import { waitingRuns } from './run-handover.ts'
import { lockRun } from './run-state.ts'

/**
 * The queue of a thread: one run holds the thread's lock, others wait for it in the order in which they came. Locks are
 * taken in this order: thread, holder, those that wait. The end of a run takes no thread, so whoever wants to wait for it
 * locks it first, and sees whether it has ended.
 */

/**
 * Makes room for a run on a locked thread, as `mode` says; gives whether the run has to wait. Everything before it is
 * cancelled where it interrupts.
 */
export async function joinQueue(
  tx: Tx,
  log: EventLog,
  threadId: ThreadRow['id'],
  mode: Exclude<OnActiveRun, 'reject'>,
): Promise<boolean> {
  const holder = await lockHolder(tx, threadId)
  const interrupts = mode !== 'enqueue'
  // Last come first, so that none of them is given the lock on the way.
  const waiting = (await waitingRuns(tx, threadId)).toReversed()
  if (!interrupts) return holder !== undefined || waiting.length > 0

  // By their streams first, as everybody does: an UPDATE alone would lock in the other order.
  for (const id of waiting) await lockRun(tx, id)
  if (mode === 'rollback') {
    await tx.sql('UPDATE runs SET rolls_back = true WHERE id = ANY ($1::text[])', [
      [...waiting, ...(holder ? [holder.id] : [])],
    ])
  }
  for (const id of waiting) {
    const run = await lockRun(tx, id)
    if (run?.status === 'queued') await cancelRun(tx, log, run)
  }
  const run = holder && (await lockRun(tx, holder.id))
  if (!run) return false
  if (run.status === 'cancelling') return true
  await cancelRun(tx, log, run)
  tx.leavesCommand(run.id)
  // One that no worker had in hand is over at once.
  return (await lockHolder(tx, threadId)) !== undefined
}

/** The run that has the thread's lock, itself locked: it does not end while the transaction lasts. */
export async function lockHolder(tx: Tx, threadId: string): Promise<RunRow | undefined> {
  for (;;) {
    const [found] = await tx.sql<Pick<RunRow, 'id'>>(
      'SELECT id FROM runs WHERE thread_id = $1 AND holds_lock',
      [threadId],
    )
    if (!found) return undefined
    const run = await lockRun(tx, found.id)
    // It may have ended while its lock was waited for, and handed the thread on.
    if (run?.holds_lock) return run
  }
}
