import type { Logger } from '../log.ts'
import type { SandboxHostState } from '../store/rows.ts'
import type { Store } from '../store/index.ts'
import { createCodeSessions, type CodeSessions, type SessionOptions } from './code-sessions.ts'
import { createPlaces, type PlaceOptions } from './sandbox-places.ts'

/** This process as one that runs code: its sandboxes, and its row among the hosts. */
export interface CodeHost extends AsyncDisposable {
  id: string
  /** Where its worker takes activities from. */
  taskQueue: string
  sessions: CodeSessions
  /** Takes it out of the hosts, so that no more threads come; to be called before its worker stops. */
  retire(): Promise<void>
}

const tickMs = 500
const ticksOfReport = 6

/** `state` tells whether code can run here by now, and is asked again and again. */
export function openCodeHost(
  { sandboxes }: Pick<Store, 'sandboxes'>,
  options: SessionOptions & PlaceOptions & { log: Logger; state: () => SandboxHostState },
): CodeHost {
  const { id, log, state, maxSessions: capacity } = options
  const sessions = createCodeSessions(sandboxes, createPlaces(options), options)
  let reporting = report()
  let told = ''
  let ticks = 0
  let isRetired = false
  const timer = setInterval(() => {
    ticks += 1
    const now = JSON.stringify(state())
    // At once where something has changed: runs may be waiting for it.
    if (ticks % ticksOfReport !== 0 && now === told) return
    told = now
    reporting = reporting.then(report)
  }, tickMs)

  async function report(): Promise<void> {
    await sandboxes
      .report({ id, capacity, state: state() })
      .catch((error: unknown) => log.warn({ err: error }, 'this sandbox host could not report'))
  }

  async function retire(): Promise<void> {
    if (isRetired) return
    isRetired = true
    clearInterval(timer)
    await reporting
    // It is forgotten a little later where this does not get through.
    await sandboxes.leave(id).catch(() => {})
  }

  return {
    id,
    taskQueue: taskQueueOf(id),
    sessions,
    retire,
    async [Symbol.asyncDispose]() {
      await retire()
      await sessions[Symbol.asyncDispose]()
    },
  }
}

export function taskQueueOf(hostId: string): string {
  return `sandbox-${hostId}`
}
