import { NativeConnection, Runtime, DefaultLogger, Worker } from '@temporalio/worker'

import { createActivities, type Deps } from '../activities/index.ts'
import type { Logger } from '../log.ts'
import { workflowBundle } from './bundle.ts'

export interface RunWorker extends AsyncDisposable {
  /** Resolves when the worker has stopped; rejects where it stopped by itself. */
  finished: Promise<void>
}

export interface WorkerOptions extends Deps {
  connection: NativeConnection
  namespace: string
  taskQueue: string
  dataDir: string
  /** How long activities may go on after a shutdown has begun, in milliseconds. */
  shutdownGraceMs: number
}

/** A worker that carries out runs: workflows and their activities, on one task queue. */
export async function startWorker(options: WorkerOptions): Promise<RunWorker> {
  const activities = createActivities(options)
  const { host } = options.code
  const common = {
    connection: options.connection,
    namespace: options.namespace,
    // What decides how soon another worker goes on with the runs of one that died.
    maxHeartbeatThrottleInterval: '2s',
    defaultHeartbeatThrottleInterval: '2s',
    shutdownGraceTime: options.shutdownGraceMs,
  } as const
  const worker = await Worker.create({
    ...common,
    taskQueue: options.taskQueue,
    workflowBundle: await workflowBundle(options.dataDir, options.log),
    activities,
    // A streaming run occupies a slot and next to nothing else: the default of 100 makes the 101st wait.
    maxConcurrentActivityTaskExecutions: 1000,
    maxConcurrentWorkflowTaskExecutions: 40,
    maxCachedWorkflows: 500,
    workflowTaskPollerBehavior: { type: 'autoscaling', initial: 5, minimum: 2, maximum: 20 },
    activityTaskPollerBehavior: { type: 'autoscaling', initial: 5, minimum: 2, maximum: 20 },
    stickyQueueScheduleToStartTimeout: '1s',
  })
  const workers = [worker]
  if (host) workers.push(await hostWorker())
  const stop = (): void => {
    for (const one of workers) if (one.getState() === 'RUNNING') one.shutdown()
  }
  // Where one stops by itself the other must not go on alone.
  const finished = ended(workers.map((one) => one.run().finally(stop)))
  return {
    finished,
    async [Symbol.asyncDispose]() {
      stop()
      await finished.catch(() => {})
    },
  }

  /** Takes the calls whose sandbox is in this very process. */
  function hostWorker(): Promise<Worker> {
    const { runTool } = activities
    return Worker.create({
      ...common,
      taskQueue: host?.taskQueue ?? '',
      activities: { runTool },
      maxConcurrentActivityTaskExecutions: 200,
    })
  }
}

async function ended(all: Promise<void>[]): Promise<void> {
  await Promise.all(all)
}

/** The worker of a sandbox host has activities alone. */
const expected = 'No workflows registered'

/** Once per process and before any connection: Temporal's own log goes to ours. */
export function installRuntime(log: Logger): void {
  Runtime.install({
    logger: new DefaultLogger('WARN', ({ level, message, meta }) => {
      if (message.startsWith(expected)) return
      const { error, ...rest } = meta ?? {}
      log[level === 'ERROR' ? 'error' : 'warn']({ err: error, ...rest, temporal: true }, message)
    }),
    telemetryOptions: { logging: { forward: {}, filter: { core: 'WARN', other: 'ERROR' } } },
    // The mains decide when to stop.
    shutdownSignals: [],
  })
}
