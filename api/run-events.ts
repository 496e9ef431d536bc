import type { Router } from '@koa/router'

import { ApiError } from '../wire/errors.ts'
import type { ApiDeps } from './app.ts'
import type { Context, State } from './context.ts'
import { RunEventsQuery } from './lists.schema.ts'
import { streamRun } from './run-stream.ts'
import { findRun } from './run-steps.ts'
import { parse, parseQuery } from './validation.ts'

/**
 * The stream of a run for whoever comes later, comes back, or watches: what comes after an event that the client names, up to
 * the end of the run, or to where it waits for its client. On any api process, while it waits, and after its end.
 */
export function runEventRoutes(router: Router<State>, deps: ApiDeps): void {
  router.get('/threads/:thread_id/runs/:run_id/events', async (ctx) => {
    const after = placeOf(ctx)
    const { id: runId } = await findRun(deps, ctx)
    const newest = await deps.store.events.tip(runId)
    if (after > newest) {
      const message = `Invalid value for 'after': the newest event of this run is ${newest}.`
      throw new ApiError(400, message, { param: 'after' })
    }
    streamRun(deps, ctx, { runId, after, isWatched: true })
  })
}

/** Browsers come back with the header; it is newer than what their URL still says. */
function placeOf(ctx: Context): number {
  const { after } = parseQuery(RunEventsQuery, ctx.query)
  const header = ctx.get('last-event-id')
  if (header === '') return after
  return parse(RunEventsQuery, { after: header }).after
}
