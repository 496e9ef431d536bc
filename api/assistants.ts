import type { Router } from '@koa/router'
import { randomUUID } from 'node:crypto'

import type { AssistantRow, ToolRow } from '../store/rows.ts'
import { notFound } from '../wire/errors.ts'
import { idFrom } from '../wire/ids.ts'
import { page } from '../wire/page.ts'
import { presentAssistant } from '../wire/present/assistant.ts'
import type { ApiDeps } from './app.ts'
import { CreateAssistant, ModifyAssistant } from './assistants.schema.ts'
import { pathId, readBody, type Context, type State } from './context.ts'
import { ListQuery } from './lists.schema.ts'
import { filledTool, storedResources } from './tools.ts'
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
    const body = await readBody(ctx, CreateAssistant)
    const tools = body.tools.map(filledTool)
    const row = await store.assistants.create({
      id: idFrom('assistant', randomUUID()),
      project_id: ctx.state.projectId,
      name: body.name ?? null,
      description: body.description ?? null,
      model: body.model,
      instructions: body.instructions ?? null,
      tools,
      tool_resources: assistantResources(tools, body.tool_resources),
      metadata: body.metadata ?? {},
      temperature: body.temperature,
      top_p: body.top_p,
      reasoning_effort: body.reasoning_effort ?? null,
      response_format: body.response_format ?? 'auto',
      created_at: new Date(),
    })
    ctx.body = presentAssistant(row)
  }

  async function get(ctx: Context): Promise<void> {
    ctx.body = presentAssistant(await find(ctx))
  }

  async function modify(ctx: Context): Promise<void> {
    const id = pathId(ctx, 'assistant_id', 'assistant')
    const body = await readBody(ctx, ModifyAssistant, () => find(ctx))
    const { metadata, tools, tool_resources, response_format, ...plain } = body
    const row = await store.assistants.modify(ctx.state.projectId, id, (before) => {
      const toolsNow = tools?.map(filledTool) ?? before.tools
      return {
        ...(Object.fromEntries(
          Object.entries(plain).filter(([, value]) => value !== undefined),
        ) as Partial<AssistantRow>),
        tools: toolsNow,
        tool_resources: assistantResources(toolsNow, tool_resources, before),
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
    ctx.body = { id, object: 'assistant.deleted', deleted: true }
  }

  async function find(ctx: Context): Promise<AssistantRow> {
    const id = pathId(ctx, 'assistant_id', 'assistant')
    const row = await store.assistants.get(ctx.state.projectId, id)
    if (!row) throw notFound('assistant', id)
    return row
  }
}

/** An assistant with a code interpreter always shows its list of files, even an empty one. */
function assistantResources(
  tools: ToolRow[],
  given: Parameters<typeof storedResources>[0],
  before?: AssistantRow,
): AssistantRow['tool_resources'] {
  const resources = { ...before?.tool_resources, ...storedResources(given) }
  const hasInterpreter = tools.some(({ type }) => type === 'code_interpreter')
  return {
    ...(hasInterpreter && { code_interpreter: { file_ids: [] } }),
    ...resources,
  }
}
