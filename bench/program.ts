import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))

/** The program as `npm start` runs it, in a process of its own. */
export interface Program extends AsyncDisposable {
  pid: number
  /** For clients; ends in `/v1`. */
  baseUrl: string
  databaseUrl: string
  temporalAddress: string
}

/** A data directory on the disk where a user's is too, since how long a commit takes depends on it. */
export function temporaryDataDir(): { path: string } & Disposable {
  mkdirSync(join(root, '.data'), { recursive: true })
  const path = mkdtempSync(join(root, '.data', 'bench-'))
  const remove = (): void => rmSync(path, { recursive: true, force: true, maxRetries: 5 })
  return { path, [Symbol.dispose]: remove }
}

export interface ProgramOptions {
  dataDir: string
  modelUrl: string
  nodeFlags?: string[]
}

/**
 * Everything in one process, or with the role of an api all but the worker, with a Postgres, a Temporal and a Chroma of its
 * own. Resolves at its ready line.
 */
export async function startProgram(
  options: ProgramOptions & { role?: 'api' },
  stop: AbortSignal,
): Promise<Program> {
  const [postgresPort, temporalPort] = [await freePort(), await freePort()]
  const child = startMain(options, {
    ROLE: options.role ?? 'all',
    POSTGRES_PORT: String(postgresPort),
    TEMPORAL_PORT: String(temporalPort),
    TEMPORAL_UI_PORT: '0',
    CHROMA_PORT: '0',
  })
  const dispose = (): Promise<void> => end(child)
  try {
    const baseUrl = await said(child, /Base URL +(\S+)/, stop)
    const password = readFileSync(join(options.dataDir, 'postgres.password'), 'utf8').trim()
    return {
      pid: child.pid ?? 0,
      baseUrl,
      databaseUrl: `postgres://longrun:${password}@127.0.0.1:${postgresPort}/longrun`,
      temporalAddress: `127.0.0.1:${temporalPort}`,
      [Symbol.asyncDispose]: dispose,
    }
  } catch (error) {
    await dispose()
    throw error
  }
}

/** A worker in a process of its own, with a data directory of its own, beside a program that is an api. */
export async function startWorker(
  options: ProgramOptions,
  { databaseUrl, temporalAddress }: Program,
  stop: AbortSignal,
): Promise<{ pid: number } & AsyncDisposable> {
  const child = startMain(options, {
    ROLE: 'worker',
    DATABASE_URL: databaseUrl,
    TEMPORAL_ADDRESS: temporalAddress,
    // No run of ours searches in files.
    CHROMA_URL: 'http://127.0.0.1:9',
  })
  const dispose = (): Promise<void> => end(child)
  try {
    await said(child, /(is a worker)/, stop)
    return { pid: child.pid ?? 0, [Symbol.asyncDispose]: dispose }
  } catch (error) {
    await dispose()
    throw error
  }
}

/** The model of `model.ts`. */
export async function startModel(
  stop: AbortSignal,
): Promise<{ pid: number; url: string } & AsyncDisposable> {
  const child = start(['bench/model.ts'], found())
  const dispose = (): Promise<void> => end(child)
  try {
    const url = await said(child, /^(http\S+)/, stop)
    return { pid: child.pid ?? 0, url, [Symbol.asyncDispose]: dispose }
  } catch (error) {
    await dispose()
    throw error
  }
}

function startMain(
  { dataDir, modelUrl, nodeFlags = [] }: ProgramOptions,
  env: Record<string, string>,
): ChildProcess {
  return start([...nodeFlags, 'local/main.ts'], {
    ...found(),
    DATA_DIR: dataDir,
    PORT: '0',
    UPSTREAM_BASE_URL: modelUrl,
    UPSTREAM_API_KEY: 'bench',
    SHUTDOWN_GRACE_S: '1',
    ...env,
  })
}

/** A group of its own, so that Ctrl-C reaches us alone; the channel tells it when we are gone. */
function start(args: string[], env: Record<string, string>): ChildProcess {
  return spawn(process.execPath, args, {
    cwd: root,
    env,
    detached: true,
    stdio: ['ignore', 'pipe', 'inherit', 'ipc'],
  })
}

/** What the first line that matches says. */
async function said(child: ChildProcess, pattern: RegExp, stop: AbortSignal): Promise<string> {
  const matched = Promise.withResolvers<string>()
  const onAbort = (): void => matched.reject(stop.reason)
  stop.addEventListener('abort', onAbort)
  child.once('error', matched.reject)
  child.once('exit', (code, signal) =>
    matched.reject(new Error(`${child.spawnargs.join(' ')} ended (${code ?? signal})`)),
  )
  const lines = child.stdout ? createInterface(child.stdout) : undefined
  lines?.on('line', (line) => {
    const [, match] = pattern.exec(line) ?? []
    if (match) matched.resolve(match)
  })
  try {
    stop.throwIfAborted()
    return await matched.promise
  } finally {
    stop.removeEventListener('abort', onAbort)
  }
}

async function end(child: ChildProcess): Promise<void> {
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return
  child.kill('SIGTERM')
  const timer = setTimeout(() => child.kill('SIGKILL'), 20_000)
  await once(child, 'exit')
  clearTimeout(timer)
}

/** What the set-up has found; nothing else of our environment is inherited. */
function found(): Record<string, string> {
  const names = ['PATH', 'HOME', 'LONGRUN_TEMPORAL_CLI', 'LONGRUN_CHROMA', 'LONGRUN_CACHE']
  return Object.fromEntries(
    names.flatMap((name) => (process.env[name] ? [[name, process.env[name]]] : [])),
  )
}

export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  server.close()
  await once(server, 'close')
  return typeof address === 'object' && address ? address.port : 0
}
