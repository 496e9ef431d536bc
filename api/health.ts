import type { Router } from '@koa/router'
import type { ParameterizedContext } from 'koa'

import type { ApiDeps } from './app.ts'
import type { State } from './context.ts'

/** `/healthz`: this process lives. `/readyz`: runs that are created now will be carried out; else it names what is missing. */
export function healthRoutes(router: Router<State>, { store, engine }: ApiDeps): void {
  router.get('/healthz', (ctx) => {
    ctx.body = { status: 'ok' }
  })
  router.get('/readyz', ready)

  async function ready(ctx: ParameterizedContext): Promise<void> {
    const [postgres, temporal] = await Promise.all([checkPostgres(), engine.pollers()])
    const missing = [
      ...(postgres ? [] : ['Postgres cannot be reached.']),
      ...(store.events.connected() ? [] : ['The listener for run events is not connected.']),
      ...(temporal === undefined
        ? ['Temporal cannot be reached; runs are accepted and start later.']
        : []),
      ...(temporal === 0 ? ['No worker is polling; runs stay queued until one does.'] : []),
    ]
    ctx.status = missing.length > 0 ? 503 : 200
    ctx.body = { status: missing.length > 0 ? 'not ready' : 'ready', missing }
  }

  async function checkPostgres(): Promise<boolean> {
    return store.db.sql('SELECT 1').then(
      () => true,
      () => false,
    )
  }
}
