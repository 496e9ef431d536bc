import type { Router } from '@koa/router'
import { randomUUID } from 'node:crypto'

import type { AssistantRow, ToolResources, ToolRow } from '../store/rows.ts'
import { notFound } from '../wire/errors.ts'
import { idFrom } from '../wire/ids.ts'
import type { AssistantDeleted } from '../wire/openai.ts'
import { page } from '../wire/page.ts'
import { presentAssistant } from '../wire/present/assistant.ts'
import type { ApiDeps } from './app.ts'
import { CreateAssistant, ModifyAssistant } from './assistants.schema.ts'
import { bodyOf, pathId, readBody, type Context, type State } from './context.ts'
import { ListQuery } from './lists.schema.ts'
import { filledTool, namedResources } from './tools.ts'
import * as v1 from './v1.schema.ts'
import { parseQuery } from './validation.ts'

export function assistantRoutes(router: Router<State>, { store }: ApiDeps): void {
  router.get('/assistants', list)
  router.post('/assistants', create)
  router.get('/assistants/:assistant_id', get)
  router.post('/assistants/:assistant_id', modify)
  router.delete('/assistants/:assistant_id', remove)

  async function list(ctx: Context): Promise<void> {
    const query = parseQuery(ListQuery, ctx.query)
    const found = await store.assistants.list({ project_id: ctx.state.projectId }, query)
    ctx.body = page(found.rows.map(presentAssistant), found.hasMore)
  }

  async function create(ctx: Context): Promise<void> {
    const schemas = { v1: v1.CreateAssistant, v2: CreateAssistant }
    const body = await readBody(ctx, bodyOf<CreateAssistant & WithFiles>(ctx, schemas))
    const { work, projectId } = ctx.state
    const tools = body.tools.map(filledTool)
    const assistant: Omit<AssistantRow, 'seq'> = {
      id: idFrom('assistant', work?.id ?? randomUUID()),
      project_id: projectId,
      name: body.name ?? null,
      description: body.description ?? null,
      model: body.model,
      instructions: body.instructions ?? null,
      tools,
      tool_resources: assistantResources(tools),
      metadata: body.metadata ?? {},
      temperature: body.temperature,
      top_p: body.top_p,
      reasoning_effort: body.reasoning_effort ?? null,
      response_format: body.response_format ?? 'auto',
      on_active_run: body.on_active_run ?? null,
      fallback_models: body.fallback_models ?? [],
      created_at: new Date(),
    }
    const named = body.file_ids ? { files: body.file_ids } : namedResources(body.tool_resources)
    const before = work?.isRepeated && (await store.assistants.get(projectId, assistant.id))
    ctx.body = presentAssistant(before || (await store.assistants.create(assistant, named)))
  }

  async function get(ctx: Context): Promise<void> {
    ctx.body = presentAssistant(await find(ctx))
  }

  async function modify(ctx: Context): Promise<void> {
    const id = pathId(ctx, 'assistant_id', 'assistant')
    const schemas = { v1: v1.ModifyAssistant, v2: ModifyAssistant }
    const schema = bodyOf<ModifyAssistant & WithFiles>(ctx, schemas)
    const body = await readBody(ctx, schema, () => find(ctx))
    const {
      metadata,
      tools: given,
      tool_resources,
      file_ids,
      response_format,
      fallback_models,
      ...plain
    } = body
    const tools = given?.map(filledTool)
    const named =
      ctx.state.dialect === 'v1'
        ? { files: 'set' as const, fileIds: file_ids, tools }
        : namedResources(tool_resources)
    const row = await store.assistants.modify(ctx.state.projectId, id, named, (before, settled) => {
      const toolsNow = tools ?? before.tools
      return {
        ...(Object.fromEntries(
          Object.entries(plain).filter(([, value]) => value !== undefined),
        ) as Partial<AssistantRow>),
        tools: toolsNow,
        tool_resources: assistantResources(toolsNow, { ...before.tool_resources, ...settled }),
        ...(fallback_models !== undefined && { fallback_models: fallback_models ?? [] }),
        ...(response_format !== undefined && { response_format: response_format ?? 'auto' }),
        metadata,
      }
    })
    if (!row) throw notFound('assistant', id)
    ctx.body = presentAssistant(row)
  }

  async function remove(ctx: Context): Promise<void> {
    const id = pathId(ctx, 'assistant_id', 'assistant')
    if (!(await store.assistants.delete(ctx.state.projectId, id))) throw notFound('assistant', id)
    ctx.body = { id, object: 'assistant.deleted', deleted: true } satisfies AssistantDeleted
  }

  async function find(ctx: Context): Promise<AssistantRow> {
    const id = pathId(ctx, 'assistant_id', 'assistant')
    const row = await store.assistants.get(ctx.state.projectId, id)
    if (!row) throw notFound('assistant', id)
    return row
  }
}

/** What a client of v1 says in place of `tool_resources`. */
type WithFiles = { file_ids?: string[] | undefined }

/** An assistant with a code interpreter always shows its list of files, even an empty one. */
function assistantResources(tools: ToolRow[], resources: ToolResources = {}): ToolResources {
  const hasInterpreter = tools.some(({ type }) => type === 'code_interpreter')
  return {
    ...(hasInterpreter && { code_interpreter: { file_ids: [] } }),
    ...resources,
  }
}
