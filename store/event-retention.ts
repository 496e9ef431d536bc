import type { Db } from './db.ts'

/** The logs of runs that are over do not stay: what they told is in the objects. */
export interface EventRetention {
  /** Removes deltas ten minutes after the end of their run, and all other events a day after it. */
  prune(): Promise<void>
}

const deltasKept = '10 minutes'
const eventsKept = '24 hours'
/** Runs at a time: a statement locks the rows of their streams, which nobody else writes any more. */
const atOnce = 200

export function createEventRetention(db: Db): EventRetention {
  const prune = async (from: 'all' | 'objects', after: string): Promise<number> => {
    const pruned = await db.sql(
      `WITH ended AS (
         SELECT run_id FROM run_streams WHERE holds = $1 AND closed_at < now() - $2::interval
         ORDER BY closed_at LIMIT $3 FOR UPDATE SKIP LOCKED
       ), removed AS (
         DELETE FROM run_events e USING ended WHERE e.run_id = ended.run_id
           AND ($1 = 'objects' OR e.event IN ('thread.message.delta', 'thread.run.step.delta'))
       )
       UPDATE run_streams s SET holds = CASE $1 WHEN 'all' THEN 'objects' ELSE 'nothing' END
       FROM ended WHERE s.run_id = ended.run_id RETURNING s.run_id`,
      [from, after, atOnce],
    )
    return pruned.length
  }
  return {
    async prune() {
      while ((await prune('all', deltasKept)) === atOnce);
      while ((await prune('objects', eventsKept)) === atOnce);
    },
  }
}
