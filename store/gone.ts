import type { Sql } from './db.ts'

/**
 * Where deleted objects stood in their lists, for a day: whoever deletes what a list shows goes on from an object that is
 * gone, as the pagers of the official clients do.
 */

/** The part of a statement that writes down the rows of `deleted`, a query of its own; gives their ids. */
export function rememberGone(table: string): string {
  return `INSERT INTO gone (id, list, seq, made_at)
    SELECT d.id, '${table} ' || coalesce(to_jsonb(d) ->> 'thread_id', d.project_id), d.seq, d.created_at FROM deleted d
    ON CONFLICT (id) DO UPDATE SET created_at = now() RETURNING id`
}

/** The place of an object that was deleted from the list of `parent`: a project, or a thread. Times as text, to the microsecond. */
export async function placeOfGone(
  sql: Sql,
  table: string,
  parent: string,
  id: string,
): Promise<{ seq: string; created_at: string } | undefined> {
  const [row] = await sql<{ seq: string; created_at: string }>(
    'SELECT seq, made_at::text AS created_at FROM gone WHERE id = $1 AND list = $2',
    [id, `${table} ${parent}`],
  )
  return row
}
