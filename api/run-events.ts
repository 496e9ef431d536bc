import type { Router } from '@koa/router'

import type { LogState } from '../store/events.ts'
import type { RunRow } from '../store/rows.ts'
import { ApiError } from '../wire/errors.ts'
import type { StoredEvent } from '../wire/events.ts'
import { MAX_STEPS } from '../wire/limits.ts'
import { presentMessage } from '../wire/present/message.ts'
import { presentRun } from '../wire/present/run.ts'
import type { RunSnapshot } from '../wire/present/run-snapshot.ts'
import type { ApiDeps } from './app.ts'
import type { Context, State } from './context.ts'
import { RunEventsQuery } from './lists.schema.ts'
import { onClose, streamRun } from './run-stream.ts'
import { findRun, presentSteps } from './run-steps.ts'
import { parse, parseQuery } from './validation.ts'

/**
 * The stream of a run for whoever comes later, comes back, or watches: what comes after an event that the client names, up to
 * where the stream of a request would end. On any api process, while the run waits for its client, and after its end.
 */
export function runEventRoutes(router: Router<State>, deps: ApiDeps): void {
  const { store } = deps
  router.get('/threads/:thread_id/runs/:run_id/events', async (ctx) => {
    const after = placeOf(ctx)
    const run = await findRun(deps, ctx)
    const state = await store.events.state(run.id)
    if (state && after > state.last_seq) {
      const message = `Invalid value for 'after': the newest event of this run is ${state.last_seq}.`
      throw new ApiError(400, message, { param: 'after' })
    }
    streamRun(deps, ctx, { runId: run.id, after }, resumed(ctx, run, after, state))
  })

  async function* resumed(
    ctx: Context,
    run: RunRow,
    after: number,
    state: LogState | undefined,
  ): AsyncGenerator<StoredEvent[], 'over' | 'gone'> {
    // Its last event was the last that the client has.
    if (state?.closed_at && after === state.last_seq) return 'over'
    if (state?.holds === 'nothing') {
      yield [await snapshot(run, state)]
      return 'over'
    }
    let seen = after
    for await (const events of store.events.follow(run.id, after, onClose(ctx))) {
      const gapAt = events.findIndex(({ seq }, index) => seq !== seen + index + 1)
      if (gapAt < 0) {
        yield events
        seen += events.length
        continue
      }
      // What is gone was removed a while after the end of the run, so that all it came to is known.
      const { last_seq } = (await store.events.state(run.id)) ?? { last_seq: seen }
      yield [...events.slice(0, gapAt), await snapshot(run, { last_seq })]
      return 'over'
    }
    return 'gone'
  }

  async function snapshot(
    { id, project_id }: RunRow,
    { last_seq }: Pick<LogState, 'last_seq'>,
  ): Promise<StoredEvent> {
    const run = await store.runs.get(project_id, id)
    if (!run) throw new Error(`Run ${id} was deleted`)
    const all = { limit: mostParts, order: 'asc' } as const
    const steps = await store.steps.list(id, all)
    const messages = await store.messages.list({ run_id: id, superseded: false }, all)
    const data: RunSnapshot = {
      object: 'thread.run.snapshot',
      run: presentRun(run),
      steps: await presentSteps(deps, run, steps.rows),
      messages: messages.rows.map(presentMessage),
    }
    return { seq: last_seq, event: 'snapshot', data: JSON.stringify(data) }
  }
}

/** A turn writes a message and asks for tools: two steps. */
const mostParts = 2 * MAX_STEPS

/** Browsers come back with the header; it is newer than what their URL still says. */
function placeOf(ctx: Context): number {
  const { after } = parseQuery(RunEventsQuery, ctx.query)
  const header = ctx.get('last-event-id')
  if (header === '') return after
  return parse(RunEventsQuery, { after: header }).after
}
