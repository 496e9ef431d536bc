import type { Db, Tx } from './db.ts'
import { lockFoundResources } from './resources.ts'
import type { MessageRow, ThreadRow } from './rows.ts'
import { lockThread } from './thread-rows.ts'

export type ImportedThread = Pick<ThreadRow, 'id' | 'created_at' | 'tool_resources' | 'metadata'>

export type ImportedMessage = Omit<
  MessageRow,
  'project_id' | 'thread_id' | 'seq' | 'turn' | 'superseded' | 'held' | 'came_with'
>

/** What is not `imported` was not written: the thread is there, or an id is taken in whatever project. */
export type Imported = 'imported' | 'thread exists' | 'id taken'

export interface ThreadImport {
  /**
   * Writes a thread with its messages, in the order given, or nothing of it. Durable once `importDone` has been heard. Of its
   * resources it keeps those that the project has; what messages name is a record, and stays as it came.
   */
  import(projectId: string, thread: ImportedThread, messages: ImportedMessage[]): Promise<Imported>
  /** More messages of a thread of the project; those that it has already stay as they are. Throws notFound. */
  importMore(projectId: string, threadId: string, messages: ImportedMessage[]): Promise<Imported>
  /** Waits until everything that was imported is on disk. */
  importDone(projectId: string): Promise<void>
}

export function createThreadImport(db: Db): ThreadImport {
  return {
    import: (projectId, thread, messages) =>
      whole(db, async (tx) => {
        const tool_resources = await lockFoundResources(tx, projectId, thread.tool_resources)
        const [row] = await tx.sql(insertThread, [
          thread.id,
          projectId,
          thread.created_at,
          JSON.stringify(tool_resources),
          JSON.stringify(thread.metadata),
        ])
        if (!row) return (await isOwn(tx, projectId, thread.id)) ? 'thread exists' : 'id taken'
        await tx.sql(insertMessages, [projectId, thread.id, JSON.stringify(messages)])
        return 'imported'
      }),
    importMore: (projectId, threadId, messages) =>
      whole(db, async (tx) => {
        await tx.sql(lazily)
        await lockThread(tx, projectId, threadId)
        const there = await tx.sql<Pick<MessageRow, 'id' | 'thread_id'>>(
          'SELECT id, thread_id FROM messages WHERE id = ANY ($1::text[])',
          [messages.map(({ id }) => id)],
        )
        if (there.some(({ thread_id }) => thread_id !== threadId)) return 'id taken'
        const known = new Set(there.map(({ id }) => id))
        const missing = messages.filter(({ id }) => !known.has(id))
        await tx.sql(insertMessages, [projectId, threadId, JSON.stringify(missing)])
        return 'imported'
      }),
    async importDone(projectId) {
      // Any commit that waits for the disk takes along all that came before it.
      await db.sql('UPDATE projects SET name = name WHERE id = $1', [projectId])
    },
  }
}

async function whole(db: Db, work: (tx: Tx) => Promise<Imported>): Promise<Imported> {
  try {
    return await db.tx(work)
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === uniqueViolation) {
      return 'id taken'
    }
    throw error
  }
}

async function isOwn(tx: Tx, projectId: string, threadId: string): Promise<boolean> {
  const rows = await tx.sql('SELECT id FROM threads WHERE id = $1 AND project_id = $2', [
    threadId,
    projectId,
  ])
  return rows.length > 0
}

const uniqueViolation = '23505'

/** Thousands of small transactions, none of which waits for the disk: `importDone` does, once. */
const lazily = `SELECT set_config('synchronous_commit', 'off', true)`

const insertThread = `
WITH lazily AS (${lazily})
INSERT INTO threads (id, project_id, created_at, tool_resources, metadata)
SELECT $1, $2, $3::timestamptz, $4::jsonb, $5::jsonb FROM lazily WHERE set_config IS NOT NULL
ON CONFLICT (id) DO NOTHING RETURNING id`

/** One text for any number of messages, since every text is prepared once per connection. */
const insertMessages = `
INSERT INTO messages (id, project_id, thread_id, created_at, role, status, content, attachments, metadata,
  assistant_id, run_id, completed_at, incomplete_at, incomplete_reason)
SELECT m.id, $1, $2, m.created_at, m.role, m.status, m.content, m.attachments, m.metadata,
  m.assistant_id, m.run_id, m.completed_at, m.incomplete_at, m.incomplete_reason
FROM ROWS FROM (jsonb_to_recordset($3::jsonb) AS (id text, created_at timestamptz, role text, status text,
    content jsonb, attachments jsonb, metadata jsonb, assistant_id text, run_id text, completed_at timestamptz,
    incomplete_at timestamptz, incomplete_reason text)) WITH ORDINALITY AS m
  (id, created_at, role, status, content, attachments, metadata, assistant_id, run_id, completed_at,
    incomplete_at, incomplete_reason, ordinality)
ORDER BY m.ordinality`
