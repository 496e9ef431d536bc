import { Client } from '@temporalio/client'
import type { NativeConnection } from '@temporalio/worker'

import type { Logger } from '../log.ts'
import type { Store } from '../store/index.ts'
import type { PendingCommand } from '../store/outbox.ts'
import { createDelivery } from './deliver.ts'
import { every } from './loop.ts'
import { createReconciler } from './reconcile.ts'

/** The one place that speaks to Temporal's server on behalf of runs. */
export interface Engine extends AsyncDisposable {
  /** Delivers what the outbox holds for a run, soon and off the caller's path; what fails is delivered by the sweep. */
  deliver(runId: string, known?: PendingCommand[]): void
  /** How many workers poll for runs; undefined while Temporal cannot be reached. */
  pollers(): Promise<number | undefined>
}

export interface EngineOptions {
  store: Store
  log: Logger
  namespace: string
  taskQueue: string
  /** The connection, once it stands; the worker of the same process shares it, else runs do not start eagerly. */
  connection: () => NativeConnection | undefined
  /** Whether a worker of this process is running on that connection. */
  hasWorker: () => boolean
  modelAttempts: number
  maxSteps: number
  /** How often the runs that are open here are compared with the workflows that are open there. */
  reconcileMs: number
}

const sweepMs = 1000
const foldMs = 10_000
/** A worker asks for work at least every minute; Temporal names those of the last five, dead ones too. */
const pollsAgainWithinMs = 75_000

export function openEngine(options: EngineOptions): Engine {
  const { log, namespace, taskQueue } = options
  const clients = new WeakMap<NativeConnection, Client>()
  const client = (): Client | undefined => {
    const connection = options.connection()
    if (!connection) return undefined
    const known = clients.get(connection) ?? new Client({ connection, namespace })
    clients.set(connection, known)
    return known
  }
  const delivery = createDelivery({ ...options, client })
  const reconciler = createReconciler({ ...options, client, delivery })
  // A run that ends hands its thread to the next, whose start nobody else would deliver soon.
  options.store.db.onCommand((runId) => void delivery.deliver(runId))
  const loops = [
    every(sweepMs, log, 'the outbox sweep', () => delivery.sweep()),
    every(options.reconcileMs, log, 'the reconciler', () => reconciler.reconcile()),
    every(options.reconcileMs, log, 'the sweep of idempotency keys', () =>
      options.store.idempotency.sweep(),
    ),
    every(
      foldMs,
      log,
      'the sums of usage',
      async () => void (await options.store.usageSums.fold()),
    ),
    every(sweepMs, log, 'the expiry of overdue runs', () => reconciler.expireOverdue()),
    every(options.reconcileMs, log, 'the retention of events', () =>
      options.store.eventRetention.prune(),
    ),
    every(options.reconcileMs, log, 'the sweep of sandbox hosts', () =>
      options.store.sandboxes.sweep(),
    ),
    every(options.reconcileMs, log, 'the sweep of files', async () => {
      await options.store.uploads.sweep()
      await options.store.files.sweep()
    }),
  ]

  return {
    deliver: (runId, known) => void delivery.deliver(runId, known),
    async pollers() {
      const connection = options.connection()
      if (!connection) return undefined
      try {
        const { pollers } = await connection.withDeadline(Date.now() + 3000, () =>
          connection.workflowService.describeTaskQueue({
            namespace,
            taskQueue: { name: taskQueue },
            taskQueueType: 1,
          }),
        )
        const since = Date.now() - pollsAgainWithinMs
        return (pollers ?? []).filter(
          ({ lastAccessTime }) => Number(lastAccessTime?.seconds ?? 0) * 1000 > since,
        ).length
      } catch {
        return undefined
      }
    },
    async [Symbol.asyncDispose]() {
      for (const loop of loops) await loop[Symbol.asyncDispose]()
      await delivery[Symbol.asyncDispose]()
    },
  }
}
