import type { Migrating } from './index.ts'

/**
 * What a log still holds: `all`, `objects` (without its deltas, whose sum the objects hold), or `nothing`. Not by a condition
 * on `last_seq`: an index that names it would make every append more expensive.
 */
export const name = '0006-event-retention'

export async function up({ context }: { context: Migrating }): Promise<void> {
  await context.query(`
    ALTER TABLE run_streams ADD COLUMN holds text NOT NULL DEFAULT 'all';
    CREATE INDEX run_streams_to_prune ON run_streams (holds, closed_at)
      WHERE closed_at IS NOT NULL AND holds <> 'nothing'`)
}

export async function down({ context }: { context: Migrating }): Promise<void> {
  await context.query(`
    DROP INDEX run_streams_to_prune;
    ALTER TABLE run_streams DROP COLUMN holds`)
}
