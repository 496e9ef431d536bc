import { execFileSync, spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import {
  closeSync,
  fstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { createServer } from 'node:net'
import { join, resolve } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { setTimeout as sleep } from 'node:timers/promises'
import { z } from 'zod'
import type { Logger } from '../log.ts'

export type ChildSpec = {
  /** Names the pid file and the log file. */
  name: string
  command: string
  args: string[]
  /** The whole environment of the child: nothing is inherited. */
  env: Record<string, string>
  uid?: number
  gid?: number
  stop: 'SIGINT' | 'SIGTERM' | 'SIGKILL'
  /** How long `stop` may take before SIGKILL. */
  graceMs: number
  /** Resolves when the child answers. It is retried by the part itself until the signal aborts. */
  ready: (signal: AbortSignal) => Promise<void>
  startTimeoutMs?: number
  /** Start it again when it ends by itself. */
  restart: boolean
  /** An end before it was ever ready is an error, unless what it printed says that waiting helps. */
  retryStart?: (output: string) => boolean
}

export type Children = AsyncDisposable & {
  /** Resolves when the child is ready for the first time. */
  spawn(spec: ChildSpec): Promise<void>
}

/** Children get nothing of our environment: it holds keys, and variables that mean something to them as well. */
export const SYSTEM_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'

type Place = { logs: string; pids: string; lifeline: Lifeline }
type Supervised = { stop: AbortController; done: Promise<void> }

/**
 * Supervises the programs that live as long as this process does. Three nets keep them from outliving it: dispose stops
 * them in reverse order; a shell that reads from a pipe of ours stops them when we vanish; and the next start ends
 * whatever the pid files still find.
 */
export async function createChildren(options: { dataDir: string; log: Logger }): Promise<Children> {
  const dataDir = resolve(options.dataDir)
  mkdirSync(dataDir, { recursive: true, mode: 0o700 }) // it holds what people have said
  const place = { logs: join(dataDir, 'logs'), pids: join(dataDir, 'pids') }
  for (const dir of Object.values(place)) mkdirSync(dir, { recursive: true })
  const lock = lockDataDir(dataDir)
  await endLeftovers(place.pids)

  const lifeline = startLifeline()
  const running: Supervised[] = []
  let ending: Promise<void> | undefined

  async function end() {
    for (const child of running.toReversed()) {
      child.stop.abort()
      await child.done
    }
    lifeline.release()
    lock.close()
  }

  return {
    async spawn(spec) {
      if (ending) throw new Error(`${spec.name} was not started: the server is stopping.`)
      const stop = new AbortController()
      const ready = Promise.withResolvers<void>()
      const done = supervise(spec, { ...place, lifeline }, options.log, stop.signal, ready)
      running.push({ stop, done })
      await ready.promise
    },
    [Symbol.asyncDispose]: () => (ending ??= end()),
  }
}

/** The one owner of a child: whoever wants it stopped aborts the signal and waits for this to return. */
async function supervise(
  spec: ChildSpec,
  place: Place,
  log: Logger,
  stop: AbortSignal,
  ready: PromiseWithResolvers<void>,
) {
  const retryUntil = Date.now() + 60_000
  let wasReady = false
  for (let backoffMs = 100; !stop.aborted; backoffMs = Math.min(backoffMs * 2, 10_000)) {
    const startedAt = Date.now()
    let trouble: string
    try {
      await using child = await launch(spec, place)
      const notReady = await untilReady(child, spec, stop)
      if (notReady === undefined) {
        wasReady = true
        ready.resolve()
        await Promise.race([child.exited, aborted(stop)])
      }
      if (stop.aborted) break
      trouble = `${child.ended ?? notReady}\n${child.output()}`.trimEnd()
      if (child.ended && !wasReady && Date.now() < retryUntil && spec.retryStart?.(trouble)) {
        log.warn({ child: spec.name, trouble }, `${spec.name} cannot start yet: trying again`)
        await pause(backoffMs, stop)
        continue
      }
    } catch (error) {
      trouble = String(error)
    }

    if (!wasReady) {
      ready.reject(new Error(`${spec.name} did not start: ${trouble}`))
      return
    }
    log.warn({ child: spec.name, trouble }, `${spec.name} ended by itself`)
    if (!spec.restart) return
    if (Date.now() - startedAt > 60_000) backoffMs = 100
    await pause(backoffMs, stop)
  }
  ready.reject(new Error(`${spec.name} was stopped before it was ready.`))
}

/** Undefined once the child is ready, else why it is not. */
async function untilReady(child: Running, spec: ChildSpec, stop: AbortSignal) {
  const over = new AbortController()
  const signal = AbortSignal.any([over.signal, stop])
  const timeoutMs = startTimeoutMs(spec)
  try {
    return await Promise.race([
      spec.ready(signal).then(() => undefined, String),
      child.exited.then(() => 'it ended'),
      aborted(stop).then(() => 'it was stopped'),
      pause(timeoutMs, signal).then(() => `no answer within ${timeoutMs / 1000} s`),
    ])
  } finally {
    over.abort()
  }
}

const startTimeoutMs = (spec: ChildSpec) => spec.startTimeoutMs ?? 60_000

type Running = AsyncDisposable & {
  exited: Promise<void>
  /** How it ended, once it has. */
  readonly ended: string | undefined
  /** The last lines that it printed. */
  output(): string
}

async function launch(spec: ChildSpec, place: Place): Promise<Running> {
  const log = openLog(join(place.logs, `${spec.name}.log`))
  // Its own process group: Ctrl-C on a terminal is for us, and we stop the children in order.
  const child = spawn(spec.command, spec.args, {
    env: spec.env,
    uid: spec.uid,
    gid: spec.gid,
    detached: true,
    stdio: ['ignore', log.fd, log.fd],
  })
  const pid = child.pid
  if (pid !== undefined) place.lifeline.add(pid, spec)
  const exited = Promise.withResolvers<void>()
  let ended: string | undefined
  child.once('exit', (code, signal) => {
    ended = signal ? `killed by ${signal}` : `exit code ${code}`
    if (pid !== undefined) place.lifeline.remove(pid)
    exited.resolve()
  })
  try {
    await spawned(child)
  } catch (cause) {
    log.close()
    throw new Error(`${spec.name} could not be started from ${spec.command}.`, { cause })
  }
  const pidFile = join(place.pids, `${spec.name}.pid`)
  if (pid !== undefined) writePidFile(pidFile, pid, spec)

  return {
    exited: exited.promise,
    get ended() {
      return ended
    },
    output: () => log.tail(),
    async [Symbol.asyncDispose]() {
      if (ended === undefined && pid !== undefined) {
        kill(pid, spec.stop)
        await Promise.race([exited.promise, sleep(spec.graceMs, undefined, { ref: false })])
        kill(-pid, 'SIGKILL')
        await exited.promise
      }
      rmSync(pidFile, { force: true })
      log.close()
    },
  }
}

async function spawned(child: ChildProcess) {
  if (child.pid === undefined) throw (await once(child, 'error'))[0]
}

/** Chooses a free port, or makes sure that the given one is free. */
export async function claimPort(wanted: { port: number; part: string; variable: string }) {
  const server = createServer()
  try {
    server.listen({ port: wanted.port, host: '127.0.0.1', exclusive: true })
    await once(server, 'listening')
    const address = server.address()
    return typeof address === 'object' && address ? address.port : wanted.port
  } catch (cause) {
    throw new Error(
      `Port ${wanted.port}, which ${wanted.part} is to use, is taken by another program. ` +
        `Stop that program, or set ${wanted.variable} to another port (0 picks a free one).`,
      { cause },
    )
  } finally {
    await new Promise((closed) => server.close(closed))
  }
}

/** Ends a process that is not our child (any more) and waits for its end. */
export async function endProcess(
  pid: number,
  signal: NodeJS.Signals,
  graceMs: number,
): Promise<void> {
  const born = birthOf(pid)
  const alive = () => born !== undefined && birthOf(pid) === born
  if (!alive()) return
  kill(pid, signal)
  for (let end = Date.now() + graceMs; alive() && Date.now() < end;) await sleep(25)
  if (!alive()) return
  kill(-pid, 'SIGKILL')
  kill(pid, 'SIGKILL')
  for (let end = Date.now() + 5_000; alive() && Date.now() < end;) await sleep(25)
}

// Two servers on one data directory would end each other's children. The lock of an SQLite file is the operating
// system's, so that it goes with the process however that ends.
function lockDataDir(dataDir: string) {
  const database = new DatabaseSync(join(dataDir, 'lock.db'))
  const holder = join(dataDir, 'server.pid')
  try {
    database.exec('PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE')
  } catch (cause) {
    database.close()
    const pid = readOr(holder, 'unknown').trim()
    throw new Error(
      `Another server (process ${pid}) is using ${dataDir}. Stop it first, or set DATA_DIR to another directory.`,
      { cause },
    )
  }
  writeFileSync(holder, `${process.pid}\n`)
  return {
    close() {
      rmSync(holder, { force: true })
      database.close()
    },
  }
}

function writePidFile(path: string, pid: number, spec: ChildSpec) {
  writeFileSync(
    path,
    JSON.stringify({ pid, born: birthOf(pid), stop: spec.stop, graceMs: spec.graceMs }),
  )
}

async function endLeftovers(pids: string) {
  const files = readdirSync(pids).filter((name) => name.endsWith('.pid'))
  await Promise.all(
    files.map(async (name) => {
      const path = join(pids, name)
      const leftover = parsePidFile(path)
      if (leftover && birthOf(leftover.pid) === leftover.born) {
        await endProcess(leftover.pid, leftover.stop, leftover.graceMs)
      }
      rmSync(path, { force: true })
    }),
  )
}

const PidFile = z.object({
  pid: z.number(),
  born: z.string(),
  stop: z.enum(['SIGINT', 'SIGTERM', 'SIGKILL']),
  graceMs: z.number(),
})

function parsePidFile(path: string) {
  try {
    return PidFile.parse(JSON.parse(readFileSync(path, 'utf8')))
  } catch {
    return undefined // half written, so that its process was never waited for
  }
}

/** Tells a process from a later one with the same id; undefined for one that has ended. */
function birthOf(pid: number): string | undefined {
  if (process.platform === 'linux') {
    const stat = readOr(`/proc/${pid}/stat`, '')
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    if (stat === '' || fields[0] === 'Z') return undefined
    return `${readOr('/proc/sys/kernel/random/boot_id', '').trim()} ${fields[19]}`
  }
  try {
    return execFileSync('ps', ['-o', 'lstart=', '-p', String(pid)], { encoding: 'utf8' }).trim()
  } catch {
    return undefined
  }
}

type Lifeline = ReturnType<typeof startLifeline>

// Remembers what to stop, and does so at the end of its input, which comes when our process is gone.
const LIFELINE = `
trap '' INT TERM HUP
all=
while read -r verb pid sig grace; do
  case $verb in
    add) all="$all $pid:$sig:$grace" ;;
    del) rest=; for c in $all; do case $c in $pid:*) ;; *) rest="$rest $c" ;; esac; done; all=$rest ;;
  esac
done
for c in $all; do (
  pid=\${c%%:*}; c=\${c#*:}; sig=\${c%%:*}; grace=\${c#*:}
  kill -s "$sig" "$pid" || exit
  while [ "$grace" -gt 0 ] && kill -s 0 "$pid"; do sleep 1; grace=$((grace - 1)); done
  kill -s KILL -- "-$pid"
) & done 2>/dev/null
wait`

function startLifeline() {
  const shell = spawn('sh', ['-c', LIFELINE], {
    detached: true,
    stdio: ['pipe', 'ignore', 'ignore'],
  })
  // Without it (no sh, or someone killed it) the pid files still do their part.
  shell.on('error', () => {})
  shell.stdin.on('error', () => {})
  shell.unref()
  const tell = (line: string) => shell.stdin.writable && shell.stdin.write(`${line}\n`)
  return {
    add: (pid: number, spec: ChildSpec) =>
      tell(`add ${pid} ${spec.stop.slice(3)} ${Math.ceil(spec.graceMs / 1000)}`),
    remove: (pid: number) => tell(`del ${pid} - -`),
    release: () => shell.stdin.end(),
  }
}

const LOG_LIMIT_BYTES = 10 * 1024 * 1024
const TAIL_BYTES = 4096

// The child writes into the file by itself, so that it can still do so when we are gone.
function openLog(path: string) {
  if ((statSync(path, { throwIfNoEntry: false })?.size ?? 0) > LOG_LIMIT_BYTES) {
    renameSync(path, `${path}.1`)
  }
  const fd = openSync(path, 'a+')
  const from = fstatSync(fd).size
  return {
    fd,
    tail() {
      const { size } = fstatSync(fd)
      const start = Math.max(from, size - TAIL_BYTES)
      const buffer = Buffer.alloc(size - start)
      readSync(fd, buffer, 0, buffer.length, start)
      return buffer.toString('utf8').trimEnd().split('\n').slice(-15).join('\n')
    },
    close: () => closeSync(fd),
  }
}

function kill(pid: number, signal: NodeJS.Signals) {
  try {
    process.kill(pid, signal)
  } catch {
    // It has just ended, which is what we want.
  }
}

function readOr(path: string, fallback: string) {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return fallback
  }
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((done) => {
    if (signal.aborted) done()
    else signal.addEventListener('abort', () => done(), { once: true })
  })
}

const pause = (ms: number, signal: AbortSignal) =>
  sleep(ms, undefined, { signal }).catch(() => undefined)
