import { Op, type WhereOptions } from 'sequelize'

import { invalidParameter } from '../wire/errors.ts'
import type { Db } from './db.ts'
import { placeOfGone } from './gone.ts'
import type { TableOf } from './models/index.ts'

/** Which part of a list: `after` and `before` are ids, both exclusive. */
export interface ListQuery {
  limit: number
  order: 'asc' | 'desc'
  after?: string | undefined
  before?: string | undefined
}

export interface Rows<Row> {
  rows: Row[]
  hasMore: boolean
}

interface Sequenced {
  id: string
  seq?: string
}

/**
 * A page of a list that `where` selects, by keyset over `seq`: as fast at a million rows as at ten, and stable while rows
 * are added. A cursor that was deleted from this list holds its place; one
 * that never was in it is a 400 which names it.
 */
export async function listPage<Row extends Sequenced>(
  db: Db,
  table: TableOf<Row>,
  where: Partial<Record<keyof Row, unknown>>,
  query: ListQuery,
): Promise<Rows<Row>> {
  const bounds: object[] = []
  const forward = query.order === 'asc'
  if (query.after !== undefined) {
    const seq = await cursor(db, table, where, 'after', query.after)
    bounds.push({ [forward ? Op.gt : Op.lt]: seq })
  }
  if (query.before !== undefined) {
    const seq = await cursor(db, table, where, 'before', query.before)
    bounds.push({ [forward ? Op.lt : Op.gt]: seq })
  }
  // The page that precedes `before` ends there: it is read backwards from the cursor and turned round.
  const backwards = query.before !== undefined && query.after === undefined
  const direction = forward === backwards ? 'DESC' : 'ASC'
  const found = await table.findAll({
    where: {
      ...where,
      ...(bounds.length > 0 && { seq: { [Op.and]: bounds } }),
    } as WhereOptions<Row>,
    order: [['seq', direction]],
    limit: query.limit + 1,
    raw: true,
  })
  // With `raw` Sequelize hands out plain rows; its types do not say so.
  const rows = found.slice(0, query.limit) as unknown as Row[]
  return { rows: backwards ? rows.toReversed() : rows, hasMore: found.length > query.limit }
}

async function cursor<Row extends Sequenced>(
  db: Db,
  table: TableOf<Row>,
  where: Partial<Record<keyof Row, unknown>>,
  name: 'after' | 'before',
  id: string,
): Promise<string | undefined> {
  const found = await table.findOne({ where: { ...where, id } as WhereOptions<Row>, raw: true })
  if (found) return (found as unknown as Row).seq
  const { thread_id, project_id } = where as { thread_id?: string; project_id?: string }
  const gone = await placeOfGone(db.sql, table.tableName, thread_id ?? project_id ?? '', id)
  if (!gone) throw invalidParameter(name, `no object with id '${id}' is in this list`)
  return gone.seq
}
