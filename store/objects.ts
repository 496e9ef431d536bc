import type { WhereOptions } from 'sequelize'

import { tooManyProperties } from '../wire/errors.ts'
import { MAX_METADATA_PAIRS } from '../wire/limits.ts'
import { listPage, type ListQuery, type Rows } from './lists.ts'
import type { TableOf } from './models/index.ts'
import { assignments } from './sql.ts'
import type { Db } from './db.ts'
import type { Metadata } from './rows.ts'

/** The rows of one table, always of one project: a stranger's id is the same as none. */
export interface Objects<Row> {
  create(row: Partial<Row>): Promise<Row>
  get(projectId: string, id: string): Promise<Row | undefined>
  list(where: Partial<Record<keyof Row, unknown>>, query: ListQuery): Promise<Rows<Row>>
  /**
   * Changes the columns given; metadata is merged, and its keys that are null or empty are removed. A change that depends on
   * what is there is a function of the row, which is locked meanwhile. Throws where the metadata grow past their limit.
   */
  modify(
    projectId: string,
    id: string,
    change: Patch<Row> | ((before: Row) => Patch<Row>),
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
    list: (where, query) => listPage<Row>(table, where, query),
    modify: (projectId, id, change) =>
      db.tx(async (tx) => {
        const name = table.tableName
        const [before] = await tx.sql<Row>(
          `SELECT * FROM ${name} WHERE id = $1 AND project_id = $2 FOR NO KEY UPDATE`,
          [id, projectId],
        )
        if (!before) return undefined
        const { metadata, ...patch } = typeof change === 'function' ? change(before) : change
        const merged = mergedMetadata(before.metadata, metadata ?? {})
        const { set, values } = assignments({ ...patch, metadata: merged }, 1)
        const [row] = await tx.sql<Row>(`UPDATE ${name} SET ${set} WHERE id = $1 RETURNING *`, [
          id,
          ...values,
        ])
        return row
      }),
    async delete(projectId, id) {
      return (await table.destroy({ where: own(projectId, id) })) > 0
    },
  }
}

function mergedMetadata(before: Metadata, change: Record<string, string | null>): Metadata {
  const kept = Object.entries({ ...before, ...change }).filter(
    (entry): entry is [string, string] => entry[1] !== null && entry[1] !== '',
  )
  if (kept.length > MAX_METADATA_PAIRS) {
    throw tooManyProperties('metadata', MAX_METADATA_PAIRS, kept.length)
  }
  return Object.fromEntries(kept)
}
