import { createHash } from 'node:crypto'

import type { Middleware } from 'koa'

import type { Idempotency } from '../../store/idempotency.ts'
import { ApiError } from '../../wire/errors.ts'
import { rawBody, type Context, type State } from '../context.ts'
import type { RunStream } from '../run-stream.ts'

/** What the original never honoured: a POST that is repeated under the same `Idempotency-Key` is carried out once. */
export function idempotent(
  idempotency: Idempotency,
  resume: (ctx: Context, stream: RunStream) => void,
): Middleware<State> {
  return async (given, next) => {
    // Koa types the context of a middleware apart from a route's; it is the same object.
    const ctx = given as unknown as Context
    const key = ctx.get('idempotency-key')
    if (key === '' || ctx.method !== 'POST') {
      await next()
      return
    }
    if (key.length > longestKey)
      throw refused(400, `must be at most ${longestKey} characters long.`)

    const { projectId } = ctx.state
    const request = createHash('sha256').update(`${ctx.method} ${ctx.url}\n`)
    const taken = await idempotency.take(
      projectId,
      key,
      request.update(await rawBody(ctx)).digest(),
    )
    switch (taken.kind) {
      case 'other request':
        throw refused(400, 'was used for another request before. Use a new key for a new request.')
      case 'running':
        // The SDKs repeat a 409 by themselves.
        throw refused(409, 'belongs to a request that is being carried out. Try again shortly.')
      case 'answered': {
        ctx.set('idempotency-replayed', 'true')
        const kept = JSON.parse(taken.answer.body) as Kept
        ctx.status = taken.answer.status
        if ('stream' in kept) resume(ctx, kept.stream)
        else ctx.body = kept.body
        return
      }
      case 'first':
        break
      default:
        taken satisfies never
    }
    try {
      await next()
    } catch (error) {
      // What was refused has changed nothing, so the same key may try again. After anything else it is not known what was
      // done: the key stays taken for a while.
      if (error instanceof ApiError && error.status < 500) await idempotency.forget(projectId, key)
      throw error
    }
    const kept: Kept = ctx.state.stream ? { stream: ctx.state.stream } : { body: ctx.body }
    await idempotency.keep(projectId, key, { status: ctx.status, body: JSON.stringify(kept) })
  }
}

type Kept = { body: unknown } | { stream: RunStream }

const longestKey = 255

function refused(status: number, rule: string): ApiError {
  return new ApiError(status, `The 'Idempotency-Key' header ${rule}`, {
    param: 'Idempotency-Key',
    code: 'idempotency_error',
  })
}
