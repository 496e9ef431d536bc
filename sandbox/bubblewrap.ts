import { execFile } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { existsSync, statSync } from 'node:fs'
import { chmod, chown, mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'

import { diagnose, notRunning } from './bubblewrap-remedies.ts'
import { type Cgroup, openCgroups } from './cgroup.ts'
import { SandboxStartError } from './errors.ts'
import { insideEnv, KERNEL_PATH, kernelDir, supervisorArgv } from './kernel-files.ts'
import { startKernel } from './kernel.ts'
import { endLeftover, writeLeftover } from './leftovers.ts'
import { type Door, DOOR_PATH, openDoor } from './network.ts'
import {
  DEFAULT_LIMITS,
  type ProbeResult,
  type ProviderDeps,
  type SandboxOptions,
  type SandboxProvider,
} from './provider.ts'
import { removeTree } from './remove-tree.ts'
import type { SandboxRoot } from './root.ts'
import type { Sandbox } from './sandbox.ts'
import { seccompFilter } from './seccomp.ts'

export type BubblewrapDeps = ProviderDeps & {
  /** Where bubblewrap is; without it the usual places are looked at. */
  bwrapPath?: string
}

const run = promisify(execFile)
const SYSTEM_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
/** Nobody's: no account has it, and a sandbox that is started by root has no right of root's. */
const UNPRIVILEGED = { uid: 65_530, gid: 65_530 }
const MIB = 1024 * 1024

/** Isolation by namespaces, without a daemon. As root it drops to a user without rights before anything else. */
export function createBubblewrap(deps: BubblewrapDeps): SandboxProvider {
  const { root, stateDir } = deps
  const isRoot = process.getuid?.() === 0
  const cgroups = openCgroups({ name: `longrun-${hashOf(stateDir)}` })
  const filterFile = join(stateDir, 'seccomp.bpf')
  const processesDir = join(stateDir, 'processes')
  let prepared: Promise<Tools> | undefined

  /** What does not change from one sandbox to the next. */
  async function prepare(): Promise<Tools> {
    await mkdir(processesDir, { recursive: true, mode: 0o700 })
    await writeFile(filterFile, seccompFilter(process.arch))
    const bwrapPath = findBwrap(deps.bwrapPath)
    if (bwrapPath === undefined) throw new SandboxStartError('bubblewrap was not found.')
    const { stdout } = await run(bwrapPath, ['--version'], { env: { PATH: SYSTEM_PATH } })
    return { bwrapPath, version: stdout.trim(), disablesUserns: await disablesUserns(bwrapPath) }
  }

  /** What has failed is tried again: somebody may have installed it. */
  async function prepareOnce(): Promise<Tools> {
    prepared ??= prepare()
    try {
      return await prepared
    } catch (error) {
      prepared = undefined
      throw error
    }
  }

  async function create(options: SandboxOptions): Promise<Sandbox> {
    if (root.image !== undefined)
      throw new SandboxStartError('A root file system that is an image is for docker only.')
    const tools = await prepareOnce()
    const id = randomBytes(8).toString('hex')
    await giveDataDir(options.dataDir, isRoot)
    const argsFile = join(stateDir, `${id}.args`)
    const door = await openDoor({
      network: options.network,
      directory: join(stateDir, `${id}.network`),
      root,
    })
    const shown = [tools.bwrapPath, kernelDir, options.dataDir, ...sources()]
    const stage = isRoot ? stageOf(door ? [...shown, door.directory] : shown) : []
    const seen = (path: string): string => stage.find(({ from }) => from === path)?.to ?? path
    const args = bwrapArgs({ root, options, tools, door, seen })
    await writeFile(argsFile, args.join('\0') + '\0', { mode: 0o600 })
    const cgroup = cgroups.create(id, options.limits)
    const processFile = join(processesDir, id)
    const command = [
      'env',
      '-i',
      seen(tools.bwrapPath),
      '--args',
      '8',
      '--',
      ...supervisorArgv(root),
    ]
    try {
      const sandbox = await startKernel({
        id,
        command: 'sh',
        args: launcher({ argsFile, filterFile, cgroup, stage, isRoot, command }),
        env: { PATH: SYSTEM_PATH },
        dataDir: options.dataDir,
        ...(isRoot && { owner: UNPRIVILEGED }),
        limits: options.limits,
        memoryBounded: cgroup !== undefined,
        log: deps.log,
        ...(cgroup && { oomKills: cgroup.oomKills, confine: cgroup.confine }),
        kill: async (pid) => {
          killProcess(pid)
          cgroup?.kill()
        },
        cleanUp: async () => {
          await cgroup?.remove()
          await door?.[Symbol.asyncDispose]()
          await rm(processFile, { force: true })
        },
      })
      await door?.attach(sandbox)
      await writeLeftover(processFile, sandbox.hostPid, cgroup?.groups ?? [])
      return sandbox
    } finally {
      await rm(argsFile, { force: true })
    }
  }

  function sources(): string[] {
    return root.binds.map(({ from }) => from)
  }

  async function probe(): Promise<ProbeResult> {
    const why = notRunning({ isRoot, bwrapPath: findBwrap(deps.bwrapPath), root })
    if (why) return { ok: false, ...why }
    await mkdir(stateDir, { recursive: true, mode: 0o700 })
    const dataDir = await mkdtemp(join(stateDir, 'probe-'))
    try {
      await using sandbox = await create({ dataDir, limits: DEFAULT_LIMITS, network: 'none' })
      const { status, outputs } = await sandbox.runCode('print(1)', { timeoutMs: 30_000 })
      const [first] = outputs
      if (status === 'ok' && first?.type === 'logs' && first.logs === '1\n')
        return { ok: true, version: (await prepareOnce()).version }
      return { ok: false, ...diagnose(`print(1) ended as ${status}`) }
    } catch (error) {
      return { ok: false, ...diagnose(error instanceof Error ? error.message : String(error)) }
    } finally {
      await removeTree(dataDir)
    }
  }

  return {
    name: 'bubblewrap',
    probe,
    create,
    async reap() {
      for (const name of await readdir(processesDir).catch(() => [])) {
        await cgroups.remove(await endLeftover(join(processesDir, name)))
      }
      await cgroups.reap()
      for (const name of await readdir(stateDir).catch(() => [])) {
        if (/\.(args|network)$|^probe-/.test(name)) await removeTree(join(stateDir, name))
      }
    },
  }
}

type Tools = { bwrapPath: string; version: string; disablesUserns: boolean }

function findBwrap(given: string | undefined): string | undefined {
  const places = SYSTEM_PATH.split(':').map((dir) => join(dir, 'bwrap'))
  return (given === undefined ? places : [given]).find((path) => existsSync(path))
}

/** The sandbox writes there as its own user: what is in it already becomes its own, links themselves and not their targets. */
async function giveDataDir(dataDir: string, isRoot: boolean): Promise<void> {
  await chmod(dataDir, 0o700)
  if (!isRoot) return
  await chown(dataDir, UNPRIVILEGED.uid, UNPRIVILEGED.gid)
  const owner = `${UNPRIVILEGED.uid}:${UNPRIVILEGED.gid}`
  await run('chown', ['-hRP', owner, '--', dataDir], { env: { PATH: SYSTEM_PATH } })
}

/** Versions before 0.8 cannot, nor can any where /proc/sys is read-only; the filter refuses the same calls. */
async function disablesUserns(bwrapPath: string): Promise<boolean> {
  const trial = ['--unshare-user', '--disable-userns', '--ro-bind', '/', '/', '--', 'true']
  return await run(bwrapPath, trial, { env: { PATH: SYSTEM_PATH } }).then(
    () => true,
    () => false,
  )
}

type Staged = { from: string; to: string }

/** The place for what only root can get at. Every Linux has it, nothing of ours is in it, and bubblewrap needs nothing of it. */
const STAGE = '/sys'

/** A user without rights cannot go through a private directory such as /root; in a mount namespace of its own it need not. */
function stageOf(paths: string[]): Staged[] {
  return [...new Set(paths)]
    .filter((path) => !isOpenToAll(path))
    .map((from, index) => ({ from, to: `${STAGE}/${index}` }))
}

function isOpenToAll(path: string): boolean {
  const wanted = statSync(path).isDirectory() ? 0o005 : 0o004
  if ((statSync(path).mode & wanted) !== wanted) return false
  for (let dir = dirname(path); dir !== dirname(dir); dir = dirname(dir)) {
    if ((statSync(dir).mode & 0o001) === 0) return false
  }
  return true
}

// The arguments are in files, since command lines can be read from inside, and descriptors 8 and 9, since a terminal's
// command inherits none. Joining the groups before anything else leaves no moment outside of them.
const JOIN = `set -e
args=$1 filter=$2; shift 2
while [ "$1" != -- ]; do echo $$ > "$1"; shift; done; shift
exec "$@" 8< "$args" 9< "$filter"`

const STAGING = `set -e
umask 022
mount -t tmpfs -o mode=755,size=1m tmpfs ${STAGE}
while [ "$1" != -- ]; do
  if [ -d "$1" ]; then mkdir "$2"; else : > "$2"; fi
  mount --rbind "$1" "$2"; shift 2
done; shift
exec "$@"`

type Launch = {
  argsFile: string
  filterFile: string
  cgroup: Cgroup | undefined
  stage: Staged[]
  isRoot: boolean
  command: string[]
}

function launcher({ argsFile, filterFile, cgroup, stage, isRoot, command }: Launch): string[] {
  const { uid, gid } = UNPRIVILEGED
  const drop = ['setpriv', `--reuid=${uid}`, `--regid=${gid}`, '--clear-groups', '--no-new-privs']
  const pairs = stage.flatMap(({ from, to }) => [from, to])
  const staging = ['unshare', '--mount', 'sh', '-c', STAGING, 'sh', ...pairs, '--']
  return [
    '-c',
    JOIN,
    'sh',
    argsFile,
    filterFile,
    ...(cgroup?.joinFiles ?? []),
    '--',
    ...(stage.length > 0 ? staging : []),
    ...(isRoot ? drop : []),
    ...command,
  ]
}

type BwrapArgs = {
  root: SandboxRoot
  options: SandboxOptions
  tools: Tools
  door: Door | undefined
  seen: (path: string) => string
}

function bwrapArgs({ root, options, tools, door, seen }: BwrapArgs): string[] {
  const { tmpBytes } = options.limits
  const tmpfs = (path: string, sizeBytes: number, mode: string): string[] => [
    '--perms',
    mode,
    '--size',
    String(sizeBytes),
    '--tmpfs',
    path,
  ]
  return [
    // Not --unshare-all: it takes what it can get of the user namespace.
    ['--unshare-user', '--unshare-pid', '--unshare-net', '--unshare-ipc', '--unshare-uts'],
    ['--unshare-cgroup-try', ...(tools.disablesUserns ? ['--disable-userns'] : [])],
    // As process 1 the supervisor can be neither killed nor stopped from inside; and bubblewrap's own process 1 would hold
    // the terminal where code can open it.
    ['--as-pid-1'],
    ['--die-with-parent', '--new-session', '--clearenv', '--cap-drop', 'ALL'],
    ['--uid', '1000', '--gid', '1000', '--hostname', 'sandbox', '--seccomp', '9'],
    ...root.binds.flatMap(({ from, to }) => ['--ro-bind', seen(from), to]),
    ...root.symlinks.flatMap(({ target, path }) => ['--symlink', target, path]),
    ['--ro-bind', seen(kernelDir), KERNEL_PATH],
    ['--proc', '/proc'],
    // Not --dev: its console is the terminal.
    ...tmpfs('/dev', MIB, '0755'),
    ...DEVICES.flatMap((path) => ['--dev-bind', path, path]),
    ...DEVICE_LINKS.flatMap(([target, path]) => ['--symlink', target, path]),
    ...tmpfs('/dev/shm', tmpBytes, '1777'),
    ['--remount-ro', '/dev'],
    ...tmpfs('/tmp', tmpBytes, '1777'),
    ...tmpfs('/home/sandbox', 64 * MIB, '0700'),
    ...tmpfs('/run', MIB, '0755'),
    ...(door ? ['--ro-bind', seen(door.directory), DOOR_PATH] : []),
    ['--symlink', '/tmp', '/var/tmp'],
    ['--bind', seen(options.dataDir), '/mnt/data'],
    ['--remount-ro', '/', '--chdir', '/'],
    ...Object.entries({ ...insideEnv(root), ...door?.env }).flatMap(([name, value]) => [
      '--setenv',
      name,
      value,
    ]),
  ].flat()
}

const DEVICES = ['/dev/null', '/dev/zero', '/dev/full', '/dev/random', '/dev/urandom']
const DEVICE_LINKS = [
  ['/proc/self/fd', '/dev/fd'],
  ['/proc/self/fd/0', '/dev/stdin'],
  ['/proc/self/fd/1', '/dev/stdout'],
  ['/proc/self/fd/2', '/dev/stderr'],
] as const

function killProcess(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch {
    // It has ended.
  }
}

function hashOf(text: string): string {
  return createHash('sha256').update(text).digest('hex').slice(0, 8)
}
