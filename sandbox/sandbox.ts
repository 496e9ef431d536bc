import type { Readable, Writable } from 'node:stream'

/** A machine of its own for a stranger's Python: one interpreter whose variables last, its files, its processes. */
export interface Sandbox extends AsyncDisposable {
  /** Random; it says nothing of whom the sandbox is for. */
  readonly id: string
  /**
   * Runs a cell in the interpreter, after those that were given before it. What the code does wrong is a result, not an
   * error. An aborted signal interrupts the cell, or takes it back where it has not begun.
   * Throws ClientClosedError after `terminate()`.
   */
  runCode(code: string, options: RunCodeOptions): Promise<CodeResult>
  /** Starts a program beside the interpreter. Throws InvalidError for an empty argv or one with U+0000. */
  exec(argv: string[], options?: ExecOptions): Promise<ContainerProcess>
  /** The files under /mnt/data, from outside: it works while code runs, and after the sandbox is gone. */
  readonly filesystem: SandboxFilesystem
  /** The exit code of the whole sandbox, null while it lives. */
  poll(): number | null
  /** Resolves with the exit code once nothing of the sandbox is left. */
  wait(): Promise<number>
  /** Ends everything in it, and resolves when that is done. The files in its data directory stay. */
  terminate(): Promise<void>
  /** Resolves when the sandbox is gone, with the reason in words for the model. */
  readonly died: Promise<string>
  /** The process on this machine whose end is the end of the sandbox. */
  readonly hostPid: number
}

export interface RunCodeOptions {
  timeoutMs: number
  signal?: AbortSignal
  /** What the cell puts out, piece by piece, as it comes; must not throw. Joined, the pieces are `outputs` of the result. */
  onOutput?: (piece: CodeOutput) => void
}

export interface CodeResult {
  /**
   * `ok` and `error`: the code ended, by itself or by an exception. `timeout` and `interrupted`: it was stopped.
   * `crashed`: the interpreter died and another took its place. `gone`: the whole sandbox died.
   */
  status: 'ok' | 'error' | 'timeout' | 'interrupted' | 'crashed' | 'gone'
  /** In the order in which they came; neighbouring logs are merged. */
  outputs: CodeOutput[]
  /** True when variables were lost by this call. */
  stateLost: boolean
  /** A sentence for the model, where the code was stopped or its output was cut. */
  note?: string
  /** What was put out beyond the limit, and is not in `outputs`. */
  droppedBytes: number
  durationMs: number
}

export type CodeOutput = LogsOutput | ImageOutput

/** stdout, stderr, the repr of the last expression and tracebacks; no escape sequences, no U+0000, no half characters. */
export interface LogsOutput {
  type: 'logs'
  logs: string
}

export interface ImageOutput {
  type: 'image'
  format: 'png' | 'jpeg'
  data: Buffer
}

export interface ExecOptions {
  /** Absolute path in the sandbox; /mnt/data without it. */
  workdir?: string
  /** After it the process and its group are killed. */
  timeoutMs?: number
  /** Added to the environment of the sandbox. */
  env?: Record<string, string>
}

/** A program in the sandbox. Nothing of its output is lost: it waits until what it wrote has been read. */
export interface ContainerProcess {
  readonly stdin: Writable
  readonly stdout: ContainerStream
  readonly stderr: ContainerStream
  /**
   * Its exit code, 128 + n where a signal n ended it. Throws SandboxTimeoutError after `timeoutMs`, and SandboxGoneError
   * where the sandbox ended first.
   */
  wait(): Promise<number>
  kill(): void
}

export interface ContainerStream extends Readable {
  readText(): Promise<string>
  readBytes(): Promise<Buffer>
}

/**
 * Files under /mnt/data, read and written by the host, which never follows a link, opens only regular files, and waits for
 * no FIFO. Paths are absolute (`/mnt/data/...`) or relative to /mnt/data; others throw InvalidError, for the rest of the
 * sandbox is read with `exec(['cat', path])`. Throws SandboxFilesystemNotFoundError and its siblings.
 */
export interface SandboxFilesystem {
  readBytes(path: string): Promise<Buffer>
  readText(path: string): Promise<string>
  /** For files of any size. The size is that of the moment of opening, and no more than that is read. */
  openRead(path: string): Promise<{ sizeBytes: number; stream: Readable }>
  /** Replaces the file at once, when all is written; makes the directories that it is in. */
  writeBytes(path: string, data: Uint8Array): Promise<void>
  writeText(path: string, text: string): Promise<void>
  writeStream(path: string, data: AsyncIterable<Uint8Array>): Promise<void>
  /** A file under another name, which shares its blocks where the file system can do that; replaces as `writeBytes` does. */
  copy(from: string, to: string): Promise<void>
  /** All regular files beneath the path, sorted by path; links, FIFOs and the like are left out. */
  listFiles(path?: string): Promise<SandboxFile[]>
  /** Makes the directories that it is in, too; one that is there already is fine. */
  makeDirectory(path: string): Promise<void>
  /** A directory only when it is empty, unless `recursive`. */
  remove(path: string, options?: { recursive?: boolean }): Promise<void>
  stat(path: string): Promise<SandboxFileStat>
}

export interface SandboxFile {
  /** Absolute, in the sandbox: /mnt/data/... */
  path: string
  sizeBytes: number
  modifiedAt: Date
}

export interface SandboxFileStat extends SandboxFile {
  type: 'file' | 'directory' | 'other'
}
