import { cannotCancel } from '../wire/errors.ts'
import { runEvent } from '../wire/events.ts'
import { presentRun } from '../wire/present/run.ts'
import type { Tx } from './db.ts'
import type { EventLog } from './events.ts'
import type { RunRow } from './rows.ts'
import { endRun } from './run-end.ts'
import { enqueue, moveRun } from './run-state.ts'

/** Cancels a run that is locked; gives it as it was then, `cancelling`. Throws cannotCancel. */
export async function cancelRun(tx: Tx, log: EventLog, run: RunRow): Promise<RunRow> {
  const moved = await moveRun(tx, run.id, 'cancelling', { required_action: null })
  if (!moved) throw cannotCancel(run.status)
  await log.append(tx, run.id, [runEvent('thread.run.cancelling', presentRun(moved))])
  // A run that no worker has in hand is over at once, and needs none to be so.
  if (run.status !== 'in_progress') await endRun(tx, log, moved, { status: 'cancelled' })
  // One that waits for its thread has no workflow yet.
  if (run.holds_lock) {
    await enqueue(tx, run.id, { kind: 'cancel' })
    await log.tellControl(tx, run.id)
  }
  return moved
}
