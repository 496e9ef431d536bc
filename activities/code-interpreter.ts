import { ApplicationFailure } from '@temporalio/common'

import type { CodeResult, SandboxFile } from '../sandbox/index.ts'
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
  timeoutMs: number
  signal: AbortSignal
}

/** How often code is begun that takes its sandbox, or the machine, down with it. */
const mostTimes = 2
/** Files that one call may make: whoever unpacks an archive wants the archive. */
const mostFiles = 1000

/** Runs the code of a call in the session of its thread, and keeps what comes of it. */
export function createCodeInterpreter(
  { codeFiles, files, toolCalls, sandboxes }: Store,
  host: CodeHost,
) {
  /** False where the thread's code is elsewhere by now, or the call is another attempt's. */
  return async function runCode(task: CodeTask): Promise<boolean> {
    const { call, run } = task
    const kept = await host.sessions.use(run.thread_id, (session) => runIn(session, task))
    if (kept === undefined) return false
    return kept || call.output !== null
  }

  async function runIn(session: CodeSession, task: CodeTask): Promise<boolean> {
    const { call } = task
    const execution = session.executions.get(call.id) ?? (await execute(session, task))
    if (typeof execution === 'boolean') return execution
    const result = await execution.result
    // The worker stops: another begins the code again, and says so.
    if (task.signal.reason === 'shutdown') {
      throw ApplicationFailure.nonRetryable('The worker is shutting down', workerLost)
    }

    await using stack = new AsyncDisposableStack()
    const changed = await changedFiles(session)
    const written = await keepFiles(stack, session, changed.slice(0, mostFiles))
    const outputs = await outputsOf(stack, result)
    const notes = changed.length > mostFiles ? [tooMany(changed.length)] : []
    const output = outputForModel(result, {
      before: execution.before,
      notes: [...execution.notes, ...notes],
      files: written,
    })
    const isKept = await toolCalls.finish(call, { output, outputs, files: written })
    if (isKept) {
      for (const { path, version } of changed) session.known.set(path, version)
      session.lostState = false
      session.executions.delete(call.id)
    }
    return isKept
  }

  /** Begins the code; true where there is nothing to begin any more, false where it is not this attempt's to begin. */
  async function execute(session: CodeSession, task: CodeTask): Promise<Execution | boolean> {
    const { call, run, timeoutMs } = task
    const { generation, threadId } = session
    const times = (call.begun?.times ?? 0) + 1
    if (times > mostTimes) return toolCalls.finish(call, gaveUp(mostTimes))
    const notes = await fill(session, run)
    const where: BegunCode = { host_id: host.id, generation, times }
    if (!(await toolCalls.begin(call, where))) return false
    if (!(await sandboxes.use({ threadId, hostId: host.id, generation }))) return false
    const signal = interrupting(task.signal)
    const execution = {
      result: session.sandbox.runCode(codeOf(call.arguments), { timeoutMs, signal }),
      before: call.begun ? ranAgain : session.lostState ? startedAnew : undefined,
      notes,
    }
    session.executions.set(call.id, execution)
    return execution
  }

  /** Puts in place what is not there yet: everything in a new sandbox, later what has been added since. */
  async function fill(session: CodeSession, run: RunRow): Promise<string[]> {
    const { filesystem } = session.sandbox
    const notes: string[] = []
    const data = await codeFiles.of(run)
    const wanted = [
      ...data.written.map((file) => ({ ...file, paths: [file.path] })),
      ...data.given.map((file) => ({ ...file, paths: [file.id, file.name] })),
    ]
    for (const file of wanted) {
      for (const path of file.paths) {
        if (session.known.has(path)) continue
        try {
          await filesystem.writeStream(path, await files.content(file))
        } catch (error) {
          const why = error instanceof Error ? error.message : String(error)
          notes.push(`The file ${path} could not be put into /mnt/data: ${why}`)
        }
        session.known.set(path, '')
      }
    }
    if (notes.length > 0 || wanted.length > 0) await remember(session)
    return notes
  }

  /** Takes note of the versions of what has been put there, so that it does not count as written by code. */
  async function remember(session: CodeSession): Promise<void> {
    for (const file of await session.sandbox.filesystem.listFiles()) {
      const path = relative(file)
      if (session.known.get(path) === '') session.known.set(path, versionOf(file))
    }
  }

  async function changedFiles({ sandbox, known }: CodeSession): Promise<Changed[]> {
    const listed = await sandbox.filesystem.listFiles()
    return listed
      .map((file) => ({ path: relative(file), version: versionOf(file) }))
      .filter(({ path, version }) => known.get(path) !== version && !isIncidental(path))
  }

  async function keepFiles(
    stack: AsyncDisposableStack,
    { sandbox }: CodeSession,
    changed: Changed[],
  ): Promise<NewCodeFile[]> {
    const kept: NewCodeFile[] = []
    for (const { path } of changed) {
      const opened = await sandbox.filesystem.openRead(path).catch(() => undefined)
      // It was there a moment ago: something that still runs has removed it.
      if (opened) kept.push({ path, written: stack.use(await files.write(opened.stream)) })
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
        parts.push({
          type: 'image',
          filename: `figure.${format}`,
          mimeType: `image/${format}`,
          written,
        })
      }
    }
    if (note === undefined) return parts
    const last = parts.at(-1)
    if (last?.type !== 'logs') return [...parts, { type: 'logs', logs: note }]
    const gap = last.logs.endsWith('\n') ? '' : '\n'
    return [...parts.slice(0, -1), { type: 'logs', logs: `${last.logs}${gap}${note}` }]
  }
}

/** Code goes on where only the activity was taken away: its next attempt comes back to it. */
function interrupting(signal: AbortSignal): AbortSignal {
  const abort = new AbortController()
  const pass = (): void => {
    if (signal.reason !== 'replaced') abort.abort(signal.reason)
  }
  if (signal.aborted) pass()
  else signal.addEventListener('abort', pass)
  return abort.signal
}

interface Changed {
  /** Under /mnt/data. */
  path: string
  version: string
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

function tooMany(count: number): string {
  return `${count} files were written at once; only the first ${mostFiles} were kept for the user. Put many files into one archive.`
}

function relative({ path }: SandboxFile): string {
  return path.replace('/mnt/data/', '')
}

function versionOf({ sizeBytes, modifiedAt }: SandboxFile): string {
  return `${sizeBytes} ${modifiedAt.getTime()}`
}

/** What programs leave behind for themselves. */
function isIncidental(path: string): boolean {
  return path.split('/').some((name) => name.startsWith('.') || name === '__pycache__')
}

async function* oneChunk(data: Buffer): AsyncGenerator<Uint8Array> {
  yield data
}
