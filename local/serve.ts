import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

import type { NativeConnection } from '@temporalio/worker'

import { isLoopbackHost } from '../api/middleware/access.ts'
import { startApi } from '../api/server.ts'
import type { Config } from '../config.ts'
import { connectPatiently } from '../engine/connection.ts'
import { openEngine } from '../engine/index.ts'
import type { Logger } from '../log.ts'
import type { Models } from '../models.ts'
import { openBlobs } from '../store/blobs.ts'
import { openStore, type Store } from '../store/index.ts'
import { openCode } from '../worker/code.ts'
import { startWorker, type RunWorker } from '../worker/index.ts'
import { prepareNamespace } from './temporal.ts'

export interface Serving extends AsyncDisposable {
  /** The base URL for clients; undefined for a worker. */
  url: string | undefined
  /** Resolves once Temporal has been reached and, where there is one, the worker polls. */
  working: Promise<void>
  /** Whether anybody who reaches the port is let in. */
  isOpen: boolean
}

/** What a process of a role needs from outside. */
export interface Outside {
  databaseUrl: string
  temporalAddress: string
  temporalUiUrl: string | undefined
  models: Models
}

const workerRestartMs = 1000
/** Its activities have stopped to heartbeat by then. */
const mostSilenceMs = 8000

/**
 * One process with the role that `config` gives it: the api, a worker, or both, which then share one connection to
 * Temporal, so that runs start without a detour through the server.
 */
export async function serve(config: Config, outside: Outside, log: Logger): Promise<Serving> {
  await using stack = new AsyncDisposableStack()
  const blobs = stack.use(await openBlobs(config.files))
  const store = stack.use(await openStore({ databaseUrl: outside.databaseUrl, log, blobs }))
  const { namespace, taskQueue } = config.temporal
  const { id: defaultProjectId } = await store.keys.defaultProject()
  const access = {
    keys: store.keys,
    defaultProjectId,
    adminKey: config.adminKey,
    isLoopback: isLoopbackHost(config.host),
  }
  const isProtected = config.adminKey !== undefined || (await store.keys.any())
  if (config.role !== 'worker' && !access.isLoopback && !isProtected) {
    throw new Error(
      `HOST is ${config.host}, which others can reach, and there are no API keys: make one with ` +
        '`npm run admin -- key create`, or set ADMIN_KEY, or leave HOST at 127.0.0.1',
    )
  }

  const code =
    config.role === 'api'
      ? undefined
      : stack.use(
          await openCode(
            store,
            { ...config.sandbox, stateDir: join(config.dataDir, 'sandbox') },
            log,
          ),
        )
  const stopping = new AbortController()
  let connection: NativeConnection | undefined
  let worker: RunWorker | undefined
  const ready = Promise.withResolvers<void>()

  const working = (async () => {
    connection = await connectPatiently(
      { address: outside.temporalAddress, connection: config.temporal.connection, log },
      stopping.signal,
    )
    while (connection && !stopping.signal.aborted) {
      try {
        await prepareNamespace(connection, namespace)
        if (!code) return ready.resolve()
        while (isSilent(store) && !stopping.signal.aborted) await pause(1000, stopping.signal)
        worker = await startWorker({
          connection,
          namespace,
          taskQueue,
          store,
          code,
          models: outside.models,
          log,
          modelIdleTimeoutMs: config.models.idleTimeoutMs,
          dataDir: config.dataDir,
          shutdownGraceMs: config.shutdownGraceMs,
        })
        ready.resolve()
        // It may have been asked to stop while there was none to stop yet.
        if (stopping.signal.aborted) await worker[Symbol.asyncDispose]()
        using _ = stoppedInSilence(worker, store, log)
        await worker.finished
      } catch (error) {
        log.error({ err: error }, 'the worker stopped or could not start; it is started again')
      }
      worker = undefined
      await pause(workerRestartMs, stopping.signal)
    }
  })()
  stack.defer(async () => {
    stopping.abort()
    await code?.host?.retire()
    await worker?.[Symbol.asyncDispose]()
    await working
    await connection?.close()
  })

  // A process that only works reconciles too: there may be no api for a while.
  const engine = stack.use(
    openEngine({
      store,
      log,
      namespace,
      taskQueue,
      connection: () => connection,
      hasWorker: () => worker !== undefined,
      modelAttempts: config.models.attempts,
      maxSteps: config.runs.maxSteps,
      reconcileMs: config.reconcileMs,
    }),
  )
  const api =
    config.role === 'worker'
      ? undefined
      : stack.use(
          await startApi({
            store,
            engine,
            models: outside.models,
            log,
            access,
            host: config.host,
            port: config.port,
            graceMs: config.shutdownGraceMs,
            runExpiresAfterS: config.runs.expiresAfterS,
            maxSteps: config.runs.maxSteps,
            downloadsInputs: config.files.downloadsInputs,
            inspectUrl: (runId) =>
              outside.temporalUiUrl &&
              `${outside.temporalUiUrl}/namespaces/${namespace}/workflows/${runId}`,
          }),
        )
  const stop = stack.move()
  return {
    url: api?.url,
    working: ready.promise,
    isOpen: !isProtected,
    [Symbol.asyncDispose]: () => stop.disposeAsync(),
  }
}

async function pause(ms: number, signal: AbortSignal): Promise<void> {
  await sleep(ms, undefined, { signal }).catch(() => {})
}

/** Whether Postgres says nothing at all, not even that it is down. */
function isSilent({ events }: Store): boolean {
  return events.silentMs() > mostSilenceMs
}

/** A worker that can write nothing must not take runs from those that can: it stops, until Postgres is heard of. */
function stoppedInSilence(worker: RunWorker, store: Store, log: Logger): Disposable {
  const timer = setInterval(() => {
    if (!isSilent(store)) return
    clearInterval(timer)
    log.error('Postgres is silent: the worker takes no more runs until it is heard of')
    void worker[Symbol.asyncDispose]()
  }, 1000)
  return { [Symbol.dispose]: () => clearInterval(timer) }
}
