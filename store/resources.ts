import { randomUUID } from 'node:crypto'

import { arrayTooLong, noSuchFile, vectorStoreNotFound } from '../wire/errors.ts'
import { idFrom } from '../wire/ids.ts'
import { MAX_CODE_INTERPRETER_FILES, THREAD_STORE_EXPIRES_AFTER_DAYS } from '../wire/limits.ts'
import type { Tx } from './db.ts'
import type {
  FileRow,
  Json,
  MessageRow,
  Metadata,
  ThreadRow,
  ToolResources,
  VectorStoreRow,
} from './rows.ts'

/**
 * What a client names as a tool's resources. Files and vector stores are looked up, and made, in the transaction that
 * writes what refers to them.
 *
 * Rows of files are locked before the thread or the assistant that will name them: a deletion takes the file first and
 * then whoever names it, and two orders would be a deadlock.
 */
export interface NamedResources {
  code_interpreter?: { file_ids: string[] }
  file_search?: { vector_store_ids: string[] } | { new_store: NewVectorStore }
}

/** The helper `vector_stores`: a store that is made along with its assistant or thread. */
export interface NewVectorStore {
  file_ids: string[]
  chunking_strategy: Json
  metadata: Metadata
}

/** The resources to be kept. Throws noSuchFile and vectorStoreNotFound. A store made here expires `expiresAfterDays` after its last use. */
export async function settleResources(
  tx: Tx,
  projectId: string,
  named: NamedResources,
  expiresAfterDays: number | null = null,
): Promise<ToolResources> {
  const { code_interpreter: code, file_search: search } = named
  const newStore = search && 'new_store' in search ? search.new_store : undefined
  await lockFiles(tx, projectId, [...(code?.file_ids ?? []), ...(newStore?.file_ids ?? [])])
  const storeIds = newStore
    ? [await makeStore(tx, projectId, newStore, expiresAfterDays)]
    : search && 'vector_store_ids' in search && search.vector_store_ids
  if (storeIds && !newStore) await lockStores(tx, projectId, storeIds)
  return {
    ...(code && { code_interpreter: { file_ids: code.file_ids } }),
    ...(storeIds && { file_search: { vector_store_ids: storeIds } }),
  }
}

/** Keeps these files from being deleted until the transaction ends. Throws noSuchFile for the first that is not there. */
export async function lockFiles(tx: Tx, projectId: string, ids: string[]): Promise<void> {
  const found = await lockFoundFiles(tx, projectId, ids)
  const missing = ids.find((id) => !found.has(id))
  if (missing !== undefined) throw noSuchFile(missing)
}

/** What the project has of these resources, kept from being deleted until the transaction ends; the rest is left out. */
export async function lockFoundResources(
  tx: Tx,
  projectId: string,
  { code_interpreter: code, file_search: search }: ToolResources,
): Promise<ToolResources> {
  const files = await lockFoundFiles(tx, projectId, code?.file_ids ?? [])
  const stores = await lockFoundStores(tx, projectId, search?.vector_store_ids ?? [])
  return {
    ...(code && { code_interpreter: { file_ids: code.file_ids.filter((id) => files.has(id)) } }),
    ...(search && {
      file_search: { vector_store_ids: search.vector_store_ids.filter((id) => stores.has(id)) },
    }),
  }
}

/** A new vector store; its files wait for ingestion. They must have been locked. */
export async function makeStore(
  tx: Tx,
  projectId: string,
  store: NewVectorStore,
  expiresAfterDays: number | null,
): Promise<VectorStoreRow['id']> {
  const id = idFrom('vector_store', randomUUID())
  await tx.sql(
    `INSERT INTO vector_stores (id, project_id, metadata, expires_after_days) VALUES ($1, $2, $3, $4)`,
    [id, projectId, JSON.stringify(store.metadata), expiresAfterDays],
  )
  await addToStore(tx, id, store.file_ids, store.chunking_strategy)
  return id
}

/** Puts files into a store, where they wait for ingestion; those that are there already stay as they are. */
export async function addToStore(
  tx: Tx,
  storeId: string,
  fileIds: string[],
  chunkingStrategy: Json = { type: 'auto' },
): Promise<void> {
  await tx.sql(
    `INSERT INTO vector_store_files (vector_store_id, file_id, status, attributes, chunking_strategy)
     SELECT $1, file_id, 'in_progress', '{}', $3 FROM unnest($2::text[]) WITH ORDINALITY AS f (file_id, n) ORDER BY n
     ON CONFLICT DO NOTHING`,
    [storeId, fileIds, JSON.stringify(chunkingStrategy)],
  )
}

type WithFiles = Pick<MessageRow, 'content' | 'attachments'>

/** The files that messages name, in their content and as attachments. */
export function filesOf(messages: WithFiles[]): string[] {
  return messages.flatMap(({ content, attachments }) => [
    ...content.flatMap((part) => (part.type === 'image_file' ? [part.image_file.file_id] : [])),
    ...attachments.map(({ file_id }) => file_id),
  ])
}

/**
 * Gives the thread of these messages, whose row is locked, what is attached to them: code interpreter files are added to its
 * list, files to search to its vector store, which is made where there is none. Their files must have been locked.
 */
export async function attachToThread(
  tx: Tx,
  thread: ThreadRow,
  messages: WithFiles[],
): Promise<ThreadRow> {
  const forCode = attachedFor('code_interpreter', messages)
  const toSearch = attachedFor('file_search', messages)
  if (forCode.length === 0 && toSearch.length === 0) return thread
  const before = thread.tool_resources
  const after: ToolResources = { ...before }
  if (forCode.length > 0) {
    const ids = [...new Set([...(before.code_interpreter?.file_ids ?? []), ...forCode])]
    // A file that can be searched too may leave the list again: v1 had no limit for a thread, and attaches for both tools.
    const isSpare = forCode.every((id) => toSearch.includes(id))
    if (ids.length > MAX_CODE_INTERPRETER_FILES && !isSpare) {
      const path = 'tool_resources.code_interpreter.file_ids'
      throw arrayTooLong(path, MAX_CODE_INTERPRETER_FILES, ids.length)
    }
    after.code_interpreter = { file_ids: ids.slice(-MAX_CODE_INTERPRETER_FILES) }
  }
  if (toSearch.length > 0) {
    const storeId = await lockedStore(
      tx,
      thread.project_id,
      before.file_search?.vector_store_ids[0],
    )
    if (storeId === undefined) {
      const store = { file_ids: toSearch, chunking_strategy: { type: 'auto' }, metadata: {} }
      const made = await makeStore(tx, thread.project_id, store, THREAD_STORE_EXPIRES_AFTER_DAYS)
      after.file_search = { vector_store_ids: [made] }
    } else {
      await addToStore(tx, storeId, toSearch)
    }
  }
  await tx.sql('UPDATE threads SET tool_resources = $2 WHERE id = $1', [
    thread.id,
    JSON.stringify(after),
  ])
  return { ...thread, tool_resources: after }
}

function attachedFor(tool: 'code_interpreter' | 'file_search', messages: WithFiles[]): string[] {
  const ids = messages.flatMap(({ attachments }) =>
    attachments.filter(({ tools }) => tools.some(({ type }) => type === tool)),
  )
  return [...new Set(ids.map(({ file_id }) => file_id))]
}

/** The store, kept from other writers: two that add the same files would wait for each other. Undefined where it is gone. */
export async function lockedStore(
  tx: Tx,
  projectId: string,
  storeId: string | undefined,
): Promise<string | undefined> {
  if (storeId === undefined) return undefined
  const [row] = await tx.sql<Pick<VectorStoreRow, 'id'>>(
    'SELECT id FROM vector_stores WHERE id = $1 AND project_id = $2 FOR NO KEY UPDATE',
    [storeId, projectId],
  )
  return row?.id
}

async function lockStores(tx: Tx, projectId: string, ids: string[]): Promise<void> {
  const found = await lockFoundStores(tx, projectId, ids)
  const missing = ids.find((id) => !found.has(id))
  if (missing !== undefined) throw vectorStoreNotFound(missing)
}

async function lockFoundFiles(tx: Tx, projectId: string, ids: string[]): Promise<Set<string>> {
  if (ids.length === 0) return new Set()
  const rows = await tx.sql<Pick<FileRow, 'id'>>(
    `SELECT id FROM files WHERE id = ANY ($1::text[]) AND project_id = $2
       AND (expires_at IS NULL OR expires_at > now()) ORDER BY id FOR KEY SHARE`,
    [ids, projectId],
  )
  return new Set(rows.map(({ id }) => id))
}

async function lockFoundStores(tx: Tx, projectId: string, ids: string[]): Promise<Set<string>> {
  if (ids.length === 0) return new Set()
  const rows = await tx.sql<Pick<VectorStoreRow, 'id'>>(
    'SELECT id FROM vector_stores WHERE id = ANY ($1::text[]) AND project_id = $2 ORDER BY id FOR KEY SHARE',
    [ids, projectId],
  )
  return new Set(rows.map(({ id }) => id))
}
