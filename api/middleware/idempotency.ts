import { createHash } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'

import type { Middleware } from 'koa'

import type { Answer, Work } from '../../store/idempotency.ts'
import { ApiError } from '../../wire/errors.ts'
import type { ApiDeps } from '../app.ts'
import { rawBody, type Context, type State } from '../context.ts'
import { onClose, streamRun, type RunStream } from '../run-stream.ts'

type Deps = Pick<ApiDeps, 'store' | 'draining' | 'inspectUrl' | 'log'>

/**
 * What the original never had: a POST whose answer was lost is carried out once. With an `Idempotency-Key` that is said for a
 * day; without one, a request that calls itself a repetition (`x-stainless-retry-count`, which the official clients send)
 * gets the answer of the same request of the last two minutes, where it can be told that it is the same (`retriesOf`).
 *
 * So a POST is remembered, by a hash of what it is and by the answer as it was printed: an answer can then be given
 * again without knowing what kind it was, and by any process. Written down before the work begins, since a repetition may
 * come while the first is at it or after its process died; without a key the answer is written off the caller's path.
 */
export function idempotent(deps: Deps): Middleware<State> {
  return async (given, next) => {
    // Koa types the context of a middleware apart from a route's; it is the same object.
    const ctx = given as unknown as Context
    if (ctx.method !== 'POST' || isStreamedIn(ctx) || makesNothing(ctx)) await next()
    else if (!ctx.get('idempotency-key') && !retriesOf(ctx)) await next()
    else await once(deps, ctx, await rawBody(ctx), next)
  }
}

/**
 * The same for a route that has put a body of `multipart/form-data` away by itself, in place of holding it in memory.
 * `digest` is a hash of all fields and bytes. Where the answer is that of an earlier request `carryOut` is not called, and
 * what has been put away is the caller's to remove.
 */
export async function idempotentUpload(
  deps: Deps,
  ctx: Context,
  digest: Buffer,
  carryOut: () => Promise<void>,
): Promise<void> {
  if (!ctx.get('idempotency-key') && !retriesOf(ctx)) await carryOut()
  else await once(deps, ctx, digest, carryOut)
}

const longestKey = 255
/** How long a repetition waits for the first; the clients ask again after a 503. */
const waitMs = 60_000
const firstPollMs = 20
const longestPollMs = 250

async function once(
  deps: Deps,
  ctx: Context,
  body: Buffer,
  carryOut: () => Promise<unknown>,
): Promise<void> {
  const { idempotency } = deps.store
  const key = ctx.get('idempotency-key') || null
  if (key && key.length > longestKey)
    throw refused(`must be at most ${longestKey} characters long.`)
  const request = {
    projectId: ctx.state.projectId,
    key,
    hash: hashOf(ctx, key, body),
    isRetry: Number(ctx.get('x-stainless-retry-count')) > 0,
    newestOf: retriesOf(ctx)?.newestOf ?? null,
  }
  const until = Date.now() + waitMs
  let closed: AbortSignal | undefined
  for (let pollMs = firstPollMs; ; pollMs = Math.min(2 * pollMs, longestPollMs)) {
    const taken = await idempotency.take(request)
    switch (taken.kind) {
      case 'mine':
        return perform(deps, ctx, key, taken.work, carryOut)
      case 'answered':
        return replay(deps, ctx, taken.answer)
      case 'other request':
        throw refused('was used for another request before. Use a new key for a new request.')
      case 'running':
        closed ??= onClose(ctx).signal
        if (Date.now() > until || deps.draining.aborted || closed.aborted) throw stillRunning()
        await sleep(pollMs)
        break
      default:
        taken satisfies never
    }
  }
}

async function perform(
  { store: { idempotency }, log }: Deps,
  ctx: Context,
  key: string | null,
  work: Work,
  carryOut: () => Promise<unknown>,
): Promise<void> {
  const onError = (error: unknown): void =>
    log.warn({ err: error, request_id: ctx.state.requestId }, 'an answer could not be kept')
  ctx.state.work = work
  try {
    await carryOut()
  } catch (error) {
    // What was refused has changed nothing. After anything else it is not known what was done.
    const isRefusal = error instanceof ApiError && error.status < 500
    await (isRefusal ? idempotency.forget(work) : idempotency.release(work)).catch(onError)
    throw error
  }
  const kept: Kept = ctx.state.stream ? { stream: ctx.state.stream } : { body: ctx.body }
  const keeping = idempotency.keep(work, { status: ctx.status, body: JSON.stringify(kept) })
  if (key) await keeping
  else keeping.catch(onError)
}

function replay(deps: Deps, ctx: Context, answer: Answer): void {
  ctx.set('idempotency-replayed', 'true')
  const kept = JSON.parse(answer.body) as Kept
  ctx.status = answer.status
  if ('stream' in kept) streamRun(deps, ctx, kept.stream)
  else ctx.body = kept.body
}

type Kept = { body: unknown } | { stream: RunStream }

/**
 * Where a request that calls itself a repetition is believed, without a key: only where it says by its path and body what it
 * is. `POST /threads` with an empty body may be anybody's, whose first attempt never came here; a second empty thread
 * does no harm, one that two users share does. In a thread it must be the newest thing that happened (`newestOf`).
 */
function retriesOf(ctx: Context): { newestOf: string | null } | undefined {
  const [, threadId] = /^\/v1\/threads\/([^/]+)\/(?:runs|messages)\/?$/i.exec(ctx.path) ?? []
  if (threadId !== undefined) return { newestOf: threadId }
  const isOfOne = /^\/v1\/(threads\/[^/]+\/runs\/[^/]+\/(submit_tool_outputs|cancel)|uploads\/.+)$/i
  return isOfOne.test(ctx.path) ? { newestOf: null } : undefined
}

/** A key belongs to its project; without one it is the same caller that may repeat itself. */
function hashOf(ctx: Context, key: string | null, body: Buffer): Buffer {
  const { method, url } = ctx
  const caller = key ? null : ctx.get('authorization')
  const head = JSON.stringify([method, url, ctx.get('openai-beta'), caller])
  return createHash('sha256').update(head).update(body).digest()
}

/**
 * Bodies that no route holds in memory. An upload comes back by `idempotentUpload`; an import skips what is there, in every
 * spelling of its path that the router takes.
 */
function isStreamedIn(ctx: Context): boolean {
  return Boolean(ctx.is('multipart/form-data')) || /^\/v1\/threads\/import\/?$/i.test(ctx.path)
}

/** A search is a question, and its answer is large. */
function makesNothing(ctx: Context): boolean {
  return ctx.path.endsWith('/search') && ctx.get('idempotency-key') === ''
}

function refused(rule: string): ApiError {
  return new ApiError(400, `The 'Idempotency-Key' header ${rule}`, {
    param: 'Idempotency-Key',
    code: 'idempotency_error',
  })
}

/** The clients come back after a 503, and so does whoever waits for them. */
function stillRunning(): ApiError {
  return new ApiError(503, 'The same request is still being carried out. Please try again.', {
    type: 'server_error',
    code: 'idempotency_error',
  })
}
