import type { Db } from './db.ts'
import type { OutboxRow, RunRow } from './rows.ts'

/** Commands for Temporal, written in the transaction of the rows they belong to and removed once delivered. */
export interface Outbox {
  /** The commands of a run that have not been delivered, oldest first, each with the run as it is now. */
  of(runId: string): Promise<PendingCommand[]>
  /** Runs that have commands older than `olderThanMs`: what was left behind by a crash or an outage. */
  leftBehind(olderThanMs: number, limit: number): Promise<RunRow['id'][]>
  remove(ids: OutboxRow['id'][]): Promise<void>
}

export interface PendingCommand {
  id: OutboxRow['id']
  command: OutboxRow['command']
  /** Undefined where it has been deleted with its thread. */
  run: RunRow | undefined
  assistantName: string | null
}

export function createOutbox(db: Db): Outbox {
  return {
    async of(runId) {
      const rows = await db.sql<(RunRow | NoRun) & Named>(
        `SELECT r.*, o.id AS outbox_id, o.command, a.name AS assistant_name
         FROM outbox o LEFT JOIN runs r ON r.id = o.run_id LEFT JOIN assistants a ON a.id = r.assistant_id
         WHERE o.run_id = $1 ORDER BY o.id`,
        [runId],
      )
      return rows.map(({ outbox_id: id, command, assistant_name: assistantName, ...run }) => ({
        id,
        command,
        run: run.id === null ? undefined : run,
        assistantName,
      }))
    },
    async leftBehind(olderThanMs, limit) {
      const rows = await db.sql<OutboxRow>(
        `SELECT run_id FROM outbox WHERE created_at < now() - $1 * interval '1 millisecond'
         GROUP BY run_id ORDER BY min(id) LIMIT $2`,
        [olderThanMs, limit],
      )
      return rows.map(({ run_id }) => run_id)
    },
    async remove(ids) {
      await db.sql('DELETE FROM outbox WHERE id = ANY ($1::bigint[])', [ids])
    },
  }
}

type NoRun = Record<keyof RunRow, null>

interface Named {
  outbox_id: string
  command: OutboxRow['command']
  assistant_name: string | null
}
