import type { WhereOptions } from 'sequelize'

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
  /** Changes the columns given; metadata is merged, and its keys that are null or empty are removed. */
  modify(projectId: string, id: string, patch: Patch<Row>): Promise<Row | undefined>
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
    async modify(projectId, id, { metadata, ...patch }) {
      const { set, values } = assignments(patch, 3)
      const [row] = await db.sql<Row>(
        `UPDATE ${table.getTableName() as string} SET ${set}${set && ', '}metadata = (
           SELECT coalesce(jsonb_object_agg(key, value), '{}') FROM jsonb_each(metadata || $3::jsonb)
           WHERE value NOT IN ('null', '""'))
         WHERE id = $1 AND project_id = $2 RETURNING *`,
        [id, projectId, JSON.stringify(metadata ?? {}), ...values],
      )
      return row
    },
    async delete(projectId, id) {
      return (await table.destroy({ where: own(projectId, id) })) > 0
    },
  }
}
