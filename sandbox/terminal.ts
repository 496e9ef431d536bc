import { randomBytes } from 'node:crypto'

import { spawn } from 'node-pty'

import { SandboxStartError } from './errors.ts'
import { createFrameCodec } from './frames.ts'
import { FromSupervisor, type ToSupervisor } from './messages.ts'

/** The line to a supervisor, over a pseudo-terminal. */
export interface Terminal {
  /** Of the command that was started on the terminal. */
  readonly pid: number
  send: (message: ToSupervisor) => void
  /** The one thing that is said outside of frames, so that it overtakes nothing and is overtaken by nothing. */
  interrupt: () => void
  /** Resolves with the exit code (128 + n for a signal n) when the command has ended and the line is closed. */
  readonly ended: Promise<number>
  /** What came on the line beside frames, its last lines: what the launcher complained of. */
  noise(): string
  readonly badFrames: number
}

export interface TerminalOptions {
  command: string
  args: string[]
  env: Record<string, string>
  onMessage: (message: FromSupervisor) => void
  /** More came beside frames than any honest sandbox would send, or what no supervisor says. */
  onNonsense: () => void
}

const HELLO = '~hello {"protocol":1}'
const INTERRUPT = Buffer.from([3])
const HELLO_TIMEOUT_MS = 30_000
const NOISE_KEPT = 4096
const NOISE_LIMIT_BYTES = 16 * 1024 * 1024

/** Resolves when the supervisor has said hello and been given its key. Throws SandboxStartError. */
export async function openTerminal(options: TerminalOptions): Promise<Terminal> {
  const key = randomBytes(32)
  const frames = createFrameCodec<FromSupervisor>({
    key,
    sends: 'H',
    receives: 'S',
    parse: (message) => FromSupervisor.parse(message),
    onNoise: keepNoise,
  })
  const hello = Promise.withResolvers<void>()
  const ended = Promise.withResolvers<number>()
  let isOpen = false
  let hasEnded = false
  let noise = ''
  let beginning = ''

  function keepNoise(line: string): void {
    noise = `${noise}${line}\n`.slice(-NOISE_KEPT)
  }

  /** Nothing is written before it: the terminal echoes, and cuts lines, until the supervisor has made it raw. */
  function awaitHello(chunk: Buffer): void {
    beginning += chunk.toString('latin1')
    if (!beginning.includes(`\n${HELLO}\n`)) {
      beginning = beginning.slice(-NOISE_KEPT)
      return
    }
    isOpen = true
    hello.resolve()
  }

  function onData(chunk: Buffer): void {
    if (!isOpen) return awaitHello(chunk)
    try {
      for (const message of frames.decode(chunk)) options.onMessage(message)
      if (frames.noiseBytes > NOISE_LIMIT_BYTES) options.onNonsense()
    } catch {
      options.onNonsense()
    }
  }

  // A working directory and an environment of their own: node-pty hands on ours where it is given none.
  const pty = spawn(options.command, options.args, {
    cwd: '/',
    env: options.env,
    encoding: null,
    cols: 80,
    rows: 24,
  })
  // Without an encoding it hands out buffers, whatever its types say.
  pty.onData((chunk) => onData(chunk as unknown as Buffer))
  pty.onExit(({ exitCode, signal }) => {
    hasEnded = true
    ended.resolve(signal ? 128 + signal : exitCode)
  })

  const write = (data: string | Buffer): void => {
    if (!hasEnded) pty.write(data)
  }
  const complaint = (): string => printable(noise || beginning)

  const timer = setTimeout(() => {
    hello.reject(new SandboxStartError(`The sandbox did not answer in time. ${complaint()}`.trim()))
    kill(pty.pid)
  }, HELLO_TIMEOUT_MS)
  void ended.promise.then((code) =>
    hello.reject(
      new SandboxStartError(`The sandbox ended at once (${code}). ${complaint()}`.trim()),
    ),
  )
  try {
    await hello.promise
  } finally {
    clearTimeout(timer)
  }
  write(`KEY ${key.toString('hex')}\n`)

  return {
    pid: pty.pid,
    send: (message) => write(frames.encode(message)),
    interrupt: () => write(INTERRUPT),
    ended: ended.promise,
    noise: complaint,
    get badFrames() {
      return frames.badFrames
    },
  }
}

function printable(text: string): string {
  return text.replaceAll(/[^\n -~]/g, '').trim()
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch {
    // It has ended.
  }
}
