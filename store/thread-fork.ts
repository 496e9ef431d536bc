import { randomUUID } from 'node:crypto'

import { invalidParameter, notFound } from '../wire/errors.ts'
import { idFrom } from '../wire/ids.ts'
import type { Db, Tx } from './db.ts'
import { mergedMetadata } from './objects.ts'
import { lockFoundResources } from './resources.ts'
import type { MessageRow, Metadata, ThreadRow, ToolResources } from './rows.ts'
import { insert } from './sql.ts'

export interface Fork {
  id: ThreadRow['id']
  /** The last message that is taken along; all of them where it is missing. */
  messageId?: string | undefined
  /** Over those of the thread; null or empty removes a key. */
  metadata: Record<string, string | null>
}

export interface ThreadFork {
  /**
   * A new thread with copies of the messages of another: as they were said and when, under new ids. Runs stay where they
   * are, so the copies name none; its vector store is a new one with the same files. Throws notFound(thread | message), and tooManyProperties.
   */
  fork(projectId: string, threadId: string, fork: Fork): Promise<ThreadRow>
}

export function createThreadFork(db: Db): ThreadFork {
  return {
    fork: (projectId, threadId, { id, messageId, metadata }) =>
      db.tx(async (tx) => {
        const [from] = await tx.sql<ThreadRow>(
          'SELECT * FROM threads WHERE id = $1 AND project_id = $2',
          [threadId, projectId],
        )
        if (!from) throw notFound('thread', threadId)
        const last = messageId === undefined ? null : await seqOf(tx, threadId, messageId)
        const tool_resources = await copyResources(tx, projectId, from.tool_resources)
        const [row] = await insert<ThreadRow>(tx.sql, 'threads', [
          {
            id,
            project_id: from.project_id,
            tool_resources,
            metadata: mergedMetadata(from.metadata, metadata) satisfies Metadata,
          },
        ])
        if (!row) throw new Error('INSERT INTO threads returned no row')
        await tx.sql(copyMessages, [threadId, id, last])
        await tx.sql(copyCodeFiles, [threadId, id, messageId ?? null])
        return row
      }),
  }
}

/**
 * Ids of 24 hexadecimal digits are among those of 24 base-62 ones; 90 of their bits are random. In the database, so that a
 * hundred thousand messages are one statement and pass through nobody's memory.
 */
const copyMessages = `
INSERT INTO messages (id, project_id, thread_id, created_at, role, status, content, attachments, metadata,
  assistant_id, completed_at, incomplete_at, incomplete_reason)
SELECT 'msg_' || right(replace(gen_random_uuid()::text, '-', ''), 24), project_id, $2, created_at, role, status, content,
  attachments, metadata, assistant_id, completed_at, incomplete_at, incomplete_reason
FROM messages WHERE thread_id = $1 AND ($3::bigint IS NULL OR seq <= $3) AND NOT superseded AND status <> 'in_progress'
ORDER BY seq`

/** What code had written by then, since messages link to it. */
const copyCodeFiles = `
INSERT INTO sandbox_files (thread_id, path, file_id, digest)
SELECT $2, s.path, s.file_id, s.digest FROM sandbox_files s JOIN files f ON f.id = s.file_id
WHERE s.thread_id = $1
  AND ($3::text IS NULL OR f.created_at <= (SELECT created_at FROM messages WHERE id = $3))
FOR KEY SHARE OF f`

/** What is attached to the one thread later is none of the other's, so they do not share a vector store. */
async function copyResources(
  tx: Tx,
  projectId: string,
  before: ToolResources,
): Promise<ToolResources> {
  const { file_search: search, ...found } = await lockFoundResources(tx, projectId, before)
  if (!search) return found
  const vector_store_ids: string[] = []
  for (const from of search.vector_store_ids) {
    const id = idFrom('vector_store', randomUUID())
    await tx.sql(copyStore, [from, id])
    await tx.sql(copyStoreFiles, [from, id])
    vector_store_ids.push(id)
  }
  return { ...found, file_search: { vector_store_ids } }
}

const copyStore = `
INSERT INTO vector_stores (id, project_id, name, description, metadata, expires_after_days)
SELECT $2, project_id, name, description, metadata, expires_after_days FROM vector_stores WHERE id = $1`

/** Files that are being deleted are waited for, and left out. The others wait for ingestion, as in any new store. */
const copyStoreFiles = `
INSERT INTO vector_store_files (vector_store_id, file_id, status, attributes, chunking_strategy)
SELECT $2, file_id, 'in_progress', attributes, chunking_strategy
FROM (
  SELECT v.* FROM vector_store_files v JOIN files f ON f.id = v.file_id
  WHERE v.vector_store_id = $1 AND (f.expires_at IS NULL OR f.expires_at > now())
  ORDER BY f.id FOR KEY SHARE OF f
) kept ORDER BY seq`

async function seqOf(tx: Tx, threadId: string, messageId: string): Promise<string> {
  const [message] = await tx.sql<Pick<MessageRow, 'seq' | 'status'>>(
    'SELECT seq, status FROM messages WHERE id = $1 AND thread_id = $2 AND NOT superseded',
    [messageId, threadId],
  )
  if (!message) throw notFound('message', messageId)
  if (message.status === 'in_progress') {
    throw invalidParameter('message_id', `${messageId} is still being written.`)
  }
  return message.seq
}
