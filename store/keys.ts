import { createHash, randomBytes, randomUUID } from 'node:crypto'

import { idFrom } from '../wire/ids.ts'
import type { Db } from './db.ts'
import type { ApiKeyRow, ProjectRow } from './rows.ts'
import { assignments, insert } from './sql.ts'

/** Projects and the keys that belong to them. A key is kept as its hash only. */
export interface Keys {
  createProject(name: string): Promise<ProjectRow>
  /** The project of everybody on a loopback server without keys. */
  defaultProject(): Promise<ProjectRow>
  findProject(nameOrId: string): Promise<ProjectRow | undefined>
  listProjects(): Promise<ProjectRow[]>
  /** What its runs do where they say nothing themselves. */
  setProject(
    id: ProjectRow['id'],
    settings: Partial<Pick<ProjectRow, 'on_active_run' | 'run_expires_after_s'>>,
  ): Promise<ProjectRow | undefined>
  /** The key itself is in the answer, and nowhere else, ever. */
  createKey(projectId: ProjectRow['id'], name: string): Promise<{ row: ApiKeyRow; key: string }>
  revokeKey(id: string): Promise<ApiKeyRow | undefined>
  listKeys(): Promise<ApiKeyRow[]>
  /** The project that a key opens; undefined for unknown and revoked keys. */
  projectOf(key: string): Promise<ProjectRow['id'] | undefined>
  /**
   * Whether there ever was a key: until then a loopback server lets everybody in. Revoked ones count, since whoever revokes
   * the last key does not mean to open the door.
   */
  any(): Promise<boolean>
}

export const defaultProjectName = 'default'

export function createKeys(db: Db): Keys {
  return {
    async createProject(name) {
      const [project] = await insert<ProjectRow>(db.sql, 'projects', [
        { id: idFrom('project', randomUUID()), name },
      ])
      if (!project) throw new Error('INSERT INTO projects returned no row')
      return project
    },
    async defaultProject() {
      const [project] = await db.sql<ProjectRow>(
        `INSERT INTO projects (id, name) VALUES ($1, $2)
         ON CONFLICT (name) DO UPDATE SET name = excluded.name RETURNING *`,
        [idFrom('project', randomUUID()), defaultProjectName],
      )
      if (!project) throw new Error('INSERT INTO projects returned no row')
      return project
    },
    async findProject(nameOrId) {
      const [project] = await db.sql<ProjectRow>(
        'SELECT * FROM projects WHERE id = $1 OR name = $1',
        [nameOrId],
      )
      return project
    },
    listProjects: () => db.sql<ProjectRow>('SELECT * FROM projects ORDER BY created_at, id'),
    async setProject(id, settings) {
      const { set, values } = assignments(settings, 1)
      const [project] = await db.sql<ProjectRow>(
        `UPDATE projects SET ${set} WHERE id = $1 RETURNING *`,
        [id, ...values],
      )
      return project
    },
    async createKey(projectId, name) {
      const key = `sk-${randomBytes(24).toString('base64url')}`
      const [row] = await insert<ApiKeyRow>(db.sql, 'api_keys', [
        {
          id: idFrom('key', randomUUID()),
          project_id: projectId,
          hash: hashOf(key),
          tail: key.slice(-4),
          name,
        },
      ])
      if (!row) throw new Error('INSERT INTO api_keys returned no row')
      return { row, key }
    },
    async revokeKey(id) {
      const [row] = await db.sql<ApiKeyRow>(
        'UPDATE api_keys SET revoked_at = coalesce(revoked_at, now()) WHERE id = $1 RETURNING *',
        [id],
      )
      return row
    },
    listKeys: () => db.sql<ApiKeyRow>('SELECT * FROM api_keys ORDER BY created_at'),
    async projectOf(key) {
      const [row] = await db.sql<ApiKeyRow>(
        'SELECT project_id FROM api_keys WHERE hash = $1 AND revoked_at IS NULL',
        [hashOf(key)],
      )
      return row?.project_id
    },
    async any() {
      const [row] = await db.sql<{ any: boolean }>('SELECT EXISTS (SELECT FROM api_keys) AS any')
      return row?.any ?? false
    },
  }
}

/** Keys are random and long, so a plain hash is enough; it must be quick, being made for every request. */
function hashOf(key: string): Buffer {
  return createHash('sha256').update(key).digest()
}
