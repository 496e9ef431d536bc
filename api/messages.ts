import type { Router } from '@koa/router'
import { randomUUID } from 'node:crypto'

import type { ContentPart, MessageRow } from '../store/rows.ts'
import type { NewMessage } from '../store/thread-rows.ts'
import { notFound } from '../wire/errors.ts'
import { idFrom } from '../wire/ids.ts'
import type { MessageDeleted } from '../wire/openai.ts'
import { page } from '../wire/page.ts'
import { presentMessage } from '../wire/present/message.ts'
import type { ApiDeps } from './app.ts'
import { bodyOf, pathId, readBody, type Context, type State } from './context.ts'
import { ListMessagesQuery } from './lists.schema.ts'
import { CreateMessage, ModifyMessage, type ContentPart as GivenPart } from './messages.schema.ts'
import { onActiveRunOf } from './on-active-run.ts'
import * as v1 from './v1.schema.ts'
import { parseQuery } from './validation.ts'

export function messageRoutes(router: Router<State>, { store }: ApiDeps): void {
  router.get('/threads/:thread_id/messages', list)
  router.post('/threads/:thread_id/messages', create)
  router.get('/threads/:thread_id/messages/:message_id', get)
  router.post('/threads/:thread_id/messages/:message_id', modify)
  router.delete('/threads/:thread_id/messages/:message_id', remove)

  async function list(ctx: Context): Promise<void> {
    const threadId = await findThread(ctx)
    const { run_id: runId, ...query } = parseQuery(ListMessagesQuery, ctx.query)
    const where = { thread_id: threadId, superseded: false, ...(runId && { run_id: runId }) }
    const found = await store.messages.list(where, query)
    ctx.body = page(found.rows.map(presentMessage), found.hasMore)
  }

  async function create(ctx: Context): Promise<void> {
    const threadId = pathId(ctx, 'thread_id', 'thread')
    const schema = bodyOf<CreateMessage>(ctx, { v1: v1.CreateMessage, v2: CreateMessage })
    const body = await readBody(ctx, schema, () => findThread(ctx))
    const { work, projectId } = ctx.state
    const message = { ...newMessage(body), ...(work && { id: idFrom('message', work.id) }) }
    const before = work?.isRepeated && (await store.messages.get(projectId, message.id))
    const create = () => store.messages.create(projectId, threadId, message, onActiveRunOf(ctx))
    ctx.body = presentMessage(before || (await create()))
  }

  async function get(ctx: Context): Promise<void> {
    ctx.body = presentMessage(await find(ctx))
  }

  async function modify(ctx: Context): Promise<void> {
    const body = await readBody(ctx, ModifyMessage, () => find(ctx))
    const { id } = await find(ctx)
    const row = await store.messages.modify(ctx.state.projectId, id, { metadata: body.metadata })
    if (!row) throw notFound('message', id)
    ctx.body = presentMessage(row)
  }

  async function remove(ctx: Context): Promise<void> {
    const { id } = await find(ctx)
    await store.messages.delete(ctx.state.projectId, id)
    ctx.body = { id, object: 'thread.message.deleted', deleted: true } satisfies MessageDeleted
  }

  async function findThread(ctx: Context): Promise<string> {
    const id = pathId(ctx, 'thread_id', 'thread')
    if (!(await store.threads.get(ctx.state.projectId, id))) throw notFound('thread', id)
    return id
  }

  async function find(ctx: Context): Promise<MessageRow> {
    const threadId = pathId(ctx, 'thread_id', 'thread')
    const id = pathId(ctx, 'message_id', 'message')
    const row = await store.messages.get(ctx.state.projectId, id)
    if (row && row.thread_id === threadId) return row
    await findThread(ctx)
    throw notFound('message', id)
  }
}

/** A message that a client writes, as a row to be. */
export function newMessage(body: CreateMessage): NewMessage {
  const content =
    typeof body.content === 'string' ? [textPart(body.content)] : body.content.map(part)
  return {
    id: idFrom('message', randomUUID()),
    role: body.role,
    content,
    attachments: body.attachments ?? [],
    metadata: body.metadata ?? {},
  }
}

function part(given: GivenPart): ContentPart {
  switch (given.type) {
    case 'text':
      return textPart(given.text)
    case 'image_file':
      return { type: 'image_file', image_file: given.image_file }
    case 'image_url':
      return { type: 'image_url', image_url: given.image_url }
    default:
      return given satisfies never
  }
}

function textPart(value: string): ContentPart {
  return { type: 'text', text: { value, annotations: [] } }
}
