import type { Sql } from './db.ts'

/** Inserts rows of one shape and gives them back whole, in the order given. Table and columns are our own names. */
export async function insert<Row extends object>(
  sql: Sql,
  table: string,
  rows: Partial<Row>[],
): Promise<Row[]> {
  const [first] = rows
  if (!first) return []
  const columns = Object.keys(first)
  const most = Math.floor(maxValues / columns.length)
  if (rows.length > most) {
    const [head, tail] = [rows.slice(0, most), rows.slice(most)]
    return [...(await insert<Row>(sql, table, head)), ...(await insert<Row>(sql, table, tail))]
  }
  const values: unknown[] = []
  const tuples = rows.map((row) => {
    const marks = columns.map(
      (column) => `$${values.push(bound(column, row[column as keyof Row]))}`,
    )
    return `(${marks.join(', ')})`
  })
  return sql<Row>(
    `INSERT INTO ${table} (${columns.join(', ')}) VALUES ${tuples.join(', ')} RETURNING *`,
    values,
  )
}

/** The protocol of Postgres counts the values of a statement in 16 bits. */
const maxValues = 65_000

/** `SET` assignments of a patch, numbered after the `offset` values that the statement has already. */
export function assignments(patch: object, offset: number): { set: string; values: unknown[] } {
  const entries = Object.entries(patch)
  return {
    set: entries.map(([column], i) => `${column} = $${offset + i + 1}`).join(', '),
    values: entries.map(([column, value]) => bound(column, value)),
  }
}

/** Columns of jsonb: a plain string in them is JSON too, so the value does not tell. */
const jsonColumns = new Set([
  'attachments',
  'attributes',
  'begun',
  'call',
  'chunking_strategy',
  'command',
  'content',
  'context',
  'failed_models',
  'failure',
  'fallback_models',
  'file_ids',
  'files',
  'last_error',
  'metadata',
  'outputs',
  'required_action',
  'response_format',
  'result',
  'state',
  'tool_choice',
  'tool_resources',
  'tools',
  'truncation_strategy',
  'usage',
])

function bound(column: string, value: unknown): unknown {
  return jsonColumns.has(column) && value !== null ? JSON.stringify(value) : value
}
