import type { Logger } from '../log.ts'
import type { SandboxHostState } from '../store/rows.ts'
import type { Store } from '../store/index.ts'
import { createCodeSessions, type SessionOptions } from './code-sessions.ts'

/** This process as one that runs code: its sandboxes, and its row among the hosts. */
export interface CodeHost extends AsyncDisposable {
  id: string
  /** Where its worker takes activities from. */
  taskQueue: string
  sessions: CodeSessions
}

export type CodeSessions = ReturnType<typeof createCodeSessions>

const reportMs = 3000

/** `state` tells whether code can run here by now, and is asked again and again. */
export function openCodeHost(
  { sandboxes }: Pick<Store, 'sandboxes'>,
  options: SessionOptions & { id: string; log: Logger; state: () => SandboxHostState },
): CodeHost {
  const { id, log, state, maxSessions: capacity } = options
  const sessions = createCodeSessions(sandboxes, options)
  let told: string | undefined
  const report = (): Promise<void> =>
    sandboxes
      .report({ id, capacity, state: state() })
      .catch((error: unknown) => log.warn({ err: error }, 'this sandbox host could not report'))
  // At once where something has changed: runs may be waiting for it.
  const timer = setInterval(() => {
    const now = JSON.stringify(state())
    const isDue = ticks % (reportMs / tickMs) === 0
    ticks += 1
    if (!isDue && now === told) return
    told = now
    void report()
  }, tickMs)
  let ticks = 0
  void report()
  return {
    id,
    taskQueue: taskQueueOf(id),
    sessions,
    async [Symbol.asyncDispose]() {
      clearInterval(timer)
      await sandboxes.leave(id).catch(() => {})
      await sessions[Symbol.asyncDispose]()
    },
  }
}

const tickMs = 500

export function taskQueueOf(hostId: string): string {
  return `sandbox-${hostId}`
}
