import { ApplicationFailure } from '@temporalio/common'

import {
  SandboxFilesystemNotFoundError,
  type CodeResult,
  type SandboxFile,
} from '../sandbox/index.ts'
import type { BegunCode, RunRow, ToolCallRow } from '../store/rows.ts'
import type { Store } from '../store/index.ts'
import type { NewCodeFile, ToolOutputPart } from '../store/tool-calls.ts'
import { workerLost } from '../wire/failures.ts'
import { codeOf } from '../wire/streamed-code.ts'
import type { CodeHost } from './code-host.ts'
import type { CodeSession, Execution } from './code-sessions.ts'
import { outputForModel } from './code-output.ts'

export interface CodeTask {
  call: ToolCallRow
  run: RunRow
  /** The longest that the code may take, within the run's deadline. */
  timeoutMs: number
  signal: AbortSignal
}

/** `moved`: the thread's code is elsewhere by now. `taken`: the call is another attempt's, or gone. */
export type CodeOutcome = 'kept' | 'moved' | 'taken'

/** How often code is begun that takes its sandbox, or the machine, down with it. */
const mostTimes = 2
/** Files that one call may make: whoever unpacks an archive wants the archive. */
const mostFiles = 1000
/** Of a path under /mnt/data: longer ones fit into no index. */
const mostPathBytes = 1000

/** Runs the code of a call in the session of its thread, and keeps what comes of it. */
export function createCodeInterpreter(
  { codeFiles, files, toolCalls, sandboxes }: Store,
  host: CodeHost,
) {
  return async function runCode(task: CodeTask): Promise<CodeOutcome> {
    const { run, signal } = task
    const outcome = await host.sessions.use(run.thread_id, signal, (session) =>
      runIn(session, task),
    )
    return outcome ?? 'moved'
  }

  async function runIn(session: CodeSession, task: CodeTask): Promise<CodeOutcome> {
    const { call, signal } = task
    const execution = session.executions.get(call.id) ?? (await execute(session, task))
    if (typeof execution === 'string') return execution
    const stop = (): void => {
      // Code goes on where only the activity was taken away: its next attempt comes back to it.
      if (signal.reason !== 'replaced') execution.stop.abort(signal.reason)
    }
    if (signal.aborted) stop()
    signal.addEventListener('abort', stop)
    const result = await execution.result
    signal.removeEventListener('abort', stop)
    if (signal.reason === 'shutdown') {
      // Another worker begins the code again, and says so.
      session.executions.delete(call.id)
      throw ApplicationFailure.nonRetryable('The worker is shutting down', workerLost)
    }
    const isKept = await keep(session, call, execution, result)
    // A model whose run is cancelled is told nothing any more.
    if (isKept === 'kept' && signal.reason === 'cancelled') session.lostState ||= result.stateLost
    return isKept
  }

  /** Begins the code, where it is this attempt's to begin. */
  async function execute(session: CodeSession, task: CodeTask): Promise<Execution | CodeOutcome> {
    const { call, run, signal } = task
    const { generation, threadId } = session
    const times = (call.begun?.times ?? 0) + 1
    if (times > mostTimes) {
      return (await toolCalls.finish(call, gaveUp(mostTimes))) ? 'kept' : 'taken'
    }
    const notes = await fill(session, run)
    const remainingMs = run.expires_at.getTime() - Date.now()
    if (signal.aborted || remainingMs <= 0) return 'taken'
    if (!(await sandboxes.use({ threadId, hostId: host.id, generation }))) return 'moved'
    const where: BegunCode = { host_id: host.id, generation, times }
    if (!(await toolCalls.begin(call, where))) return 'taken'
    const stop = new AbortController()
    const timeoutMs = Math.min(task.timeoutMs, remainingMs)
    const execution = {
      result: session.sandbox.runCode(codeOf(call.arguments), { timeoutMs, signal: stop.signal }),
      stop,
      before: call.begun ? ranAgain : session.lostState ? startedAnew : undefined,
      notes,
    }
    session.executions.set(call.id, execution)
    return execution
  }

  async function keep(
    session: CodeSession,
    call: ToolCallRow,
    execution: Execution,
    result: CodeResult,
  ): Promise<CodeOutcome> {
    await using stack = new AsyncDisposableStack()
    const listed = await listFiles(session)
    const changed = listed.filter(({ path, version }) => session.known.get(path) !== version)
    const wanted = changed.filter(({ path }) => Buffer.byteLength(path) <= mostPathBytes)
    const written = await keepFiles(stack, session, wanted.slice(0, mostFiles))
    const present = new Set(listed.map(({ path }) => path))
    const removed = [...session.known.keys()].filter(
      (path) => !present.has(path) && !isIncidental(path),
    )
    const output = outputForModel(result, {
      before: execution.before,
      notes: [...execution.notes, ...leftOut(changed.length - written.length)],
      files: written,
    })
    const outputs = await outputsOf(stack, result)
    const isKept = await toolCalls.finish(call, { output, outputs, files: written, removed })
    if (!isKept) return 'taken'
    for (const { path, version } of changed) {
      session.known.set(path, version)
      session.placed.delete(path)
    }
    for (const path of removed) session.known.delete(path)
    session.lostState = false
    session.executions.delete(call.id)
    return 'kept'
  }

  /**
   * Makes /mnt/data hold what it should: everything in a new sandbox, later what has come since, also in the place of another
   * file of the same name; and no more what has been taken away. Returns what the model has to know.
   */
  async function fill(session: CodeSession, run: RunRow): Promise<string[]> {
    const { known, placed, sandbox } = session
    const { filesystem } = sandbox
    const data = await codeFiles.of(run)
    const given = data.given.map((file) => ({ ...file, paths: [...new Set([file.id, file.name])] }))
    const wanted = new Map(given.flatMap(({ id, paths }) => paths.map((path) => [path, id])))
    const written = new Set(data.written.map(({ path }) => path))
    for (const [path, id] of placed) {
      if (wanted.get(path) === id || written.has(path)) continue
      await filesystem.remove(path).catch(() => {})
      placed.delete(path)
      known.delete(path)
    }

    const notes: string[] = []
    const put: string[] = []
    const missing = [
      ...data.written.flatMap((file) =>
        known.has(file.path) ? [] : [{ file, paths: [file.path] }],
      ),
      ...given.map((file) => ({
        file,
        paths: file.paths.filter((path) => placed.get(path) !== file.id && !written.has(path)),
      })),
    ]
    for (const { file, paths } of missing) {
      const [first] = paths
      if (first === undefined) continue
      try {
        await filesystem.writeStream(first, await files.content(file))
        for (const path of paths.slice(1)) await filesystem.copy(first, path)
        put.push(...paths)
        for (const path of paths) if (!written.has(path)) placed.set(path, file.id)
      } catch (error) {
        const why = error instanceof Error ? error.message : String(error)
        notes.push(`The file ${paths.at(-1)} could not be put into /mnt/data: ${why}`)
      }
    }
    if (put.length === 0) return notes
    // What has been put there does not count as written by code.
    const listed = await listFiles(session)
    const versions = new Map(listed.map(({ path, version }) => [path, version]))
    for (const path of put) known.set(path, versions.get(path) ?? '')
    return notes
  }

  async function keepFiles(
    stack: AsyncDisposableStack,
    { sandbox }: CodeSession,
    changed: Listed[],
  ): Promise<NewCodeFile[]> {
    const kept: NewCodeFile[] = []
    for (const { path } of changed) {
      try {
        const { stream } = await sandbox.filesystem.openRead(path)
        kept.push({ path, written: stack.use(await files.write(stream)) })
      } catch (error) {
        // It was there a moment ago: something that still runs has removed it.
        if (!(error instanceof SandboxFilesystemNotFoundError)) throw error
      }
    }
    return kept
  }

  async function outputsOf(
    stack: AsyncDisposableStack,
    { outputs, note }: CodeResult,
  ): Promise<ToolOutputPart[]> {
    const parts: ToolOutputPart[] = []
    for (const output of outputs) {
      if (output.type === 'logs') parts.push(output)
      else {
        const { format, data } = output
        const written = stack.use(await files.write(oneChunk(data)))
        const mimeType = `image/${format}`
        parts.push({ type: 'image', filename: `figure.${format}`, mimeType, written })
      }
    }
    if (note === undefined) return parts
    const last = parts.at(-1)
    if (last?.type !== 'logs') return [...parts, { type: 'logs', logs: note }]
    const gap = last.logs.endsWith('\n') ? '' : '\n'
    return [...parts.slice(0, -1), { type: 'logs', logs: `${last.logs}${gap}${note}` }]
  }
}

interface Listed {
  /** Under /mnt/data. */
  path: string
  version: string
}

/** What lies in /mnt/data, without what programs leave behind for themselves. */
async function listFiles({ sandbox }: CodeSession): Promise<Listed[]> {
  const listed = await sandbox.filesystem.listFiles()
  return listed
    .map((file) => ({ path: relative(file), version: versionOf(file) }))
    .filter(({ path }) => !isIncidental(path))
}

const startedAnew =
  'The Python session was started anew, since its sandbox had been idle for too long or was lost: the variables of earlier ' +
  'code are gone. The files in /mnt/data were kept.'
const ranAgain =
  'The sandbox was lost while this code ran, so it was run again from its beginning in a new one. The variables of ' +
  'earlier code are gone; what earlier calls wrote to /mnt/data was kept.'

function gaveUp(times: number) {
  const logs = `Error: the sandbox was lost ${times} times while this code ran, so it was not run again. The variables of earlier code are gone.`
  return { output: logs, outputs: [{ type: 'logs' as const, logs }] }
}

function leftOut(count: number): string[] {
  if (count <= 0) return []
  return [
    `${count} of the files that were written could not be kept for the user: at most ${mostFiles} at once, with paths of at most ${mostPathBytes} bytes. Put many files into one archive.`,
  ]
}

function relative({ path }: SandboxFile): string {
  return path.replace('/mnt/data/', '')
}

function versionOf({ sizeBytes, modifiedAt }: SandboxFile): string {
  return `${sizeBytes} ${modifiedAt.getTime()}`
}

function isIncidental(path: string): boolean {
  return path.split('/').some((name) => name.startsWith('.') || name === '__pycache__')
}

async function* oneChunk(data: Buffer): AsyncGenerator<Uint8Array> {
  yield data
}
