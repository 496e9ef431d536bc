import type { Router } from '@koa/router'

import type { FilesChange } from '../store/assistant-files.ts'
import type { AssistantFileRow } from '../store/rows.ts'
import { notFound } from '../wire/errors.ts'
import { presentAssistantFile } from '../wire/present/assistant-file.ts'
import type { ApiDeps } from './app.ts'
import { pathId, readBody, type Context, type State } from './context.ts'
import { ListQuery } from './lists.schema.ts'
import { onlyV1 } from './middleware/dialect.ts'
import { shortList } from './short-list.ts'
import { CreateAssistantFile } from './v1.schema.ts'
import { parseQuery } from './validation.ts'

/** The files of an assistant, which v2 names in its `tool_resources`. */
export function assistantFileRoutes(router: Router<State>, { store }: ApiDeps): void {
  router.get('/assistants/:assistant_id/files', onlyV1, list)
  router.post('/assistants/:assistant_id/files', onlyV1, attach)
  router.get('/assistants/:assistant_id/files/:file_id', onlyV1, get)
  router.delete('/assistants/:assistant_id/files/:file_id', onlyV1, detach)

  async function list(ctx: Context): Promise<void> {
    const assistantId = await findAssistant(ctx)
    const query = parseQuery(ListQuery, ctx.query)
    const rows = await store.assistantFiles.list(assistantId)
    ctx.body = shortList(rows.map(presentAssistantFile), query)
  }

  async function attach(ctx: Context): Promise<void> {
    const body = await readBody(ctx, CreateAssistantFile, () => findAssistant(ctx))
    await change(ctx, { files: 'attach', fileId: body.file_id })
    ctx.body = presentAssistantFile(await find(ctx, body.file_id))
  }

  async function get(ctx: Context): Promise<void> {
    ctx.body = presentAssistantFile(await find(ctx, pathId(ctx, 'file_id', 'file')))
  }

  async function detach(ctx: Context): Promise<void> {
    const { file_id: id } = await find(ctx, pathId(ctx, 'file_id', 'file'))
    await change(ctx, { files: 'detach', fileId: id })
    ctx.body = { id, object: 'assistant.file.deleted', deleted: true }
  }

  async function change(ctx: Context, how: FilesChange): Promise<void> {
    const id = pathId(ctx, 'assistant_id', 'assistant')
    const row = await store.assistants.modify(ctx.state.projectId, id, how, (_, settled) => ({
      tool_resources: settled,
    }))
    if (!row) throw notFound('assistant', id)
  }

  async function find(ctx: Context, fileId: string): Promise<AssistantFileRow> {
    const rows = await store.assistantFiles.list(await findAssistant(ctx))
    const row = rows.find(({ file_id }) => file_id === fileId)
    if (!row) throw notFound('assistant file', fileId)
    return row
  }

  async function findAssistant(ctx: Context): Promise<string> {
    const id = pathId(ctx, 'assistant_id', 'assistant')
    if (!(await store.assistants.get(ctx.state.projectId, id))) throw notFound('assistant', id)
    return id
  }
}
