import { changeFiles, giveFiles, type FilesChange } from './assistant-files.ts'
import type { Db, Tx } from './db.ts'
import type { Objects, Patch } from './objects.ts'
import { lockFiles, settleResources, type NamedResources } from './resources.ts'
import type { AssistantRow, ToolResources } from './rows.ts'
import { insert } from './sql.ts'

/**
 * `named` resources are checked, and a new store made, in the same transaction: noSuchFile, vectorStoreNotFound. A client
 * of `assistants=v1` names files instead.
 */
export interface Assistants extends Omit<Objects<AssistantRow>, 'create' | 'modify'> {
  create(
    row: Omit<AssistantRow, 'seq'>,
    named: NamedResources | { files: string[] },
  ): Promise<AssistantRow>
  /** Undefined where there is no such assistant. */
  modify(
    projectId: string,
    id: string,
    named: NamedResources | FilesChange,
    change: (before: AssistantRow, settled: ToolResources) => Patch<AssistantRow>,
  ): Promise<AssistantRow | undefined>
}

export function createAssistants(db: Db, objects: Objects<AssistantRow>): Assistants {
  return {
    ...objects,
    create: (row, named) =>
      db.tx(async (tx) => {
        if ('files' in named) return createWithFiles(tx, row, named.files)
        const settled = await settleResources(tx, row.project_id, named)
        return insertAssistant(tx, {
          ...row,
          tool_resources: { ...row.tool_resources, ...settled },
        })
      }),
    modify: (projectId, id, named, change) =>
      objects.modify(projectId, id, change, (tx) =>
        'files' in named
          ? changeFiles(tx, projectId, id, named)
          : settleResources(tx, projectId, named),
      ),
  }
}

async function createWithFiles(
  tx: Tx,
  row: Omit<AssistantRow, 'seq'>,
  files: string[],
): Promise<AssistantRow> {
  await lockFiles(tx, row.project_id, files)
  const made = await insertAssistant(tx, row)
  const after = [...new Set(files)]
  const tool_resources = await giveFiles(tx, made, made.tools, { before: [], after })
  await tx.sql('UPDATE assistants SET tool_resources = $2 WHERE id = $1', [
    made.id,
    JSON.stringify(tool_resources),
  ])
  return { ...made, tool_resources }
}

async function insertAssistant(tx: Tx, row: Omit<AssistantRow, 'seq'>): Promise<AssistantRow> {
  const [made] = await insert<AssistantRow>(tx.sql, 'assistants', [row])
  if (!made) throw new Error('INSERT INTO assistants returned no row')
  return made
}
