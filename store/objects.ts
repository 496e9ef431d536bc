import type { WhereOptions } from 'sequelize'

import { ApiError, tooManyProperties } from '../wire/errors.ts'
import { MAX_METADATA_PAIRS } from '../wire/limits.ts'
import { rememberGone } from './gone.ts'
import { listPage, type ListQuery, type Rows } from './lists.ts'
import type { TableOf } from './models/index.ts'
import { assignments } from './sql.ts'
import type { Db, Tx } from './db.ts'
import type { Metadata } from './rows.ts'

/** The rows of one table, always of one project: a stranger's id is the same as none. */
export interface Objects<Row> {
  create(row: Partial<Row>): Promise<Row>
  get(projectId: string, id: string): Promise<Row | undefined>
  list(where: Partial<Record<keyof Row, unknown>>, query: ListQuery): Promise<Rows<Row>>
  /**
   * Changes the columns given; metadata is merged, and its keys that are null or empty are removed. A change that depends on
   * what is there is a function of the row, which is locked meanwhile, and of what `prepare` has done before the row was
   * locked. Throws where the metadata grow past their limit, and what `prepare` throws where there is such a row.
   */
  modify<Prepared = undefined>(
    projectId: string,
    id: string,
    change: Patch<Row> | ((before: Row, prepared: Prepared) => Patch<Row>),
    prepare?: (tx: Tx) => Promise<Prepared>,
  ): Promise<Row | undefined>
  delete(projectId: string, id: string): Promise<boolean>
}

export type Patch<Row> = Omit<Partial<Row>, 'metadata'> & {
  metadata?: Record<string, string | null> | null | undefined
}

export function createObjects<
  Row extends { id: string; seq?: string; project_id: string; metadata: Metadata },
>(db: Db, table: TableOf<Row>): Objects<Row> {
  const own = (projectId: string, id: string) =>
    ({ id, project_id: projectId }) as unknown as WhereOptions<Row>
  return {
    async create(row) {
      const made = await table.create(row as never, { returning: true })
      return made.get({ plain: true })
    },
    async get(projectId, id) {
      const found = await table.findOne({ where: own(projectId, id), raw: true })
      return (found as unknown as Row | null) ?? undefined
    },
    list: (where, query) => listPage<Row>(db, table, where, query),
    modify: (projectId, id, change, prepare) =>
      db.tx(async (tx) => {
        const name = table.tableName
        const lock = async () => {
          const [row] = await tx.sql<Row>(
            `SELECT * FROM ${name} WHERE id = $1 AND project_id = $2 FOR NO KEY UPDATE`,
            [id, projectId],
          )
          return row
        }
        let prepared
        try {
          prepared = await prepare?.(tx)
        } catch (error) {
          // An object that is not there is the better news, if only the database is still with us.
          if (error instanceof ApiError && !(await lock())) return undefined
          throw error
        }
        const before = await lock()
        if (!before) return undefined
        // Without `prepare` it is undefined, as its type says.
        const { metadata, ...patch } =
          typeof change === 'function' ? change(before, prepared as never) : change
        const merged = mergedMetadata(before.metadata, metadata ?? {})
        const { set, values } = assignments({ ...patch, metadata: merged }, 1)
        const [row] = await tx.sql<Row>(`UPDATE ${name} SET ${set} WHERE id = $1 RETURNING *`, [
          id,
          ...values,
        ])
        return row
      }),
    async delete(projectId, id) {
      const name = table.tableName
      const rows = await db.sql(
        `WITH deleted AS (DELETE FROM ${name} WHERE id = $1 AND project_id = $2 RETURNING *) ${rememberGone(name)}`,
        [id, projectId],
      )
      return rows.length > 0
    },
  }
}

/** Throws tooManyProperties. A value that is null or empty removes its key. */
export function mergedMetadata(before: Metadata, change: Record<string, string | null>): Metadata {
  const kept = Object.entries({ ...before, ...change }).filter(
    (entry): entry is [string, string] => entry[1] !== null && entry[1] !== '',
  )
  if (kept.length > MAX_METADATA_PAIRS) {
    throw tooManyProperties('metadata', MAX_METADATA_PAIRS, kept.length)
  }
  return Object.fromEntries(kept)
}
