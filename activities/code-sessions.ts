import { randomUUID } from 'node:crypto'
import { chmod, mkdir, readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'

import type { Logger } from '../log.ts'
import {
  Sandbox,
  type CodeResult,
  type SandboxLimits,
  type SandboxOptions,
  type SandboxProvider,
} from '../sandbox/index.ts'
import type { Sandboxes } from '../store/sandboxes.ts'

export interface SessionOptions {
  id: string
  log: Logger
  /** Undefined until it is known what runs code here. */
  provider: () => SandboxProvider | undefined
  /** Directories of the threads' files. */
  dir: string
  limits: SandboxLimits
  network: SandboxOptions['network']
  /** Sessions at once; the one that was idle for longest makes room. */
  maxSessions: number
  /** Sandboxes that are kept started for threads to come. */
  warmSpares: number
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
  /** Of calls whose result is not kept yet, for an attempt that comes to one again. */
  executions: Map<string, Execution>
}

export interface Execution {
  result: Promise<CodeResult>
  /** What the model is to be told before its result. */
  before: string | undefined
  notes: string[]
}

interface Slot extends CodeSession, Place {
  users: number
  lastUsedAt: number
}

/** A sandbox and the directory that is its /mnt/data. */
interface Place {
  sandbox: Sandbox
  dir: string
}

const sweepMs = 5000

/** The sessions of this process, one a thread. They end with it: their files are kept elsewhere. */
export function createCodeSessions(sandboxes: Sandboxes, options: SessionOptions) {
  const { id: hostId, log, dir } = options
  const slots = new Map<string, Slot>()
  const opening = new Map<string, Promise<Slot | undefined>>()
  const spares: Promise<Place | undefined>[] = []
  /** Sessions that have room and are about to begin. */
  let beginning = 0
  let isClosed = false
  let freed = Promise.withResolvers<void>()

  async function newPlace(): Promise<Place> {
    const provider = options.provider()
    if (!provider) throw new Error('This host has no sandboxes yet')
    const dataDir = join(dir, randomUUID())
    await mkdir(dataDir, { recursive: true, mode: 0o700 })
    try {
      const { limits, network } = options
      return { sandbox: await Sandbox.create(provider, { dataDir, limits, network }), dir: dataDir }
    } catch (error) {
      await removeTree(dataDir)
      throw error
    }
  }

  /** Keeps as many started as are wanted; one that cannot be started is missed by nobody. */
  function refill(): void {
    while (!isClosed && options.provider() && spares.length < options.warmSpares) {
      spares.push(
        newPlace().catch((error: unknown) => {
          log.warn({ err: error }, 'a spare sandbox could not be started')
          return undefined
        }),
      )
    }
  }

  async function takePlace(): Promise<Place> {
    const spare = await spares.shift()
    if (spare && spare.sandbox.poll() === null) return spare
    if (spare) await drop(spare)
    return newPlace()
  }

  async function drop({ sandbox, dir: dataDir }: Place): Promise<void> {
    await sandbox.terminate()
    await removeTree(dataDir)
  }

  async function end(slot: Slot): Promise<void> {
    if (slots.get(slot.threadId) === slot) slots.delete(slot.threadId)
    freed.resolve()
    freed = Promise.withResolvers()
    const { threadId, generation } = slot
    await sandboxes
      .end({ threadId, hostId, generation })
      .catch((error: unknown) => log.warn({ err: error }, 'the end of a sandbox was not noted'))
    await drop(slot)
  }

  /** Waits until there is room, and makes some where a session is idle. */
  async function makeRoom(): Promise<void> {
    while (slots.size + beginning >= options.maxSessions) {
      const [idle] = [...slots.values()]
        .filter(({ users }) => users === 0)
        .toSorted((a, b) => a.lastUsedAt - b.lastUsedAt)
      if (idle) await end(idle)
      else await freed.promise
    }
  }

  /** The thread's session with one user more, so that nobody takes its room. */
  async function hold(threadId: string): Promise<Slot | undefined> {
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
        continue
      }
      const mine = open(threadId).finally(() => opening.delete(threadId))
      opening.set(threadId, mine)
      return mine
    }
  }

  /** It has its first user from the start. */
  async function open(threadId: string): Promise<Slot | undefined> {
    await makeRoom()
    beginning += 1
    try {
      return await begin(threadId)
    } finally {
      beginning -= 1
    }
  }

  async function begin(threadId: string): Promise<Slot | undefined> {
    const begun = await sandboxes.begin(threadId, hostId)
    if (!begun) return undefined
    const place = await takePlace()
    const slot: Slot = {
      threadId,
      ...begun,
      ...place,
      known: new Map(),
      executions: new Map(),
      users: 1,
      lastUsedAt: Date.now(),
    }
    slots.set(threadId, slot)
    void endWithSandbox(slot)
    setImmediate(refill)
    return slot
  }

  async function endWithSandbox(slot: Slot): Promise<void> {
    const why = await slot.sandbox.died
    if (slots.get(slot.threadId) !== slot) return
    log.info({ thread_id: slot.threadId, why }, 'a sandbox is gone')
    await end(slot)
  }

  async function sweep(): Promise<void> {
    refill()
    const idle = [...slots.values()].filter(({ users }) => users === 0)
    if (idle.length === 0) return
    const held = await sandboxes.stillHeld(hostId, idle)
    for (const slot of idle) {
      const isOld = slot.lastUsedAt + options.idleMs < Date.now()
      if (slot.users === 0 && (isOld || !held.has(slot.threadId))) await end(slot)
    }
  }

  const timer = setInterval(() => {
    sweep().catch((error: unknown) => log.warn({ err: error }, 'idle sandboxes were not ended'))
  }, sweepMs)

  return {
    /**
     * Calls `work` with the thread's session, which is begun where there is none; undefined where the thread is gone or has
     * its code elsewhere by now. Throws SandboxStartError.
     */
    async use<T>(
      threadId: string,
      work: (session: CodeSession) => Promise<T>,
    ): Promise<T | undefined> {
      const slot = await hold(threadId)
      if (!slot) return undefined
      try {
        return await work(slot)
      } finally {
        slot.users -= 1
        slot.lastUsedAt = Date.now()
        freed.resolve()
        freed = Promise.withResolvers()
      }
    },
    async [Symbol.asyncDispose]() {
      isClosed = true
      clearInterval(timer)
      await Promise.all([...slots.values()].map(end))
      await Promise.all(
        spares.map(async (spare) => {
          const place = await spare
          if (place) await drop(place)
        }),
      )
    },
  }

  /** Whether the sandbox lives and is still the one that the thread's lease means. */
  async function isUsable(slot: Slot): Promise<boolean> {
    if (slot.sandbox.poll() !== null) return false
    if (slot.users > 0) return true
    return (await sandboxes.stillHeld(hostId, [slot])).has(slot.threadId)
  }
}

/** Also of directories that code has closed to everybody. */
async function removeTree(dir: string): Promise<void> {
  try {
    await rm(dir, { recursive: true, force: true })
  } catch {
    await openUp(dir)
    await rm(dir, { recursive: true, force: true })
  }
}

async function openUp(dir: string): Promise<void> {
  await chmod(dir, 0o700)
  for (const entry of await readdir(dir, { withFileTypes: true })) {
    if (entry.isDirectory()) await openUp(join(dir, entry.name))
  }
}
