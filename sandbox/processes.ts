import { buffer } from 'node:stream/consumers'
import { Readable, Writable } from 'node:stream'

import { InvalidError, SandboxGoneError, SandboxStartError, SandboxTimeoutError } from './errors.ts'
import type { ProcessMessage, ToSupervisor } from './messages.ts'
import type { ContainerProcess, ContainerStream, ExecOptions } from './sandbox.ts'

/** Programs beside the interpreter. */
export interface Processes {
  exec: (argv: string[], options?: ExecOptions) => Promise<ContainerProcess>
  onMessage(message: ProcessMessage): void
  onGone(error: Error): void
}

export interface ProcessesDeps {
  send: (message: ToSupervisor) => void
  watch: <T>(work: Promise<T>) => Promise<T>
}

/** How much of a stream may be under way before somebody has read it. */
const WINDOW_BYTES = 256 * 1024
const PIECE_BYTES = 48 * 1024

export function createProcesses({ send, watch }: ProcessesDeps): Processes {
  const running = new Map<number, Running>()
  let lastId = 0
  let gone: Error | undefined

  async function exec(argv: string[], options: ExecOptions = {}): Promise<ContainerProcess> {
    if (gone) throw gone
    const { workdir, env, timeoutMs } = options
    const texts = [...argv, workdir ?? '', ...Object.entries(env ?? {}).flat()]
    if (argv.length === 0) throw new InvalidError('argv is empty: it begins with the program.')
    if (texts.some((text) => text.includes('\u0000')))
      throw new InvalidError('argv, workdir and env may not hold U+0000.')
    lastId += 1
    const id = lastId
    const one = createRunning(id, options, send)
    running.set(id, one)
    void watch(one.exit)
      .catch(() => {})
      .finally(() => one.isDone() && running.delete(id))
    send({
      t: 'spawn',
      id,
      argv,
      ...(workdir !== undefined && { workdir }),
      ...(env && { env }),
      ...(timeoutMs !== undefined && { timeoutMs }),
    })
    await one.started
    return one.process
  }

  return {
    exec,
    onMessage(message) {
      const one = running.get(message.id)
      one?.onMessage(message)
      if (one?.isDone()) running.delete(message.id)
    },
    onGone(error) {
      gone = error
      for (const one of running.values()) one.onGone(error)
      running.clear()
    },
  }
}

type Running = ReturnType<typeof createRunning>

function createRunning(id: number, options: ExecOptions, send: ProcessesDeps['send']) {
  const started = Promise.withResolvers<void>()
  const exit = Promise.withResolvers<number>()
  // Whoever does not wait for it need not know how it ended.
  exit.promise.catch(() => {})
  const stdout = createOutput((bytes) => send({ t: 'credit', id, s: 1, bytes }))
  const stderr = createOutput((bytes) => send({ t: 'credit', id, s: 2, bytes }))
  const stdin = createInput({
    write: (data) => send({ t: 'stdin', id, d: data.toString('base64') }),
    end: () => send({ t: 'eof', id }),
  })
  const outputs = { 1: stdout, 2: stderr }
  let hasExited = false

  const process: ContainerProcess = {
    stdin: stdin.stream,
    stdout: stdout.stream,
    stderr: stderr.stream,
    wait: () => exit.promise,
    kill: () => send({ t: 'kill', id }),
  }

  function onExit(message: Extract<ProcessMessage, { t: 'pexit' }>): void {
    hasExited = true
    stdin.acknowledge('the program has ended')
    if (message.timedOut)
      exit.reject(new SandboxTimeoutError(`It took longer than ${options.timeoutMs} ms.`))
    else exit.resolve(message.code ?? 128 + (message.signal ?? 0))
  }

  return {
    process,
    started: started.promise,
    exit: exit.promise,
    isDone: () => hasExited && stdout.hasEnded() && stderr.hasEnded(),
    onMessage(message: ProcessMessage): void {
      switch (message.t) {
        case 'pstarted':
          return started.resolve()
        case 'pfailed': {
          const error = new SandboxStartError(`The program did not start: ${message.error}`)
          started.reject(error)
          exit.reject(error)
          hasExited = true
          stdout.end()
          stderr.end()
          return undefined
        }
        case 'pdata':
          return outputs[message.s].push(Buffer.from(message.d, 'base64'))
        case 'pend':
          return outputs[message.s].end()
        case 'pstdin':
          return stdin.acknowledge(message.error)
        case 'pexit':
          return onExit(message)
        default:
          return message satisfies never
      }
    },
    onGone(cause: Error): void {
      const error = new SandboxGoneError(cause.message, { cause })
      started.reject(error)
      exit.reject(error)
      stdin.acknowledge(cause.message)
      stdout.stream.destroy(error)
      stderr.stream.destroy(error)
    },
  }
}

/** Asks for more only when somebody reads, so that a program which writes a lot waits. */
function createOutput(ask: (bytes: number) => void) {
  let underWay = 0
  let hasEnded = false
  const stream = Object.assign(
    new Readable({
      read() {
        if (underWay > 0 || hasEnded) return
        underWay = WINDOW_BYTES
        ask(WINDOW_BYTES)
      },
    }),
    {
      readBytes: async () => await buffer(stream),
      readText: async () => (await buffer(stream)).toString('utf8'),
    },
  ) as ContainerStream
  // It is heard by whoever reads.
  stream.on('error', () => {})

  return {
    stream,
    hasEnded: () => hasEnded,
    push(data: Buffer): void {
      underWay -= data.length
      stream.push(data)
    },
    end(): void {
      hasEnded = true
      stream.push(null)
    },
  }
}

/** One piece at a time: the next goes when the program has taken the one before. */
function createInput(to: { write: (data: Buffer) => void; end: () => void }) {
  let acknowledged: ((error?: Error) => void) | undefined

  async function write(chunk: Buffer): Promise<void> {
    for (let start = 0; start < chunk.length; start += PIECE_BYTES) {
      await new Promise<void>((resolve, reject) => {
        acknowledged = (error) => (error ? reject(error) : resolve())
        to.write(chunk.subarray(start, start + PIECE_BYTES))
      })
    }
  }

  async function take(chunk: Buffer, done: (error?: Error) => void): Promise<void> {
    try {
      await write(chunk)
    } catch (error) {
      done(error as Error)
      return
    }
    done()
  }

  const stream = new Writable({
    write(chunk: Buffer, _encoding, done) {
      void take(chunk, done)
    },
    final(done) {
      to.end()
      done()
    },
  })
  // It is heard by whoever writes.
  stream.on('error', () => {})

  return {
    stream,
    acknowledge(error?: string): void {
      acknowledged?.(error === undefined ? undefined : new Error(error))
      acknowledged = undefined
    },
  }
}
