import type { Logger } from '../log.ts'
import type { CodeResult, Sandbox } from '../sandbox/index.ts'
import type { Sandboxes } from '../store/sandboxes.ts'
import { createRooms } from './rooms.ts'
import type { Place, Places } from './sandbox-places.ts'

export interface SessionOptions {
  id: string
  log: Logger
  /** Sessions at once; the one that was idle for longest makes room. */
  maxSessions: number
  /** Milliseconds after the last use. */
  idleMs: number
}

/** The interpreter of one thread, and its /mnt/data. */
export interface CodeSession {
  threadId: string
  generation: number
  sandbox: Sandbox
  /** Set until the model has been told that the variables of an earlier sandbox are gone. */
  lostState: boolean
  /** What is known of the files under /mnt/data: their versions by path, as of when they were last kept. */
  known: Map<string, string>
  /** What the host has put there, and is there as it was: ids of files by path. */
  placed: Map<string, string>
  /** Of calls whose result is not kept yet, for an attempt that comes to one again. */
  executions: Map<string, Execution>
}

export interface Execution {
  result: Promise<CodeResult>
  /** Interrupts the code. */
  stop: AbortController
  /** What the model is to be told before its result. */
  before: string | undefined
  notes: string[]
}

interface Slot extends CodeSession, Place {
  users: number
  lastUsedAt: number
  /** Set where it is nobody's any more: it goes with its last user. */
  isOver: boolean
}

const sweepMs = 5000

export interface CodeSessions extends AsyncDisposable {
  /**
   * Calls `work` with the thread's session, which is begun where there is none; undefined where the thread is gone or has its
   * code elsewhere by now. The signal ends the waiting for room. Throws SandboxStartError.
   */
  use<T>(
    threadId: string,
    signal: AbortSignal,
    work: (session: CodeSession) => Promise<T>,
  ): Promise<T | undefined>
}

/** The sessions of this process, one a thread. They end with it: their files are kept elsewhere. */
export function createCodeSessions(
  sandboxes: Sandboxes,
  places: Places,
  { id: hostId, log, maxSessions, idleMs }: SessionOptions,
): CodeSessions {
  const slots = new Map<string, Slot>()
  const opening = new Map<string, Promise<Slot | undefined>>()
  const rooms = createRooms(maxSessions, makeRoom)
  /** Sessions that are over and whose sandboxes are not gone yet. */
  const ending = new Set<Slot>()

  /** Ends as many idle sessions as rooms are waited for. */
  function makeRoom(): void {
    const wanted = rooms.waiting() - ending.size
    const idle = [...slots.values()]
      .filter(({ users }) => users === 0)
      .toSorted((a, b) => a.lastUsedAt - b.lastUsedAt)
    for (const slot of idle.slice(0, Math.max(0, wanted))) void end(slot)
  }

  /** Nobody gets the session from here on. Its sandbox is left to whoever still uses it. */
  async function end(slot: Slot): Promise<void> {
    if (slot.isOver) return
    slot.isOver = true
    slots.delete(slot.threadId)
    ending.add(slot)
    const dropped = slot.users === 0 ? drop(slot) : undefined
    const { threadId, generation } = slot
    await sandboxes
      .end({ threadId, hostId, generation })
      .catch((error: unknown) => log.warn({ err: error }, 'the end of a sandbox was not noted'))
    await dropped
  }

  async function drop(slot: Slot): Promise<void> {
    await places.drop(slot)
    ending.delete(slot)
    rooms.leave()
  }

  /** The thread's session with one user more, so that nobody takes its room. */
  async function hold(threadId: string, signal: AbortSignal): Promise<Slot | undefined> {
    const before = slots.get(threadId)
    if (before && !(await isUsable(before))) await end(before)
    for (;;) {
      const slot = slots.get(threadId)
      if (slot) {
        slot.users += 1
        return slot
      }
      const other = opening.get(threadId)
      if (other) {
        await other.catch(() => {})
        signal.throwIfAborted()
        continue
      }
      const mine = open(threadId, signal).finally(() => opening.delete(threadId))
      opening.set(threadId, mine)
      return mine
    }
  }

  /** It has its first user from the start. */
  async function open(threadId: string, signal: AbortSignal): Promise<Slot | undefined> {
    await rooms.take(signal)
    try {
      const slot = await begin(threadId)
      if (!slot) rooms.leave()
      return slot
    } catch (error) {
      rooms.leave()
      throw error
    }
  }

  async function begin(threadId: string): Promise<Slot | undefined> {
    const begun = await sandboxes.begin(threadId, hostId)
    if (!begun) return undefined
    const slot: Slot = {
      threadId,
      ...begun,
      ...(await places.take()),
      known: new Map(),
      placed: new Map(),
      executions: new Map(),
      users: 1,
      lastUsedAt: Date.now(),
      isOver: false,
    }
    slots.set(threadId, slot)
    void endWithSandbox(slot)
    setImmediate(() => places.refill())
    return slot
  }

  async function endWithSandbox(slot: Slot): Promise<void> {
    const why = await slot.sandbox.died
    if (slot.isOver) return
    log.info({ thread_id: slot.threadId, why }, 'a sandbox is gone')
    await end(slot)
  }

  /** Whether the sandbox lives and is still the one that the thread's lease means. */
  async function isUsable(slot: Slot): Promise<boolean> {
    if (slot.sandbox.poll() !== null) return false
    if (slot.users > 0) return true
    return (await sandboxes.stillHeld(hostId, [slot])).has(slot.threadId)
  }

  async function sweep(): Promise<void> {
    places.refill()
    await sandboxes.release(hostId, [...slots.keys(), ...opening.keys()])
    const idle = [...slots.values()].filter(({ users }) => users === 0)
    const held = idle.length > 0 && (await sandboxes.stillHeld(hostId, idle))
    for (const slot of idle) {
      const isOld = slot.lastUsedAt + idleMs < Date.now()
      if (slot.users === 0 && (isOld || (held && !held.has(slot.threadId)))) await end(slot)
    }
  }

  const timer = setInterval(() => {
    sweep().catch((error: unknown) => log.warn({ err: error }, 'idle sandboxes were not ended'))
  }, sweepMs)

  return {
    async use(threadId, signal, work) {
      const slot = await hold(threadId, signal)
      if (!slot) return undefined
      try {
        return await work(slot)
      } finally {
        slot.users -= 1
        slot.lastUsedAt = Date.now()
        if (slot.users === 0 && slot.isOver) await drop(slot)
        else makeRoom()
      }
    },
    async [Symbol.asyncDispose]() {
      clearInterval(timer)
      // Whoever still uses one is too late.
      for (const slot of slots.values()) slot.users = 0
      await Promise.all([...slots.values()].map(end))
      await places[Symbol.asyncDispose]()
    },
  }
}
