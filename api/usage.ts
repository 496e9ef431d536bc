import type { Router } from '@koa/router'

import { presentUsage } from '../wire/present/usage.ts'
import type { ApiDeps } from './app.ts'
import type { Context, State } from './context.ts'
import { UsageQuery } from './usage.schema.ts'
import { parseQuery } from './validation.ts'

const dayMs = 86_400_000
const shownDays = 30

/** Ours: `GET /v1/usage`, what Runs used and cost, by day and model. */
export function usageRoutes(router: Router<State>, { store: { usageSums } }: ApiDeps): void {
  router.get('/usage', async (ctx: Context) => {
    const { projectId } = ctx.state
    const { kind, id, from, to } = parseQuery(UsageQuery, ctx.query)
    // Nobody should have to wait for the next round of the sums.
    await usageSums.fold()
    const rows = await usageSums.of({
      projectId,
      kind,
      // A project may name itself, and sees no other.
      id: id ?? projectId,
      from: from ?? dayOf(Date.now() - (shownDays - 1) * dayMs),
      to: to ?? dayOf(Date.now()),
    })
    ctx.body = { object: 'list', data: rows.map(presentUsage) }
  })
}

function dayOf(time: number): string {
  return new Date(time).toISOString().slice(0, 10)
}
