import type { Middleware } from 'koa'

import { missingBetaHeader, v1Ended } from '../../wire/errors.ts'
import type { State } from '../context.ts'

/** Assistants, threads and runs answer only to `OpenAI-Beta: assistants=v2`, as the original did. */
export const betaHeader: Middleware<State> = async (ctx, next) => {
  const asked = ctx
    .get('openai-beta')
    .split(',')
    .map((part) => part.trim())
  if (!asked.includes('assistants=v2')) {
    throw asked.includes('assistants=v1') ? v1Ended() : missingBetaHeader()
  }
  await next()
}
