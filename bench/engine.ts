import { randomUUID } from 'node:crypto'
import { fileURLToPath } from 'node:url'

import { Client } from '@temporalio/client'
import { NativeConnection, Worker } from '@temporalio/worker'

import { createLogger } from '../log.ts'
import { installRuntime } from '../worker/index.ts'
import { nowMs } from './clock.ts'

export interface EngineTimings {
  /** Milliseconds from the start call until the activity began. */
  activityBegan: number
  done: number
}

export interface Engine extends AsyncDisposable {
  run(): Promise<EngineTimings>
}

/**
 * The bare library: a workflow with one empty activity, on the Temporal server of the program that is measured, started
 * eagerly on a worker in this process. Without a database, a model and HTTP: nothing that is built on it can be quicker.
 */
export async function startEngine(address: string): Promise<Engine> {
  const namespace = 'longrun'
  const taskQueue = 'bench-bare'
  installRuntime(createLogger('warn'))
  const connection = await NativeConnection.connect({ address })
  const began = new Map<number, (at: number) => void>()
  const worker = await Worker.create({
    connection,
    namespace,
    taskQueue,
    workflowsPath: fileURLToPath(new URL('./bare-workflow.ts', import.meta.url)),
    activities: {
      nothing: async (startedAt: number): Promise<void> => began.get(startedAt)?.(nowMs()),
    },
    maxConcurrentActivityTaskExecutions: 1000,
  })
  const running = worker.run()
  const client = new Client({ connection, namespace })
  let last = 0
  return {
    async run() {
      const startedAt = nowMs()
      // The name by which the activity says that it has begun; times may be equal, names not.
      const name = (last = Math.max(last + 1e-6, startedAt))
      let activityBegan = Number.NaN
      began.set(name, (at) => {
        activityBegan = at - startedAt
      })
      const handle = await client.workflow.start('bare', {
        workflowId: randomUUID(),
        taskQueue,
        args: [name],
        requestEagerStart: true,
      })
      await handle.result()
      began.delete(name)
      return { activityBegan, done: nowMs() - startedAt }
    },
    async [Symbol.asyncDispose]() {
      worker.shutdown()
      await running
      await connection.close()
    },
  }
}
