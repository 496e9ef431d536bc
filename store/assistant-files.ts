import { arrayTooLong } from '../wire/errors.ts'
import { MAX_ASSISTANT_FILES, MAX_CODE_INTERPRETER_FILES } from '../wire/limits.ts'
import type { Db, Tx } from './db.ts'
import { addToStore, lockFiles, lockedStore, makeStore } from './resources.ts'
import type { AssistantFileRow, AssistantRow, ToolResources, ToolRow } from './rows.ts'

/** The files that clients of `assistants=v1` attach to an assistant; they change by `Assistants.modify`. */
export interface AssistantFiles {
  /** All of an assistant's, in the order in which they were attached. */
  list(assistantId: string): Promise<AssistantFileRow[]>
  /** What v1 shows as the `file_ids` of these assistants and runs; those without files are left out. */
  shown(ids: string[]): Promise<Map<string, string[]>>
}

/** How a client of v1 changes the files of an assistant: the whole list (and the tools that use it), or one file. */
export type FilesChange =
  | { files: 'set'; fileIds: string[] | undefined; tools: ToolRow[] | undefined }
  | { files: 'attach'; fileId: string }
  | { files: 'detach'; fileId: string }

export function createAssistantFiles(db: Db): AssistantFiles {
  return {
    list: (assistantId) =>
      db.sql<AssistantFileRow>(
        'SELECT * FROM assistant_files WHERE assistant_id = $1 ORDER BY seq',
        [assistantId],
      ),
    async shown(ids) {
      if (ids.length === 0) return new Map()
      const rows = await db.sql<{ id: string; file_ids: string[] }>(
        `SELECT assistant_id AS id, jsonb_agg(file_id ORDER BY seq) AS file_ids
           FROM assistant_files WHERE assistant_id = ANY ($1::text[]) GROUP BY assistant_id
         UNION ALL SELECT id, file_ids FROM runs WHERE id = ANY ($1::text[])`,
        [ids],
      )
      return new Map(rows.map(({ id, file_ids }) => [id, file_ids]))
    },
  }
}

/**
 * Carries out a change of v1, for v2's clients too: what is attached is given to the tools that are on, what is detached is
 * taken from them. What v2 has added or removed by itself stays so. Returns the resources that the assistant has then, and
 * nothing where there is no such assistant. Throws noSuchFile and arrayTooLong.
 */
export async function changeFiles(
  tx: Tx,
  projectId: string,
  assistantId: string,
  change: FilesChange,
): Promise<ToolResources> {
  await lockFiles(tx, projectId, named(change))
  await lockAttached(tx, assistantId)
  const [assistant] = await tx.sql<AssistantRow>(
    'SELECT * FROM assistants WHERE id = $1 AND project_id = $2 FOR NO KEY UPDATE',
    [assistantId, projectId],
  )
  if (!assistant) return {}
  const rows = await tx.sql<Pick<AssistantFileRow, 'file_id'>>(
    'SELECT file_id FROM assistant_files WHERE assistant_id = $1 ORDER BY seq',
    [assistantId],
  )
  const before = rows.map(({ file_id }) => file_id as string)
  const after = changed(before, change)
  const tools = (change.files === 'set' && change.tools) || assistant.tools
  return giveFiles(tx, assistant, tools, { before, after })
}

/**
 * Writes the list down and gives its files to the tools that the assistant has now: to one that it had before what is new,
 * to one that has just been turned on all of them. The files must have been locked.
 */
export async function giveFiles(
  tx: Tx,
  assistant: AssistantRow,
  toolsNow: ToolRow[],
  { before, after }: { before: string[]; after: string[] },
): Promise<ToolResources> {
  const added = after.filter((id) => !before.includes(id))
  const removed = before.filter((id) => !after.includes(id))
  await write(tx, assistant.id, added, removed)
  const given = (type: ToolRow['type']): string[] => {
    if (!has(toolsNow, type)) return []
    return has(assistant.tools, type) ? added : after
  }
  const code = codeResources(assistant.tool_resources, given('code_interpreter'), removed)
  const search = await searchResources(tx, assistant, given('file_search'), removed)
  return { ...assistant.tool_resources, ...code, ...search }
}

function named(change: FilesChange): string[] {
  switch (change.files) {
    case 'set':
      return change.fileIds ?? []
    case 'attach':
      return [change.fileId]
    case 'detach':
      return []
    default:
      return change satisfies never
  }
}

function changed(before: string[], change: FilesChange): string[] {
  switch (change.files) {
    case 'set':
      return [...new Set(change.fileIds ?? before)]
    case 'attach': {
      const after = [...new Set([...before, change.fileId])]
      if (after.length > MAX_ASSISTANT_FILES) {
        throw arrayTooLong('file_ids', MAX_ASSISTANT_FILES, after.length)
      }
      return after
    }
    case 'detach':
      return before.filter((id) => id !== change.fileId)
    default:
      return change satisfies never
  }
}

/** A file that is on its way out may not be given to a tool meanwhile. */
async function lockAttached(tx: Tx, assistantId: string): Promise<void> {
  await tx.sql(
    `SELECT id FROM files WHERE id IN (SELECT file_id FROM assistant_files WHERE assistant_id = $1)
     ORDER BY id FOR KEY SHARE`,
    [assistantId],
  )
}

async function write(
  tx: Tx,
  assistantId: string,
  added: string[],
  removed: string[],
): Promise<void> {
  await tx.sql(
    'DELETE FROM assistant_files WHERE assistant_id = $1 AND file_id = ANY ($2::text[])',
    [assistantId, removed],
  )
  await tx.sql(
    `INSERT INTO assistant_files (assistant_id, file_id)
     SELECT $1, file_id FROM unnest($2::text[]) WITH ORDINALITY AS f (file_id, n) ORDER BY n`,
    [assistantId, added],
  )
}

function codeResources(
  { code_interpreter: now }: ToolResources,
  given: string[],
  removed: string[],
): ToolResources {
  if (!now && given.length === 0) return {}
  const kept = (now?.file_ids ?? []).filter((id) => !removed.includes(id))
  const ids = [...new Set([...kept, ...given])]
  if (ids.length > MAX_CODE_INTERPRETER_FILES) {
    throw arrayTooLong('file_ids', MAX_CODE_INTERPRETER_FILES, ids.length)
  }
  return { code_interpreter: { file_ids: ids } }
}

/** The store of an assistant that v1 gave files never expires, like one that v2's helper makes. */
async function searchResources(
  tx: Tx,
  assistant: AssistantRow,
  given: string[],
  removed: string[],
): Promise<ToolResources> {
  const [storeId] = assistant.tool_resources.file_search?.vector_store_ids ?? []
  const ownStoreId = await lockedStore(tx, assistant.project_id, storeId)
  if (ownStoreId !== undefined) {
    await tx.sql(
      'DELETE FROM vector_store_files WHERE vector_store_id = $1 AND file_id = ANY ($2::text[])',
      [ownStoreId, removed],
    )
    await addToStore(tx, ownStoreId, given)
    return {}
  }
  if (given.length === 0) return {}
  const filled = { file_ids: given, chunking_strategy: { type: 'auto' }, metadata: {} }
  const made = await makeStore(tx, assistant.project_id, filled, null)
  return { file_search: { vector_store_ids: [made] } }
}

function has(tools: ToolRow[], type: ToolRow['type']): boolean {
  return tools.some((tool) => tool.type === type)
}
