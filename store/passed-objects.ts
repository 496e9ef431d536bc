import type { Db } from './db.ts'

/** Responses and chat completions that an endpoint keeps: whose they are, and which endpoint that is. */
export interface PassedObjects {
  keep(projectId: string, object: NewPassedObject): Promise<void>
  /** Undefined where it is not this project's. */
  find(projectId: string, kind: PassedKind, id: string): Promise<PassedObjectRow | undefined>
  /** Those beyond the `seq` of `after`, or from the first on; at most `limit`. */
  list(projectId: string, kind: PassedKind, query: PassedObjectQuery): Promise<PassedObjectRow[]>
  forget(projectId: string, id: string): Promise<void>
}

export interface PassedObjectQuery {
  limit: number
  order: 'asc' | 'desc'
  after: PassedObjectRow['seq'] | undefined
  /** Only those that this model was asked for. */
  model: string | undefined
}

export type PassedKind = 'response' | 'chat.completion'

export interface PassedObjectRow {
  id: string
  /** bigint, which `pg` hands over as text. It outlives its row as a place in the list. */
  seq: string
  kind: PassedKind
  /** As the client named it; null where it did not, and the default endpoint answered. */
  model: string | null
}

export type NewPassedObject = Omit<PassedObjectRow, 'seq'>

/** Endpoints make their ids as they like, but not out of what a column or a path cannot hold. */
const plausibleId = /^[\x21-\x7e]{1,512}$/

export function createPassedObjects(db: Db): PassedObjects {
  return {
    async keep(projectId, { id, kind, model }) {
      if (!plausibleId.test(id)) return
      await db.sql(
        `INSERT INTO passed_objects (project_id, id, kind, model) VALUES ($1, $2, $3, $4)
         ON CONFLICT (project_id, id) DO UPDATE SET kind = excluded.kind, model = excluded.model`,
        [projectId, id, kind, model],
      )
    },
    async find(projectId, kind, id) {
      if (!plausibleId.test(id)) return undefined
      const [row] = await db.sql<PassedObjectRow>(
        'SELECT id, seq, kind, model FROM passed_objects WHERE project_id = $1 AND kind = $2 AND id = $3',
        [projectId, kind, id],
      )
      return row
    },
    list(projectId, kind, { limit, order, after, model }) {
      const [direction, beyond] = order === 'asc' ? ['ASC', '>'] : ['DESC', '<']
      return db.sql<PassedObjectRow>(
        `SELECT id, seq, kind, model FROM passed_objects
         WHERE project_id = $1 AND kind = $2 AND ($5::text IS NULL OR model = $5)
           AND ($4::bigint IS NULL OR seq ${beyond} $4)
         ORDER BY seq ${direction} LIMIT $3`,
        [projectId, kind, limit, after ?? null, model ?? null],
      )
    },
    async forget(projectId, id) {
      await db.sql('DELETE FROM passed_objects WHERE project_id = $1 AND id = $2', [projectId, id])
    },
  }
}
