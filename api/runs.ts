import type { Router } from '@koa/router'
import { randomUUID } from 'node:crypto'

import type { RunRow } from '../store/rows.ts'
import type { CreatedRun, NewRun } from '../store/run-create.ts'
import { ApiError, notFound } from '../wire/errors.ts'
import { endsStream } from '../wire/events.ts'
import { idFrom } from '../wire/ids.ts'
import { page } from '../wire/page.ts'
import { presentRun } from '../wire/present/run.ts'
import { isSettled } from '../wire/run-status.ts'
import type { ApiDeps } from './app.ts'
import { bodyOf, pathId, readBody, type Context, type State } from './context.ts'
import { inspectedRun } from './inspection.ts'
import { GetRunQuery, IncludeQuery, ListQuery } from './lists.schema.ts'
import { newMessage } from './messages.ts'
import { onActiveRunOf } from './on-active-run.ts'
import { onClose, streamRun } from './run-stream.ts'
import { CreateRun, CreateThreadAndRun, ModifyRun, SubmitToolOutputs } from './runs.schema.ts'
import { CreateThread } from './threads.schema.ts'
import { newThread } from './threads.ts'
import { filledTool, namedResources } from './tools.ts'
import * as v1 from './v1.schema.ts'
import { parse, parseQuery } from './validation.ts'

/** What poll helpers sleep between two looks where they do not announce themselves; the SDKs' own default is seconds. */
const pollAfterMs = 50
/** How long a poll that announces itself is held at most. */
const holdMs = 5000

export function runRoutes(router: Router<State>, deps: ApiDeps): void {
  const { store, engine } = deps
  router.post('/threads/runs', createThreadAndRun)
  router.get('/threads/:thread_id/runs', list)
  router.post('/threads/:thread_id/runs', create)
  router.get('/threads/:thread_id/runs/:run_id', get)
  router.post('/threads/:thread_id/runs/:run_id', modify)
  router.post('/threads/:thread_id/runs/:run_id/cancel', cancel)
  router.post('/threads/:thread_id/runs/:run_id/submit_tool_outputs', submitToolOutputs)

  async function create(ctx: Context): Promise<void> {
    const threadId = pathId(ctx, 'thread_id', 'thread')
    parseQuery(IncludeQuery, ctx.query)
    const schema = bodyOf<CreateRun>(ctx, { v1: v1.CreateRun, v2: CreateRun })
    const body = await readBody(ctx, schema, () => findThread(ctx))
    const messages = (body.additional_messages ?? []).map(newMessage)
    await begin(ctx, body, (run) =>
      store.runs.create(run, threadId as RunRow['thread_id'], messages),
    )
  }

  async function createThreadAndRun(ctx: Context): Promise<void> {
    const schemas = { v1: v1.CreateThreadAndRun, v2: CreateThreadAndRun }
    const schema = bodyOf<CreateThreadAndRun>(ctx, schemas)
    const { thread: given, tool_resources, ...body } = await readBody(ctx, schema)
    const { thread, messages } = newThread(given ?? parse(CreateThread, {}))
    const additional = (body.additional_messages ?? []).map(newMessage)
    await begin(ctx, body, (run) =>
      store.runs.create(
        { ...run, ...(tool_resources && { toolResources: namedResources(tool_resources) }) },
        thread,
        [...messages, ...additional.map((message) => ({ ...message, came_with: run.id }))],
      ),
    )
  }

  /** The part that both ways to create a run share: rows first, Temporal after the answer has begun. */
  async function begin(
    ctx: Context,
    body: CreateRun,
    insert: (run: NewRun) => Promise<CreatedRun>,
  ): Promise<void> {
    const run = newRun(ctx, body)
    // An earlier attempt may have come this far, in a process that died before it could answer.
    const before = ctx.state.work?.isRepeated && (await store.runs.get(run.project_id, run.id))
    if (before)
      return body.stream ? streamRun(deps, ctx, { runId: run.id, after: 0 }) : answer(ctx, before)
    if (!body.stream) {
      const created = await insert(run)
      engine.deliver(run.id, created.commands)
      answer(ctx, created.run)
      return
    }
    // Followed from before its first event, so that nothing has to be read back.
    const closed = onClose(ctx)
    const events = store.events.follow(run.id, 0, { signal: closed.signal, fresh: true })
    try {
      engine.deliver(run.id, (await insert(run)).commands)
    } catch (error) {
      closed.abort('refused')
      throw error
    }
    streamRun(deps, ctx, { runId: run.id, after: 0 }, events)
  }

  async function submitToolOutputs(ctx: Context): Promise<void> {
    const body = await readBody(ctx, SubmitToolOutputs, () => find(ctx))
    const key = keyOf(ctx)
    const { isRepeated = false } = ctx.state.work ?? {}
    const submitted = store.runs.submitOutputs(key, body.tool_outputs, isRepeated)
    const { run, after } = await orMissing(ctx, submitted)
    engine.deliver(run.id)
    if (!body.stream) return answer(ctx, run)
    streamRun(deps, ctx, { runId: run.id, after })
  }

  async function cancel(ctx: Context): Promise<void> {
    const { isRepeated = false } = ctx.state.work ?? {}
    const run = await orMissing(ctx, store.runs.requestCancel(keyOf(ctx), isRepeated))
    engine.deliver(run.id)
    answer(ctx, run)
  }

  async function get(ctx: Context): Promise<void> {
    const isPoll = ctx.get('x-stainless-poll-helper') === 'true'
    const { wait: waitS } = parseQuery(GetRunQuery, ctx.query)
    const ms = waitS === undefined ? (isPoll ? holdMs : 0) : waitS * 1000
    const run = ms > 0 ? await findSettled(ctx, ms) : await find(ctx)
    answer(ctx, run)
    ctx.body = await inspectedRun(store, run.id)
  }

  async function list(ctx: Context): Promise<void> {
    const threadId = await findThread(ctx)
    const query = parseQuery(ListQuery, ctx.query)
    const found = await store.runs.list({ thread_id: threadId }, query)
    ctx.body = page(found.rows.map(presentRun), found.hasMore)
  }

  async function modify(ctx: Context): Promise<void> {
    const body = await readBody(ctx, ModifyRun, () => find(ctx))
    const { id } = await find(ctx)
    const row = await store.runs.modify(ctx.state.projectId, id, { metadata: body.metadata })
    if (!row) throw notFound('run', id)
    answer(ctx, row)
  }

  function answer(ctx: Context, row: RunRow): void {
    const inspect = deps.inspectUrl(row.id)
    if (inspect) ctx.set('x-run-inspect-url', inspect)
    ctx.set('openai-poll-after-ms', String(pollAfterMs))
    ctx.body = presentRun(row)
  }

  /** The run once it is settled, or as it is after `ms`. */
  async function findSettled(ctx: Context, ms: number): Promise<RunRow> {
    const run = await find(ctx)
    if (isSettled(run.status)) return run
    const after = await store.events.tip(run.id)
    const again = await find(ctx)
    if (isSettled(again.status)) return again
    const signal = AbortSignal.any([onClose(ctx).signal, AbortSignal.timeout(ms), deps.draining])
    for await (const events of store.events.follow(run.id, after, { signal })) {
      if (events.some(({ event }) => endsStream(event))) break
    }
    return find(ctx)
  }

  async function find(ctx: Context): Promise<RunRow> {
    const { projectId, threadId, runId } = keyOf(ctx)
    const row = await store.runs.get(projectId, runId)
    if (row && row.thread_id === threadId) return row
    await findThread(ctx)
    throw notFound('run', runId)
  }

  /** A run that is not there may be missing because its thread is; then that is what the answer says. */
  async function orMissing<T>(ctx: Context, change: Promise<T>): Promise<T> {
    try {
      return await change
    } catch (error) {
      if (error instanceof ApiError && error.status === 404) await findThread(ctx)
      throw error
    }
  }

  async function findThread(ctx: Context): Promise<string> {
    const id = pathId(ctx, 'thread_id', 'thread')
    if (!(await store.threads.get(ctx.state.projectId, id))) throw notFound('thread', id)
    return id
  }

  function newRun(ctx: Context, body: CreateRun): NewRun {
    return {
      id: idFrom('run', ctx.state.work?.id ?? randomUUID()),
      project_id: ctx.state.projectId,
      assistant_id: body.assistant_id as RunRow['assistant_id'],
      metadata: body.metadata ?? {},
      created_at: new Date(),
      onActiveRun: body.on_active_run ?? onActiveRunOf(ctx),
      expiresAfterS: body.expires_after_seconds ?? null,
      defaultExpiresAfterS: deps.runExpiresAfterS,
      max_prompt_tokens: body.max_prompt_tokens ?? null,
      max_completion_tokens: body.max_completion_tokens ?? null,
      truncation_strategy: body.truncation_strategy,
      tool_choice: body.tool_choice,
      parallel_tool_calls: body.parallel_tool_calls,
      max_steps: body.max_steps == null ? null : Math.min(body.max_steps, deps.maxSteps),
      additionalInstructions: body.additional_instructions ?? null,
      overrides: {
        ...(body.model && { model: body.model }),
        // Empty ones are an override as well: only null stands for the assistant's.
        ...(body.instructions != null && { instructions: body.instructions }),
        ...(body.tools && { tools: body.tools.map(filledTool) }),
        ...(body.temperature != null && { temperature: body.temperature }),
        ...(body.top_p != null && { top_p: body.top_p }),
        ...(body.reasoning_effort && { reasoning_effort: body.reasoning_effort }),
        ...(body.response_format && { response_format: body.response_format }),
        ...(body.fallback_models && { fallback_models: body.fallback_models }),
      },
    }
  }
}

function keyOf(ctx: Context) {
  return {
    projectId: ctx.state.projectId,
    threadId: pathId(ctx, 'thread_id', 'thread'),
    runId: pathId(ctx, 'run_id', 'run'),
  }
}
