import type { Middleware } from 'koa'

import type { Store } from '../../store/index.ts'
import { answerInV1, dialectOf, idsWithFiles, type Answer } from '../../wire/dialect.ts'
import { missingBetaHeader, unknownRoute } from '../../wire/errors.ts'
import type { State } from '../context.ts'

/** Notes which dialect the request speaks, if any. Before whatever may answer it, so that a replayed stream knows too. */
export const heardDialect: Middleware<State> = (ctx, next) => {
  ctx.state.dialect = dialectOf(ctx.get('openai-beta'))
  return next()
}

/**
 * Assistants, threads and runs answer only to `OpenAI-Beta: assistants=v1` or `=v2`, as the original did. Handlers speak
 * v2; what they answered is said in v1 here, and in a stream event by event (`run-stream.ts`).
 */
export function answersInDialect({ assistantFiles }: Store): Middleware<State> {
  return async (ctx, next) => {
    if (!ctx.state.dialect) throw missingBetaHeader()
    await next()
    if (ctx.state.dialect === 'v2' || ctx.state.stream || !ctx.body) return
    // The routes behind this door answer with what presenters make.
    const answer = ctx.body as Answer
    ctx.body = answerInV1(answer, await assistantFiles.shown(idsWithFiles(answer)))
  }
}

/** For paths that v2 does not have. */
export const onlyV1: Middleware<State> = (ctx, next) => {
  if (ctx.state.dialect !== 'v1') throw unknownRoute()
  return next()
}
