import { Router } from '@koa/router'
import Koa from 'koa'
import type { RequestListener } from 'node:http'
import { Readable } from 'node:stream'

import type { Engine } from '../engine/index.ts'
import type { Logger } from '../log.ts'
import type { Models } from '../models.ts'
import type { Store } from '../store/index.ts'
import { unknownRoute } from '../wire/errors.ts'
import { assistantFileRoutes } from './assistant-files.ts'
import { assistantRoutes } from './assistants.ts'
import type { State } from './context.ts'
import { exportRoutes } from './export.ts'
import { fileRoutes } from './files.ts'
import { healthRoutes } from './health.ts'
import { messageFileRoutes } from './message-files.ts'
import { messageRoutes } from './messages.ts'
import { authenticated, type Access } from './middleware/access.ts'
import { answersInDialect, heardDialect } from './middleware/dialect.ts'
import { errorAnswers } from './middleware/errors.ts'
import { idempotent } from './middleware/idempotency.ts'
import { liveHeaders } from './middleware/live-headers.ts'
import { otherMethods } from './middleware/other-methods.ts'
import { modelRoutes } from './models.ts'
import { passThroughRoutes } from './pass-through.ts'
import { runRoutes } from './runs.ts'
import { runEventRoutes } from './run-events.ts'
import { stepRoutes } from './run-steps.ts'
import { threadForkRoutes } from './thread-fork.ts'
import { threadImportRoutes } from './thread-import.ts'
import { threadListRoutes } from './thread-list.ts'
import { threadRoutes } from './threads.ts'
import { uploadRoutes } from './uploads.ts'
import { usageRoutes } from './usage.ts'

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
  /** Model turns that a run may take at most, whatever its client says. */
  maxSteps: number
  /** Whether the content of files that people gave to assistants may be read; the original refused. */
  downloadsInputs: boolean
  /** Where an operator sees the workflow of a run; undefined without a Temporal UI. */
  inspectUrl: (runId: string) => string | undefined
}

/** The HTTP API, from top to bottom: errors, headers, who asks, and the routes. */
export function createApp(deps: ApiDeps): RequestListener {
  const app = new Koa()
  // Only the error middleware answers; what escapes it is a connection that broke.
  app.on('error', (error: unknown) => deps.log.debug({ err: error }, 'a connection broke'))

  const routers = createRouters(deps)
  app
    .use(brokenAnswers(deps.log))
    .use(errorAnswers(deps.log))
    .use(routers.health.routes())
    .use(liveHeaders)
    .use(authenticated(deps.access))
    // Before the answers that are kept for an Idempotency-Key: streams and sounds of strangers are not to be.
    .use(routers.passed.routes())
    .use(heardDialect)
    .use(idempotent(deps))
    .use(routers.models.routes())
    .use(routers.files.routes())
    .use(routers.exports.routes())
    .use(routers.beta.routes())
    .use(otherMethods(Object.values(routers)))
    .use(() => {
      throw unknownRoute()
    })
  const listener = app.callback()
  // Koa's promise never rejects: its errors went to the middleware above.
  return (request, response) => void listener(request, response)
}

/** What breaks off while its client is still there does so by our fault; where the client has left, Koa ends it. */
function brokenAnswers(log: Logger): Koa.Middleware<State> {
  return async (ctx, next) => {
    await next()
    if (!(ctx.body instanceof Readable)) return
    const { socket } = ctx.req
    ctx.body.once('error', (error: Error) => {
      if (socket.destroyed || socket.readableEnded) return
      const facts = { err: error, request_id: ctx.state.requestId, path: ctx.path }
      log.error(facts, 'an answer broke off')
    })
  }
}

/** Every route that there is, behind nobody's door yet. Tests walk them: what is added elsewhere escapes their matrix. */
export function createRouters(deps: ApiDeps) {
  const health = new Router()
  healthRoutes(health, deps)

  const passed = new Router({ prefix: '/v1' })
  passThroughRoutes(passed, deps)

  const models = new Router({ prefix: '/v1' })
  modelRoutes(models, deps)

  const files = new Router({ prefix: '/v1' })
  fileRoutes(files, deps)
  uploadRoutes(files, deps)

  const exports = new Router({ prefix: '/v1' })
  exportRoutes(exports, deps)
  usageRoutes(exports, deps)

  const beta = new Router({ prefix: '/v1' })
  beta.use(answersInDialect(deps.store))
  assistantRoutes(beta, deps)
  assistantFileRoutes(beta, deps)
  messageRoutes(beta, deps)
  messageFileRoutes(beta, deps)
  // Before the threads', whose ids would take `/threads/runs` and `/threads/import`.
  runRoutes(beta, deps)
  threadListRoutes(beta, deps)
  threadForkRoutes(beta, deps)
  threadImportRoutes(beta, deps)
  threadRoutes(beta, deps)
  stepRoutes(beta, deps)
  runEventRoutes(beta, deps)

  return { health, passed, models, files, exports, beta }
}
