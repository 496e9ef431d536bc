import { tooManyWaitingRuns } from '../wire/errors.ts'
import { MAX_WAITING_RUNS } from '../wire/limits.ts'
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

/** Makes way for a run on a locked thread; gives whether it has to wait. Throws tooManyWaitingRuns. */
export async function joinQueue(
  tx: Tx,
  log: EventLog,
  threadId: ThreadRow['id'],
  mode: Exclude<OnActiveRun, 'reject'>,
): Promise<boolean> {
  const waits = await makeWay(tx, log, threadId, mode)
  if (!waits) return false
  const before = await waitingRuns(tx, threadId, MAX_WAITING_RUNS)
  if (before.length === MAX_WAITING_RUNS) throw tooManyWaitingRuns(threadId, MAX_WAITING_RUNS)
  return true
}

/**
 * Does to the runs of a locked thread what `mode` says; gives whether what comes now has to wait for one of them. Everything
 * before it is cancelled where it interrupts.
 */
export async function makeWay(
  tx: Tx,
  log: EventLog,
  threadId: ThreadRow['id'],
  mode: Exclude<OnActiveRun, 'reject'>,
): Promise<boolean> {
  const holder = await lockHolder(tx, threadId)
  if (mode === 'enqueue') {
    return holder !== undefined || (await waitingRuns(tx, threadId, 1)).length > 0
  }
  // By their streams first, as everybody does: an UPDATE alone would lock in the other order.
  const waiting = await lockWaiting(tx, threadId)
  if (mode === 'rollback') {
    const before = holder ? [...waiting, holder] : waiting
    await tx.sql('UPDATE runs SET rolls_back = true WHERE id = ANY ($1::text[])', [
      before.map(({ id }) => id),
    ])
  }
  for (const run of waiting) await cancelRun(tx, log, run)
  if (!holder) return false
  if (holder.status === 'cancelling') return true
  await cancelRun(tx, log, holder)
  tx.leavesCommand(holder.id)
  // One that no worker had in hand is over at once.
  return (await lockHolder(tx, threadId)) !== undefined
}

/** The runs that wait, locked. Last come first, so that none of them is given the lock while they are cancelled. */
async function lockWaiting(tx: Tx, threadId: string): Promise<RunRow[]> {
  const locked: RunRow[] = []
  for (const id of (await waitingRuns(tx, threadId)).toReversed()) {
    const run = await lockRun(tx, id)
    // It may have been cancelled while its lock was waited for.
    if (run?.status === 'queued') locked.push(run)
  }
  return locked
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
