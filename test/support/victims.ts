import { inject } from 'vitest'

import { startCluster, type Cluster } from './cluster.ts'
import { ownPostgres, ownTemporal } from './own-parts.ts'
import type { ServerProcess } from './processes.ts'
import { codeEnv } from './sandboxes.ts'
import { createDatabase } from './server.ts'

export const victims = ['worker', 'api', 'Temporal', 'Postgres'] as const
export type Victim = (typeof victims)[number]

/** One api and one worker on a database of their own, and the means to kill one of their parts, again and again. */
export interface Installation extends AsyncDisposable {
  victim: Victim
  cluster: Cluster
  temporalAddress: string
  /** The one that lives. */
  api: () => ServerProcess
  /** Ends the victim with SIGKILL: it is dead when this resolves. */
  kill(): Promise<void>
  /** Brings it back as a supervisor would: at once, at the same address, with the same data. */
  replace(): Promise<void>
}

export async function installationFor(victim: Victim): Promise<Installation> {
  await using stack = new AsyncDisposableStack()
  const temporal = victim === 'Temporal' ? stack.use(await ownTemporal()) : undefined
  const postgres = victim === 'Postgres' ? stack.use(await ownPostgres()) : undefined
  const temporalAddress = temporal?.address ?? inject('temporalAddress')
  const database = stack.use(await createDatabase(postgres?.url))
  const cluster = stack.use(
    await startCluster({
      databaseUrl: database.url,
      temporalAddress,
      // A model that is silent must not be what ends a turn.
      env: { MODEL_IDLE_TIMEOUT_S: '120', ...codeEnv() },
    }),
  )
  let [api, worker] = await Promise.all([cluster.spawn('api'), cluster.spawn('worker')])
  const PORT = new URL(api.baseUrl ?? '').port
  const stop = stack.move()
  return {
    victim,
    cluster,
    temporalAddress,
    api: () => api,
    async kill() {
      if (victim === 'api') await api.kill('SIGKILL')
      else if (victim === 'worker') await worker.kill('SIGKILL')
      else await (temporal ?? postgres)?.kill('SIGKILL')
    },
    async replace() {
      if (victim === 'api') api = await cluster.spawn('api', 'api', { PORT })
      else if (victim === 'worker') worker = await cluster.spawn('worker')
      // The supervisor of the other parts has begun already; each time it waits longer, for up to ten seconds.
    },
    [Symbol.asyncDispose]: () => stop.disposeAsync(),
  }
}
