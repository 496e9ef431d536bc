import { createCells } from './cells.ts'
import { ClientClosedError, SandboxGoneError, SandboxStartError } from './errors.ts'
import { openFilesystem } from './filesystem.ts'
import type { KernelLaunch } from './launch.ts'
import type { FromSupervisor } from './messages.ts'
import { createProcesses } from './processes.ts'
import type { Sandbox } from './sandbox.ts'
import { openTerminal } from './terminal.ts'
import { createWatchdog } from './watchdog.ts'

const READY_TIMEOUT_MS = 60_000

/**
 * Starts a supervisor by the command line of a provider, and makes a Sandbox of it.
 * Throws SandboxStartError, with everything ended and cleaned up, where it does not come up.
 */
export async function startKernel(launch: KernelLaunch): Promise<Sandbox> {
  const ready = Promise.withResolvers<void>()
  const died = Promise.withResolvers<string>()
  const gone = Promise.withResolvers<number>()
  let exitCode: number | null = null
  let deathReason: string | undefined
  let isClosed = false
  let hasEnded = false

  const terminal = await openTerminal({
    ...launch,
    onMessage,
    onNonsense: () => void end('The Python sandbox misbehaved and was ended.'),
  }).catch(async (error: unknown) => {
    await launch.cleanUp?.()
    throw error
  })
  const filesystem = openFilesystem(launch.dataDir, launch.owner)
  const watchdog = createWatchdog({
    ping: (n) => terminal.send({ t: 'ping', n }),
    onSilence: () => void end('The Python sandbox stopped answering and was ended.'),
  })
  const cells = createCells({
    limits: launch.limits,
    send: terminal.send,
    interrupt: terminal.interrupt,
    oomKills: launch.oomKills ?? (() => undefined),
    usedBytes: filesystem.usedBytes,
    givenBytes: filesystem.givenBytes,
    watch: watchdog.watch,
    end,
  })
  const processes = createProcesses({ send: terminal.send, watch: watchdog.watch })

  function onMessage(message: FromSupervisor): void {
    switch (message.t) {
      case 'ready':
        ready.resolve()
        return
      case 'fatal':
        ready.reject(new SandboxStartError(`Python did not start in the sandbox. ${message.error}`))
        return
      case 'pong':
        watchdog.heard(message.n)
        return
      case 'badframe':
        return
      case 'out':
      case 'image':
      case 'done':
      case 'died':
      case 'lost':
        cells.onMessage(message)
        return
      case 'confine':
        confine(message.pid)
        return
      case 'pstarted':
      case 'pfailed':
      case 'pdata':
      case 'pend':
      case 'pstdin':
      case 'pexit':
        processes.onMessage(message)
        return
      default:
        message satisfies never
    }
  }

  function confine(pidInside: number): void {
    // One that has died meanwhile needs no answer: the supervisor knows.
    if (launch.confine?.(pidInside)) terminal.send({ t: 'confined', pid: pidInside })
    else launch.log.warn({ sandbox: launch.id, pidInside }, 'a process was not found to be bounded')
  }

  async function end(reason: string): Promise<void> {
    deathReason ??= reason
    // Its number may be another process's by now: `onEnd` has seen to it, when it was not.
    if (hasEnded) return void (await gone.promise)
    await attempt((launch.kill ?? killProcess)(terminal.pid))
    await gone.promise
  }

  /** The end goes on, whatever step of it fails. */
  async function attempt(step: Promise<void> | undefined): Promise<void> {
    try {
      await step
    } catch (err) {
      launch.log.error({ sandbox: launch.id, err }, 'a sandbox could not be ended in order')
    }
  }

  async function onEnd(code: number): Promise<void> {
    hasEnded = true
    const reason = deathReason ?? 'The Python sandbox ended unexpectedly.'
    watchdog.stop()
    if (!isClosed) {
      launch.log.warn(
        { sandbox: launch.id, code, said: terminal.noise() },
        `a sandbox died: ${reason}`,
      )
    }
    await attempt(launch.kill?.(terminal.pid))
    ready.reject(new SandboxStartError(`${reason} ${terminal.noise()}`.trim()))
    if (terminal.badFrames > 0) {
      launch.log.warn({ sandbox: launch.id, frames: terminal.badFrames }, 'a sandbox forged frames')
    }
    const error = isClosed ? new ClientClosedError(reason) : new SandboxGoneError(reason)
    cells.onGone(reason, error)
    processes.onGone(error)
    await attempt(launch.cleanUp?.())
    exitCode = code
    died.resolve(reason)
    gone.resolve(code)
  }

  void terminal.ended.then(onEnd)
  terminal.send({
    t: 'start',
    limits: {
      memoryBytes: launch.limits.memoryBytes,
      diskBytes: launch.limits.diskBytes,
      processes: launch.limits.processes,
    },
    watchMemory: !launch.memoryBounded,
    confine: launch.confine !== undefined,
  })
  const timer = setTimeout(
    () => void end('Python did not start in the sandbox in time.'),
    READY_TIMEOUT_MS,
  )
  try {
    await ready.promise
  } catch (error) {
    await end('Python did not start in the sandbox.')
    throw error
  } finally {
    clearTimeout(timer)
  }

  async function terminate(): Promise<void> {
    isClosed = true
    await end('The Python sandbox was closed.')
  }

  return {
    id: launch.id,
    hostPid: terminal.pid,
    runCode: cells.run,
    exec: processes.exec,
    filesystem,
    poll: () => exitCode,
    wait: () => gone.promise,
    terminate,
    died: died.promise,
    [Symbol.asyncDispose]: terminate,
  }
}

async function killProcess(pid: number): Promise<void> {
  try {
    process.kill(pid, 'SIGKILL')
  } catch {
    // It has ended.
  }
}
