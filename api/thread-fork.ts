import type { Router } from '@koa/router'
import { randomUUID } from 'node:crypto'

import { notFound } from '../wire/errors.ts'
import { idFrom } from '../wire/ids.ts'
import { presentThread } from '../wire/present/thread.ts'
import type { ApiDeps } from './app.ts'
import { pathId, readBody, type Context, type State } from './context.ts'
import { ForkThread } from './threads.schema.ts'

/** Ours: `POST /v1/threads/{id}/fork`, also while a run is at work: what it has written so far is left out. */
export function threadForkRoutes(router: Router<State>, { store: { threads } }: ApiDeps): void {
  router.post('/threads/:thread_id/fork', async (ctx: Context) => {
    const { projectId, work } = ctx.state
    const threadId = pathId(ctx, 'thread_id', 'thread')
    const body = await readBody(ctx, ForkThread, async () => {
      if (!(await threads.get(projectId, threadId))) throw notFound('thread', threadId)
    })
    const id = idFrom('thread', work?.id ?? randomUUID())
    const before = work?.isRepeated && (await threads.get(projectId, id))
    ctx.body = presentThread(
      before ||
        (await threads.fork(projectId, threadId, {
          id,
          messageId: body.message_id ?? undefined,
          metadata: body.metadata ?? {},
        })),
    )
  })
}
