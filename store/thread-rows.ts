import { ApiError, notFound } from '../wire/errors.ts'
import { THREAD_STORE_EXPIRES_AFTER_DAYS } from '../wire/limits.ts'
import type { Sql, Tx } from './db.ts'
import {
  attachToThread,
  filesOf,
  lockFiles,
  settleResources,
  type NamedResources,
} from './resources.ts'
import type { MessageRow, ThreadRow } from './rows.ts'
import { insert } from './sql.ts'

/** What a client puts into a thread, and the thread itself: written in the transactions that also make runs. */
export type NewMessage = Pick<MessageRow, 'id' | 'role' | 'content' | 'attachments' | 'metadata'> &
  Partial<Pick<MessageRow, 'came_with'>>

export type NewThread = Pick<ThreadRow, 'id' | 'metadata'> &
  Partial<Pick<ThreadRow, 'created_at'>> & { resources: NamedResources }

/** The thread, locked against other writers of it. Throws notFound. */
export async function lockThread(tx: Tx, projectId: string, threadId: string): Promise<ThreadRow> {
  const [row] = await tx.sql<ThreadRow>(
    'SELECT * FROM threads WHERE id = $1 AND project_id = $2 FOR NO KEY UPDATE',
    [threadId, projectId],
  )
  if (!row) throw notFound('thread', threadId)
  return row
}

/** The thread, locked after the files that messages to come refer to. Throws notFound and noSuchFile. */
export async function lockedThread(
  tx: Tx,
  projectId: string,
  threadId: string,
  messages: NewMessage[],
): Promise<ThreadRow> {
  const missing = await lockFiles(tx, projectId, filesOf(messages)).catch(refusal)
  const thread = await lockThread(tx, projectId, threadId)
  if (missing) throw missing
  return thread
}

/** A new thread with its messages. Throws noSuchFile and vectorStoreNotFound. */
export async function insertThread(
  tx: Tx,
  projectId: string,
  { resources, ...thread }: NewThread,
  messages: NewMessage[],
): Promise<ThreadRow> {
  const life = THREAD_STORE_EXPIRES_AFTER_DAYS
  await lockFiles(tx, projectId, filesOf(messages))
  const tool_resources = await settleResources(tx, projectId, resources, life)
  const [row] = await insert<ThreadRow>(tx.sql, 'threads', [
    { ...thread, tool_resources, project_id: projectId as ThreadRow['project_id'] },
  ])
  if (!row) throw new Error('INSERT INTO threads returned no row')
  return (await addMessages(tx, row, messages)).thread
}

/** Adds messages to a thread that was locked for them; gives it as it is then, with what they attach. `how`: see `MessageRow`. */
export async function addMessages(
  tx: Tx,
  thread: ThreadRow,
  messages: NewMessage[],
  how: Partial<Pick<MessageRow, 'held' | 'came_with'>> = {},
): Promise<{ thread: ThreadRow; messages: MessageRow[] }> {
  const rows = await insertMessages(
    tx.sql,
    thread,
    messages.map((message) => ({ ...message, ...how })),
  )
  return { thread: await attachToThread(tx, thread, messages), messages: rows }
}

/** Messages that a client wrote: complete from the start. */
async function insertMessages(
  sql: Sql,
  thread: ThreadRow,
  messages: (NewMessage & Partial<Pick<MessageRow, 'held'>>)[],
): Promise<MessageRow[]> {
  const now = new Date()
  const rows = await insert<MessageRow>(
    sql,
    'messages',
    messages.map((message) => ({
      held: false,
      came_with: null,
      ...message,
      project_id: thread.project_id,
      thread_id: thread.id,
      status: 'completed',
      created_at: now,
      completed_at: now,
    })),
  )
  if (!messages.some(({ held }) => held)) return rows
  // Behind whatever the run at work is going to write; the hand-over gives them ordinary numbers, in the same order.
  const moved = await sql<MessageRow>(
    `UPDATE messages SET seq = seq + (1::bigint << 61) WHERE id = ANY ($1::text[]) RETURNING *`,
    [rows.map(({ id }) => id)],
  )
  return moved.toSorted((a, b) => (BigInt(a.seq) < BigInt(b.seq) ? -1 : 1))
}

/** What the database itself says is thrown on: after that nothing more can be asked of it. */
function refusal(error: unknown): ApiError {
  if (error instanceof ApiError) return error
  throw error
}
