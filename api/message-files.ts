import type { Router } from '@koa/router'

import type { MessageRow } from '../store/rows.ts'
import { notFound } from '../wire/errors.ts'
import { presentMessageFiles } from '../wire/present/message-file.ts'
import type { ApiDeps } from './app.ts'
import { pathId, type Context, type State } from './context.ts'
import { ListQuery } from './lists.schema.ts'
import { onlyV1 } from './middleware/dialect.ts'
import { shortList } from './short-list.ts'
import { parseQuery } from './validation.ts'

/** The files of a message, which v2 names in its `attachments`. */
export function messageFileRoutes(router: Router<State>, { store }: ApiDeps): void {
  router.get('/threads/:thread_id/messages/:message_id/files', onlyV1, list)
  router.get('/threads/:thread_id/messages/:message_id/files/:file_id', onlyV1, get)

  async function list(ctx: Context): Promise<void> {
    const message = await findMessage(ctx)
    const query = parseQuery(ListQuery, ctx.query)
    ctx.body = shortList(presentMessageFiles(message), query)
  }

  async function get(ctx: Context): Promise<void> {
    const id = pathId(ctx, 'file_id', 'file')
    const files = presentMessageFiles(await findMessage(ctx))
    const file = files.find((one) => one.id === id)
    if (!file) throw notFound('message file', id)
    ctx.body = file
  }

  async function findMessage(ctx: Context): Promise<MessageRow> {
    const threadId = pathId(ctx, 'thread_id', 'thread')
    const id = pathId(ctx, 'message_id', 'message')
    const row = await store.messages.get(ctx.state.projectId, id)
    if (row && row.thread_id === threadId) return row
    const thread = await store.threads.get(ctx.state.projectId, threadId)
    throw thread ? notFound('message', id) : notFound('thread', threadId)
  }
}
