import { randomUUID } from 'node:crypto'

import type { Middleware } from 'koa'

import type { State } from '../context.ts'

/** The headers that were on every answer of the original, and that clients show to people who look for a request. */
export const liveHeaders: Middleware<State> = async (ctx, next) => {
  const began = performance.now()
  ctx.state.requestId = `req_${randomUUID().replaceAll('-', '')}`
  ctx.set({
    'x-request-id': ctx.state.requestId,
    'openai-version': '2020-10-01',
    'openai-organization': 'longrun',
    'x-content-type-options': 'nosniff',
  })
  try {
    await next()
  } finally {
    if (!ctx.headerSent) {
      ctx.set('openai-processing-ms', String(Math.round(performance.now() - began)))
    }
  }
}
