import type { Router } from '@koa/router'

import { usageTooWide } from '../wire/errors.ts'
import { MAX_USAGE_ROWS } from '../wire/limits.ts'
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
    const rows = await usageSums.of({
      projectId,
      kind,
      // A project may name itself, and sees no other.
      id: id ?? projectId,
      from: from ?? dayOf(Date.now() - (shownDays - 1) * dayMs),
      to: to ?? dayOf(Date.now()),
      limit: MAX_USAGE_ROWS + 1,
    })
    if (rows.length > MAX_USAGE_ROWS) throw usageTooWide(MAX_USAGE_ROWS)
    ctx.body = { object: 'list', data: rows.map(presentUsage) }
  })
}

function dayOf(time: number): string {
  return new Date(time).toISOString().slice(0, 10)
}
