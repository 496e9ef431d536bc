import type { Router } from '@koa/router'
import { randomUUID } from 'node:crypto'

import type { ThreadRow } from '../store/rows.ts'
import { notFound } from '../wire/errors.ts'
import { idFrom } from '../wire/ids.ts'
import type { ThreadDeleted } from '../wire/openai.ts'
import { presentThread } from '../wire/present/thread.ts'
import type { ApiDeps } from './app.ts'
import { bodyOf, pathId, readBody, type Context, type State } from './context.ts'
import { newMessage } from './messages.ts'
import { CreateThread, ModifyThread } from './threads.schema.ts'
import { namedResources } from './tools.ts'
import * as v1 from './v1.schema.ts'

export function threadRoutes(router: Router<State>, { store }: ApiDeps): void {
  router.post('/threads', create)
  router.get('/threads/:thread_id', get)
  router.post('/threads/:thread_id', modify)
  router.delete('/threads/:thread_id', remove)

  async function create(ctx: Context): Promise<void> {
    const schema = bodyOf<CreateThread>(ctx, { v1: v1.CreateThread, v2: CreateThread })
    const body = await readBody(ctx, schema)
    const { work, projectId } = ctx.state
    const { thread, messages } = newThread(body, work?.id)
    const before = work?.isRepeated && (await store.threads.get(projectId, thread.id))
    ctx.body = presentThread(before || (await store.threads.create(projectId, thread, messages)))
  }

  async function get(ctx: Context): Promise<void> {
    ctx.body = presentThread(await find(ctx))
  }

  async function modify(ctx: Context): Promise<void> {
    const id = pathId(ctx, 'thread_id', 'thread')
    const schema = bodyOf<ModifyThread>(ctx, { v1: v1.ModifyThread, v2: ModifyThread })
    const body = await readBody(ctx, schema, () => find(ctx))
    const named = namedResources(body.tool_resources)
    const row = await store.threads.modify(ctx.state.projectId, id, named, body.metadata)
    if (!row) throw notFound('thread', id)
    ctx.body = presentThread(row)
  }

  async function remove(ctx: Context): Promise<void> {
    const id = pathId(ctx, 'thread_id', 'thread')
    await store.threads.delete(ctx.state.projectId, id)
    ctx.body = { id, object: 'thread.deleted', deleted: true } satisfies ThreadDeleted
  }

  async function find(ctx: Context): Promise<ThreadRow> {
    const id = pathId(ctx, 'thread_id', 'thread')
    const row = await store.threads.get(ctx.state.projectId, id)
    if (!row) throw notFound('thread', id)
    return row
  }
}

/** A thread and its first messages, as rows to be. */
export function newThread(body: CreateThread, uuid: string = randomUUID()) {
  return {
    thread: {
      id: idFrom('thread', uuid),
      resources: namedResources(body.tool_resources),
      metadata: body.metadata ?? {},
    },
    messages: body.messages.map(newMessage),
  }
}
