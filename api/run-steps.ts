import type { Router } from '@koa/router'

import type { RunRow, RunStepRow } from '../store/rows.ts'
import { notFound } from '../wire/errors.ts'
import { page } from '../wire/page.ts'
import { presentRunStep, type RunStepObject } from '../wire/present/run-step.ts'
import { isTerminal } from '../wire/run-status.ts'
import type { ApiDeps } from './app.ts'
import { pathId, type Context, type State } from './context.ts'
import { IncludeQuery, ListStepsQuery } from './lists.schema.ts'
import { parseQuery } from './validation.ts'

export function stepRoutes(router: Router<State>, deps: ApiDeps): void {
  const { store } = deps
  router.get('/threads/:thread_id/runs/:run_id/steps', list)
  router.get('/threads/:thread_id/runs/:run_id/steps/:step_id', get)

  async function list(ctx: Context): Promise<void> {
    const run = await findRun(deps, ctx)
    const { include: _, ...query } = parseQuery(ListStepsQuery, ctx.query)
    const found = await store.steps.list(run.id, query)
    ctx.body = page(await presentSteps(deps, run, found.rows), found.hasMore)
  }

  async function get(ctx: Context): Promise<void> {
    const stepId = pathId(ctx, 'step_id', 'step')
    const run = await findRun(deps, ctx)
    parseQuery(IncludeQuery, ctx.query)
    const step = await store.steps.get(run.id, stepId)
    if (!step) throw notFound('run step', stepId)
    const [object] = await presentSteps(deps, run, [step])
    ctx.body = object
  }
}

export async function presentSteps(
  { store }: Pick<ApiDeps, 'store'>,
  run: RunRow,
  steps: RunStepRow[],
): Promise<RunStepObject[]> {
  const calls = await store.steps.calls(steps)
  const expiresAt = isTerminal(run.status) ? null : run.expires_at
  return steps.map((step) => presentRunStep(step, calls.get(step.id) ?? [], expiresAt))
}

/** The run that the path names. Throws notFound, of the thread where that is missing too. */
export async function findRun({ store }: Pick<ApiDeps, 'store'>, ctx: Context): Promise<RunRow> {
  const threadId = pathId(ctx, 'thread_id', 'thread')
  const runId = pathId(ctx, 'run_id', 'run')
  const run = await store.runs.get(ctx.state.projectId, runId)
  if (run && run.thread_id === threadId) return run
  const thread = await store.threads.get(ctx.state.projectId, threadId)
  throw thread ? notFound('run', runId) : notFound('thread', threadId)
}
