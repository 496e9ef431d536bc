import type { Logger } from '../log.ts'
import { notFound, threadLockedForRun } from '../wire/errors.ts'
import { isTerminal, type RunStatus } from '../wire/run-status.ts'
import { isPassing, type Db, type Tx } from './db.ts'
import type { EventLog } from './events.ts'
import type { RunRow, ThreadRow } from './rows.ts'
import { createRun, isLockViolation, type CreatedRun, type NewRun } from './run-create.ts'
import { cancelRun } from './run-cancel.ts'
import { endBare, endRun, inFull, type RunEnd } from './run-end.ts'
import { promoteNext } from './run-handover.ts'
import { lockHolder } from './run-queue.ts'
import { lockRun } from './run-state.ts'
import type { NewMessage, NewThread } from './thread-rows.ts'
import { submitOutputs, submittedBefore, type ToolOutput } from './tool-outputs.ts'

export interface Runs {
  /**
   * Adds the messages and the run to a thread, which is created first when it is given whole: rows, events and the start
   * command in one transaction; the command is returned, to be delivered at once. A run that waits for its thread has none
   * yet. Throws notFound(thread | assistant), noSuchFile, vectorStoreNotFound, threadLockedForRun and tooManyWaitingRuns.
   */
  create(
    run: NewRun,
    thread: NewThread | ThreadRow['id'],
    messages: NewMessage[],
  ): Promise<CreatedRun>
  /**
   * Hands in the outputs of the run's pending calls; all of them at once. The events it causes start after `after`. Where the
   * request `isRepeated`, outputs that are there already are no error; the same is true of a run that is cancelled already.
   */
  submitOutputs(
    key: RunKey,
    outputs: ToolOutput[],
    isRepeated: boolean,
  ): Promise<{ run: RunRow; after: number }>
  requestCancel(key: RunKey, isRepeated: boolean): Promise<RunRow>
  /**
   * Ends a run, its open step and its open message; changes nothing when it has ended already. Gives the status that it has
   * then, and nothing when the run is gone.
   */
  end(runId: string, how: RunEnd): Promise<RunStatus | undefined>
  /** Runs that are not terminal although their deadline has passed by `graceMs`. */
  overdue(graceMs: number): Promise<Pick<RunRow, 'id' | 'status'>[]>
  /** The ids of the runs that are not terminal and older than `ageMs`, with nothing on its way to Temporal for them. */
  openIds(ageMs: number): Promise<RunRow['id'][]>
  /** Gives free locks to runs that wait for them; there are none, unless somebody has changed rows by hand. */
  promoteStranded(): Promise<number>
  /** The run, unless it has ended or something is on its way to Temporal for it. */
  openRun(id: string): Promise<RunRow | undefined>
}

export interface RunKey {
  projectId: string
  threadId: string
  runId: string
}

export function createRuns(db: Db, events: EventLog, log: Logger): Runs {
  return {
    async create(run, thread, messages) {
      try {
        return await db.tx((tx) => createRun(tx, events, run, thread, messages))
      } catch (error) {
        if (typeof thread !== 'string' || !isLockViolation(error)) throw error
        const [active] = await db.sql<RunRow>(
          'SELECT id FROM runs WHERE thread_id = $1 AND holds_lock',
          [thread],
        )
        // It may have ended in between; the answer is about the moment of the request.
        throw threadLockedForRun(thread, active?.id ?? 'which has just ended')
      }
    },
    submitOutputs: (key, outputs, isRepeated) =>
      db.tx(async (tx) => {
        const run = await lockRunOf(tx, key)
        const before = isRepeated ? await submittedBefore(tx, run, outputs) : undefined
        return before ?? submitOutputs(tx, events, run, outputs)
      }),
    requestCancel: (key, isRepeated) =>
      db.tx(async (tx) => {
        const run = await lockRunOf(tx, key)
        if (run.status === 'cancelling' || (isRepeated && run.status === 'cancelled')) return run
        return cancelRun(tx, events, run)
      }),
    async end(runId, how) {
      const end = (act: (tx: Tx, run: RunRow) => Promise<RunRow>) =>
        db.tx(async (tx) => {
          const run = await lockRun(tx, runId)
          return !run || isTerminal(run.status) ? run : act(tx, run)
        })
      const ended = await end(async (tx, run) =>
        endRun(tx, events, run, await inFull(tx, runId, how)),
      ).catch((error: unknown) => {
        if (isPassing(error)) throw error
        log.error({ err: error, run_id: runId }, 'a run could not be ended in order')
        const reason = error instanceof Error ? error.message : String(error)
        return end((tx, run) => endBare(tx, events, run, reason))
      })
      if (ended) log.info({ run_id: runId, status: ended.status }, 'the run has ended')
      return ended?.status
    },
    overdue: (graceMs) =>
      db.sql(
        `SELECT id, status FROM runs WHERE status IN ('queued', 'in_progress', 'requires_action', 'cancelling')
           AND holds_lock AND expires_at < now() - $1 * interval '1 millisecond'
         ORDER BY expires_at LIMIT 500`,
        [graceMs],
      ),
    async openIds(ageMs) {
      const rows = await db.sql<Pick<RunRow, 'id'>>(
        `SELECT id FROM runs r WHERE ${isOpen} AND created_at < now() - $1 * interval '1 millisecond'
         ORDER BY seq`,
        [ageMs],
      )
      return rows.map(({ id }) => id)
    },
    async openRun(id) {
      const [row] = await db.sql<RunRow>(`SELECT * FROM runs r WHERE ${isOpen} AND id = $1`, [id])
      return row
    },
    async promoteStranded() {
      const threads = await db.sql<Pick<ThreadRow, 'id'>>(
        `SELECT DISTINCT thread_id AS id FROM runs w WHERE status = 'queued' AND NOT holds_lock
           AND NOT EXISTS (SELECT FROM runs h WHERE h.thread_id = w.thread_id AND h.holds_lock) LIMIT 100`,
      )
      for (const { id } of threads) {
        await db.tx(async (tx) => {
          await tx.sql('SELECT FROM threads WHERE id = $1 FOR NO KEY UPDATE', [id])
          if (!(await lockHolder(tx, id))) await promoteNext(tx, id)
        })
      }
      return threads.length
    },
  }
}

const isOpen = `status IN ('queued', 'in_progress', 'requires_action', 'cancelling') AND holds_lock
  AND NOT EXISTS (SELECT FROM outbox o WHERE o.run_id = r.id)`

async function lockRunOf(tx: Tx, { projectId, threadId, runId }: RunKey): Promise<RunRow> {
  const run = await lockRun(tx, runId)
  if (!run || run.project_id !== projectId || run.thread_id !== threadId)
    throw notFound('run', runId)
  return run
}
