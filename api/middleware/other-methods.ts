import type { Router } from '@koa/router'
import type { Middleware } from 'koa'

import { methodNotAllowed } from '../../wire/errors.ts'
import type { State } from '../context.ts'

/** A path that these routers know, asked with a method that they do not: 405, and OPTIONS is told the methods. */
export function otherMethods(routers: Pick<Router, 'match'>[]): Middleware<State> {
  return async (ctx, next) => {
    const allowed = new Set(
      routers.flatMap((router) =>
        router.match(ctx.path, ctx.method).path.flatMap(({ methods }) => methods),
      ),
    )
    if (allowed.size === 0) {
      await next()
      return
    }
    ctx.set('allow', [...allowed].toSorted().join(', '))
    if (ctx.method !== 'OPTIONS') throw methodNotAllowed(ctx.method, ctx.path)
    ctx.status = 204
  }
}
