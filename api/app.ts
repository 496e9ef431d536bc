import { Router } from '@koa/router'
import Koa from 'koa'
import type { RequestListener } from 'node:http'

import type { Engine } from '../engine/index.ts'
import type { Logger } from '../log.ts'
import type { Models } from '../models.ts'
import type { Store } from '../store/index.ts'
import { unknownRoute } from '../wire/errors.ts'
import { assistantRoutes } from './assistants.ts'
import { healthRoutes } from './health.ts'
import { messageRoutes } from './messages.ts'
import { authenticated, type Access } from './middleware/access.ts'
import { betaHeader } from './middleware/beta-header.ts'
import { errorAnswers } from './middleware/errors.ts'
import { idempotent } from './middleware/idempotency.ts'
import { liveHeaders } from './middleware/live-headers.ts'
import { modelRoutes } from './models.ts'
import { streamRun } from './run-stream.ts'
import { runRoutes } from './runs.ts'
import { stepRoutes } from './run-steps.ts'
import { threadRoutes } from './threads.ts'

/** What the routes need; the api's main puts it together. */
export interface ApiDeps {
  store: Store
  engine: Engine
  models: Models
  log: Logger
  access: Access
  /** Aborts when the server drains: streams say so and close, held polls are answered. */
  draining: AbortSignal
  /** Seconds that a run may live where the client says nothing. */
  runExpiresAfterS: number
  /** Where an operator sees the workflow of a run; undefined without a Temporal UI. */
  inspectUrl: (runId: string) => string | undefined
}

/** The HTTP API, from top to bottom: errors, headers, who asks, and the routes. */
export function createApp(deps: ApiDeps): RequestListener {
  const app = new Koa()
  // Only the error middleware answers; what escapes it is a connection that broke.
  app.on('error', (error: unknown) => deps.log.debug({ err: error }, 'a connection broke'))

  const health = new Router()
  healthRoutes(health, deps)

  const models = new Router({ prefix: '/v1' })
  modelRoutes(models, deps)

  const beta = new Router({ prefix: '/v1' })
  beta.use(betaHeader)
  assistantRoutes(beta, deps)
  messageRoutes(beta, deps)
  // Before the threads', whose ids would take `/threads/runs`.
  runRoutes(beta, deps)
  threadRoutes(beta, deps)
  stepRoutes(beta, deps)

  app
    .use(errorAnswers(deps.log))
    .use(health.routes())
    .use(liveHeaders)
    .use(authenticated(deps.access))
    .use(idempotent(deps.store.idempotency, (ctx, stream) => streamRun(deps, ctx, stream)))
    .use(models.routes())
    .use(beta.routes())
    .use(() => {
      throw unknownRoute()
    })
  const listener = app.callback()
  // Koa's promise never rejects: its errors went to the middleware above.
  return (request, response) => void listener(request, response)
}
