import type { Router } from '@koa/router'
import { randomUUID } from 'node:crypto'

import type { ThreadRow } from '../store/rows.ts'
import { notFound } from '../wire/errors.ts'
import { idFrom } from '../wire/ids.ts'
import { presentThread } from '../wire/present/thread.ts'
import type { ApiDeps } from './app.ts'
import { pathId, readBody, type Context, type State } from './context.ts'
import { newMessage } from './messages.ts'
import { CreateThread, ModifyThread } from './threads.schema.ts'
import { storedResources } from './tools.ts'

export function threadRoutes(router: Router<State>, { store }: ApiDeps): void {
  router.post('/threads', create)
  router.get('/threads/:thread_id', get)
  router.post('/threads/:thread_id', modify)
  router.delete('/threads/:thread_id', remove)

  async function create(ctx: Context): Promise<void> {
    const body = await readBody(ctx, CreateThread)
    const { thread, messages } = newThread(body)
    ctx.body = presentThread(await store.threads.create(ctx.state.projectId, thread, messages))
  }

  async function get(ctx: Context): Promise<void> {
    ctx.body = presentThread(await find(ctx))
  }

  async function modify(ctx: Context): Promise<void> {
    const id = pathId(ctx, 'thread_id', 'thread')
    const body = await readBody(ctx, ModifyThread, () => find(ctx))
    const row = await store.threads.modify(ctx.state.projectId, id, (before) => ({
      tool_resources: { ...before.tool_resources, ...storedResources(body.tool_resources) },
      metadata: body.metadata,
    }))
    if (!row) throw notFound('thread', id)
    ctx.body = presentThread(row)
  }

  async function remove(ctx: Context): Promise<void> {
    const id = pathId(ctx, 'thread_id', 'thread')
    await store.threads.delete(ctx.state.projectId, id)
    ctx.body = { id, object: 'thread.deleted', deleted: true }
  }

  async function find(ctx: Context): Promise<ThreadRow> {
    const id = pathId(ctx, 'thread_id', 'thread')
    const row = await store.threads.get(ctx.state.projectId, id)
    if (!row) throw notFound('thread', id)
    return row
  }
}

/** A thread and its first messages, as rows to be. */
export function newThread(body: CreateThread) {
  return {
    thread: {
      id: idFrom('thread', randomUUID()),
      tool_resources: storedResources(body.tool_resources),
      metadata: body.metadata ?? {},
    },
    messages: body.messages.map(newMessage),
  }
}
