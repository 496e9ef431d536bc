import { randomUUID } from 'node:crypto'
import { join, resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

import { openCodeHost } from '../activities/code-host.ts'
import type { CodeDeps } from '../activities/index.ts'
import type { Logger } from '../log.ts'
import {
  DEFAULT_LIMITS,
  openSandboxes,
  reapSandboxes,
  type SandboxLimits,
  type SandboxOptions,
  type SandboxProvider,
} from '../sandbox/index.ts'
import { openRoot, type RootOptions } from '../sandbox/root.ts'
import type { Store } from '../store/index.ts'
import type { SandboxHostState } from '../store/rows.ts'
import { makeStateDir, removeDeadStateDirs } from './state-dirs.ts'

/** As in the configuration; what it leaves out of the limits is as sandboxes have it by default. */
export interface CodeOptions {
  provider: 'auto' | SandboxProvider['name'] | 'none'
  root: RootOptions
  limits: Partial<SandboxLimits>
  network: SandboxOptions['network']
  /** Sandboxes at once. */
  maxSessions: number
  /** Sandboxes that are kept started for threads to come. */
  warmSpares: number
  /** Milliseconds after the last use that a thread keeps its variables. */
  idleMs: number
  /** Milliseconds that a call may take. */
  cellTimeoutMs: number
  /** As the docker command takes it; undefined for the usual sockets. */
  dockerHost: string | undefined
  /** For what belongs to sandboxes while they live; other processes may have theirs in it too. */
  stateDir: string
}

const mostFailedStarts = 3
const probeMs = 10_000

/**
 * Makes this process a host of sandboxes. It is one at once, and says how far it is: until Python has been set up for it, and
 * a way to isolate was found by trying it, code waits.
 */
export async function openCode(
  store: Store,
  options: CodeOptions,
  log: Logger,
): Promise<CodeDeps & AsyncDisposable> {
  const { cellTimeoutMs: timeoutMs } = options
  if (options.provider === 'none') {
    const unavailable = 'this server runs no code (SANDBOX_PROVIDER=none)'
    return { host: undefined, unavailable, timeoutMs, async [Symbol.asyncDispose]() {} }
  }
  const id = randomUUID()
  const own = await makeStateDir(resolve(options.stateDir), id)
  const stateDir = own.path
  const stopping = new AbortController()
  let state: SandboxHostState = { kind: 'building', progress: 'it begins' }
  let provider: SandboxProvider | undefined
  let failedStarts = 0

  async function setUp(): Promise<void> {
    const settled = await openRoot(options.root).wait(stopping.signal, (progress) => {
      state = { kind: 'building', progress }
    })
    if (settled.state === 'failed') return fail(`${settled.why} ${settled.remedy}`)
    const { root, bwrapPath } = settled
    const { dockerHost } = options
    const deps = {
      root,
      log,
      ...(bwrapPath !== undefined && { bwrapPath }),
      ...(dockerHost !== undefined && { dockerHost }),
    }
    await removeDeadStateDirs(resolve(options.stateDir), (dead) =>
      reapSandboxes({ ...deps, stateDir: dead }),
    )
    const opened = await openSandboxes({ ...deps, provider: options.provider, stateDir })
    if ('none' in opened) return fail(opened.none)
    provider = opened
    state = { kind: 'ready' }
    log.info({ provider: opened.name }, 'code can be run')
  }

  /** Code goes elsewhere while sandboxes do not start here, until one does. */
  function onStart(error?: unknown): void {
    failedStarts = error === undefined ? 0 : failedStarts + 1
    if (failedStarts < mostFailedStarts || state.kind !== 'ready') return
    fail(`sandboxes do not start (${error instanceof Error ? error.message : String(error)})`)
    void recover()
  }

  async function recover(): Promise<void> {
    while (!stopping.signal.aborted && state.kind === 'failed') {
      await sleep(probeMs, undefined, { signal: stopping.signal }).catch(() => {})
      if (stopping.signal.aborted) return
      const probed = await provider?.probe()
      if (!probed?.ok) continue
      failedStarts = 0
      state = { kind: 'ready' }
      log.info('code can be run again')
    }
  }

  function fail(why: string): void {
    state = { kind: 'failed', why }
    log.warn({ why }, 'no code can be run: the code interpreter is not available')
  }

  const settingUp = setUp().catch((error: unknown) => {
    if (!stopping.signal.aborted) fail(error instanceof Error ? error.message : String(error))
  })
  const host = openCodeHost(store, {
    ...options,
    limits: { ...DEFAULT_LIMITS, ...options.limits },
    id,
    log,
    dir: join(stateDir, 'data'),
    provider: () => provider,
    state: () => state,
    onStart,
  })
  return {
    host,
    unavailable: 'no process of this server can run code at the moment',
    timeoutMs,
    async [Symbol.asyncDispose]() {
      stopping.abort()
      await settingUp
      await host[Symbol.asyncDispose]()
      await own[Symbol.asyncDispose]()
    },
  }
}
