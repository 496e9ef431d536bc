import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'

import OpenAI from 'openai'

export interface ServerProcess extends AsyncDisposable {
  pid: number
  process: ChildProcess
  /** Ends in `/v1`; undefined for a worker. */
  baseUrl: string | undefined
  client: OpenAI
  /** What it has written so far. */
  output(): string
  /** Sends the signal and waits for the end; SIGSTOP and SIGCONT do not wait. */
  kill(signal: NodeJS.Signals): Promise<void>
}

/**
 * The real program in a process of its own. `env` names what it connects to (DATABASE_URL, TEMPORAL_ADDRESS, CHROMA_URL,
 * UPSTREAM_BASE_URL ...); nothing of ours is inherited but PATH and what the set-up found. Resolves at its ready line.
 */
export async function spawnServer(env: Record<string, string>): Promise<ServerProcess> {
  const child = spawn(process.execPath, ['local/main.ts'], {
    env: { ...found(), ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let output = ''
  const ready = Promise.withResolvers<void>()
  const onData = (data: Buffer): void => {
    output += data.toString()
    // What names the address of an api comes after the ready line, and maybe in another piece.
    if (/Longrun is ready/.test(output) && /Base URL +\S+\s|has no API/.test(output)) {
      ready.resolve()
    }
  }
  child.stdout.on('data', onData)
  child.stderr.on('data', onData)
  child.once('exit', (code, signal) =>
    ready.reject(new Error(`The server ended before it was ready (${code ?? signal}):\n${output}`)),
  )
  await ready.promise
  const baseUrl = /Base URL +(\S+)/.exec(output)?.[1]
  const isOver = (): boolean => child.exitCode !== null || child.signalCode !== null
  const kill = async (signal: NodeJS.Signals): Promise<void> => {
    if (isOver()) return
    child.kill(signal)
    if (signal !== 'SIGSTOP' && signal !== 'SIGCONT') await once(child, 'exit')
  }
  return {
    pid: child.pid ?? 0,
    process: child,
    baseUrl,
    client: new OpenAI({ baseURL: baseUrl ?? 'http://127.0.0.1:9', apiKey: 'test', maxRetries: 0 }),
    output: () => output,
    kill,
    [Symbol.asyncDispose]: () => kill('SIGKILL'),
  }
}

function found(): Record<string, string> {
  const names = ['PATH', 'HOME', 'LONGRUN_TEMPORAL_CLI', 'LONGRUN_CHROMA', 'LONGRUN_CACHE']
  return Object.fromEntries(
    names.flatMap((name) => (process.env[name] ? [[name, process.env[name]]] : [])),
  )
}
