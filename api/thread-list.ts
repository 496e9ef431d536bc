import type { Router } from '@koa/router'

import { page } from '../wire/page.ts'
import { presentThread } from '../wire/present/thread.ts'
import type { ApiDeps } from './app.ts'
import type { Context, State } from './context.ts'
import { parseListThreads } from './thread-list.schema.ts'

/** Ours: `GET /v1/threads`; the original had no list of threads. */
export function threadListRoutes(router: Router<State>, { store }: ApiDeps): void {
  router.get('/threads', async (ctx: Context) => {
    const { metadata, assistant_id, q, created_after, created_before, has_active_run, ...query } =
      parseListThreads(ctx.query)
    const filter = {
      metadata,
      q,
      assistantId: assistant_id,
      createdAfter: dateOf(created_after),
      createdBefore: dateOf(created_before),
      hasActiveRun: has_active_run,
    }
    const found = await store.threads.list(ctx.state.projectId, filter, query)
    ctx.body = page(found.rows.map(presentThread), found.hasMore)
  })
}

function dateOf(seconds: number | undefined): Date | undefined {
  return seconds === undefined ? undefined : new Date(seconds * 1000)
}
