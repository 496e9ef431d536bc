import type { Middleware } from 'koa'

import type { Logger } from '../../log.ts'
import { isConnectionError } from '../../store/db.ts'
import {
  ApiError,
  bytesMissing,
  envelope,
  serverError,
  storageFull,
  unavailable,
} from '../../wire/errors.ts'
import type { State } from '../context.ts'
import { pathOf } from '../validation.ts'

/** The one error path: what a stranger is told, and what we write down. */
export function errorAnswers(log: Logger): Middleware<State> {
  return async (ctx, next) => {
    try {
      await next()
    } catch (error) {
      const told = tellable(error)
      if (told.status >= 500) {
        log.error(
          { err: error, request_id: ctx.state.requestId, path: ctx.path },
          'a request failed',
        )
      }
      ctx.status = told.status
      // SDKs repeat 5xx by themselves; this says how soon that makes sense.
      if (told.status === 503) ctx.set('retry-after', '1')
      ctx.body = envelope(located(told, ctx.state.body))
    }
  }
}

/** Says where in the body the id stands that names nothing. */
function located(error: ApiError, body: unknown): ApiError {
  if (error.refersTo !== undefined) error.param = pathOf(error.refersTo, body) ?? error.param
  return error
}

function tellable(error: unknown): ApiError {
  if (error instanceof ApiError) return error
  if (error instanceof Error && 'code' in error && error.code === 'ENOSPC') return storageFull()
  if (error instanceof Error && error.name === 'MissingBlob') return bytesMissing()
  return isConnectionError(error) ? unavailable('the database') : serverError()
}
