import { constants } from 'node:os'

import { type DiskWatch, type Measured, watchDisk } from './disk.ts'
import { ClientClosedError } from './errors.ts'
import type { Done, FromSupervisor, ToSupervisor } from './messages.ts'
import { createOutputs, createTextCleaner } from './output.ts'
import type { SandboxLimits } from './provider.ts'
import type { CodeOutput, CodeResult, RunCodeOptions } from './sandbox.ts'

/** Runs cells one after the other, and says in words what became of each. */
export interface Cells {
  run: (code: string, options: RunCodeOptions) => Promise<CodeResult>
  onMessage(message: CellMessage): void
  /** The sandbox is gone; `error` is for calls that come after its owner has closed it. */
  onGone(reason: string, error: Error): void
}

export interface CellsDeps {
  limits: SandboxLimits
  send: (message: ToSupervisor) => void
  interrupt: () => void
  oomKills: () => number | undefined
  usedBytes: () => Promise<number>
  givenBytes: () => number
  watch: <T>(work: Promise<T>) => Promise<T>
  end: (reason: string) => Promise<void>
}

export type CellMessage = Extract<FromSupervisor, { t: 'out' | 'image' | 'done' | 'died' | 'lost' }>

/** The supervisor interrupts, waits two seconds and kills. Where it does not, the whole sandbox is ended. */
const OVERDUE_MS = 5000
const LOOK_MS = 250
const IDLE_LOOK_MS = 1500

export function createCells(deps: CellsDeps): Cells {
  let queue: Promise<unknown> = Promise.resolve()
  let current: Cell | undefined
  let lastId = 0
  let gone: { reason: string; error: Error } | undefined
  /** Why variables were lost while no code ran; told with the next cell. */
  let lostBetween: string | undefined
  let idleWatch = watchIdle()
  /** Of /mnt/data, by the last cell; a look at every beginning would be half of a round trip. */
  let measured: Measured | undefined

  function watch(intervalMs: number, onFull: () => void, known?: Measured): DiskWatch {
    const { usedBytes, givenBytes, limits } = deps
    const limitBytes = limits.diskBytes
    return watchDisk({ usedBytes, givenBytes, limitBytes, intervalMs, onFull, known })
  }

  /** What a cell has left running may go on writing. */
  function watchIdle(): DiskWatch {
    const why = `between two calls the files in /mnt/data grew to more than ${megabytes(deps.limits.diskBytes)}`
    return watch(IDLE_LOOK_MS, () => void deps.end(`The Python sandbox was ended: ${why}.`))
  }

  async function run(code: string, options: RunCodeOptions): Promise<CodeResult> {
    if (gone?.error instanceof ClientClosedError) throw gone.error
    const turn = queue.then(() => runNow(code, options))
    queue = turn.catch(() => {})
    return await turn
  }

  async function runNow(code: string, options: RunCodeOptions): Promise<CodeResult> {
    idleWatch.stop()
    const disk = watch(LOOK_MS, deps.interrupt, idleWatch.last() ?? measured)
    try {
      await disk.ready
      if (gone) return unrun('gone', gone.reason)
      if (options.signal?.aborted) return unrun('interrupted')
      return await runWatched(code, options, disk)
    } finally {
      disk.stop()
      measured = disk.last()
      if (!gone) idleWatch = watchIdle()
    }
  }

  async function runWatched(
    code: string,
    options: RunCodeOptions,
    disk: DiskWatch,
  ): Promise<CodeResult> {
    lastId += 1
    const cell = createCell(lastId, options.onOutput)
    current = cell
    const startedAt = performance.now()
    const oomKills = deps.oomKills() ?? 0
    const { outputBytes } = deps.limits
    const { timeoutMs, signal } = options
    const overdue = setTimeout(
      () => void deps.end('The Python sandbox did not stop in time and was ended.'),
      timeoutMs + OVERDUE_MS,
    )
    signal?.addEventListener('abort', deps.interrupt)
    // Not as it is: JSON in seven bits takes six bytes for an umlaut.
    const encoded = Buffer.from(code).toString('base64')
    deps.send({ t: 'exec', id: cell.id, code: encoded, timeoutMs, outputBytes })
    try {
      const end = await deps.watch(cell.end)
      const durationMs = performance.now() - startedAt
      if (end.t === 'gone') return { ...ended('gone', true, cell, durationMs), note: end.reason }
      const lost = lostBetween
      lostBetween = undefined
      const isLost = end.t === 'died' || lost !== undefined
      const ranOutOfMemory =
        (deps.oomKills() ?? 0) > oomKills || (end.t === 'died' && end.killed === 'memory')
      const notes = [
        lost,
        noteOfEnd(end, {
          timeoutMs,
          isDiskFull: disk.isFull(),
          ranOutOfMemory,
          limits: deps.limits,
        }),
        end.dropped > 0 ? `[output truncated, ${end.dropped} bytes dropped]` : undefined,
      ].filter((note) => note !== undefined)
      return {
        ...ended(statusOf(end), isLost, cell, durationMs),
        droppedBytes: end.dropped,
        ...(notes.length > 0 && { note: notes.join(' ') }),
      }
    } finally {
      signal?.removeEventListener('abort', deps.interrupt)
      clearTimeout(overdue)
      current = undefined
    }
  }

  return {
    run,
    onMessage(message) {
      if (message.t === 'lost') {
        lostBetween = `The interpreter ended between two calls (${causeOf(message)}) and was restarted; variables were lost.`
      } else if (message.id === current?.id) current.onMessage(message)
    },
    onGone(reason, error) {
      gone = { reason, error }
      idleWatch.stop()
      current?.onGone(reason)
    },
  }
}

type Cell = ReturnType<typeof createCell>
type End = Done | { t: 'gone'; reason: string }

function createCell(id: number, onOutput: ((piece: CodeOutput) => void) | undefined) {
  const cleaner = createTextCleaner()
  const outputs = createOutputs(onOutput)
  const end = Promise.withResolvers<End>()
  let image: Buffer[] = []

  return {
    id,
    end: end.promise,
    outputs: () => outputs.take(),
    onMessage(message: Exclude<CellMessage, { t: 'lost' }>): void {
      switch (message.t) {
        case 'out':
          outputs.add({ type: 'logs', logs: cleaner.push(Buffer.from(message.d, 'base64')) })
          return
        case 'image':
          image.push(Buffer.from(message.d, 'base64'))
          if (!message.last) return
          outputs.add({ type: 'image', format: message.f, data: Buffer.concat(image) })
          image = []
          return
        case 'done':
        case 'died':
          // Where output was cut, what is left is half of a character or of an escape sequence.
          if (message.dropped === 0) outputs.add({ type: 'logs', logs: cleaner.flush() })
          end.resolve(message)
          return
        default:
          message satisfies never
      }
    },
    onGone: (reason: string) => end.resolve({ t: 'gone', reason }),
  }
}

function ended(status: CodeResult['status'], stateLost: boolean, cell: Cell, durationMs: number) {
  return { status, outputs: cell.outputs(), stateLost, droppedBytes: 0, durationMs }
}

function unrun(status: 'gone' | 'interrupted', note?: string): CodeResult {
  const stateLost = status === 'gone'
  return { status, outputs: [], stateLost, droppedBytes: 0, durationMs: 0, ...(note && { note }) }
}

function statusOf(end: Done): CodeResult['status'] {
  if (end.reason) return end.reason
  if (end.t === 'died') return 'crashed'
  return end.status === 'stopped' ? 'interrupted' : end.status
}

type Circumstances = {
  timeoutMs: number
  isDiskFull: boolean
  ranOutOfMemory: boolean
  limits: SandboxLimits
}

function noteOfEnd(end: Done, what: Circumstances): string | undefined {
  const why = reasonOf(end, what)
  const lost = 'The interpreter was restarted; variables were lost.'
  const memory = `(${megabytes(what.limits.memoryBytes)})`
  const sentences = [
    why,
    // What the system killed need not be the interpreter: it takes the largest.
    what.ranOutOfMemory && `The code ran out of memory ${memory}, and a process was killed.`,
    end.t === 'died' &&
      !why &&
      !what.ranOutOfMemory &&
      `The interpreter crashed (${causeOf(end)}).`,
    end.t === 'died' && lost,
  ].filter((sentence) => typeof sentence === 'string')
  return sentences.length > 0 ? sentences.join(' ') : undefined
}

function reasonOf(end: Done, what: Circumstances): string | undefined {
  const { isDiskFull, timeoutMs, limits } = what
  if (isDiskFull)
    return `The code was stopped: the files in /mnt/data are more than ${megabytes(limits.diskBytes)}.`
  if (end.reason === 'timeout') return `The code timed out after ${timeoutMs / 1000} s.`
  if (end.reason === 'interrupted') return 'The code was interrupted.'
  return undefined
}

function causeOf(end: { signal: number | null; code: number | null; killed: string | null }) {
  if (end.killed === 'memory') return 'out of memory'
  if (end.signal === null) return `exit code ${end.code}`
  const name = Object.entries(constants.signals).find(([, number]) => number === end.signal)?.[0]
  return name ?? `signal ${end.signal}`
}

function megabytes(bytes: number): string {
  return `${Math.round(bytes / 1024 / 1024)} MB`
}
