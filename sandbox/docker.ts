import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { existsSync } from 'node:fs'
import { chmod, chown, mkdir, mkdtemp, readdir, readFile, writeFile } from 'node:fs/promises'
import { availableParallelism } from 'node:os'
import { join, resolve } from 'node:path'
import { promisify } from 'node:util'

import { findSocket, openDaemon, type DockerDaemon } from './docker-daemon.ts'
import { bindsOf, type ContainerUser, ensureImage } from './docker-image.ts'
import { openOomCounter } from './docker-memory.ts'
import { diagnose, notLimiting, notRunning } from './docker-remedies.ts'
import { seccompProfile } from './docker-seccomp.ts'
import { SandboxStartError } from './errors.ts'
import { insideEnv, KERNEL_PATH, kernelDir, supervisorArgv } from './kernel-files.ts'
import { startKernel } from './kernel.ts'
import { type Door, DOOR_PATH, openDoor } from './network.ts'
import {
  DEFAULT_LIMITS,
  type ProbeResult,
  type ProviderDeps,
  type SandboxLimits,
  type SandboxOptions,
  type SandboxProvider,
} from './provider.ts'
import { removeTree } from './remove-tree.ts'
import type { Sandbox } from './sandbox.ts'

export type DockerDeps = ProviderDeps & {
  /** As in the environment variable DOCKER_HOST. Only unix sockets will do: what is bound is on this machine. */
  dockerHost?: string
}

const run = promisify(execFile)
const CLI_PLACES = ['/usr/local/bin', '/usr/bin', '/bin', '/opt/homebrew/bin', '/snap/bin']
/** Containers have the state directory of their process as a label. */
const LABEL = 'longrun.state'
const MIB = 1024 * 1024
/** Of a server that is root: nobody's, as with bubblewrap. */
const UNPRIVILEGED: ContainerUser = { uid: 65_530, gid: 65_530 }
/** Counted per user of the whole machine, while docker counts per container. */
const UNCOUNTED_PROCESSES = 1_048_576
/** Besides those of the code: the supervisor. */
const OWN_PROCESSES = 1

/** Isolation by a docker daemon of this machine: over the root file system of the host's Python, or an image. */
export function createDocker(deps: DockerDeps): SandboxProvider {
  const { root, stateDir } = deps
  const isRemote = deps.dockerHost !== undefined && !deps.dockerHost.startsWith('unix://')
  const cliPath = CLI_PLACES.map((dir) => join(dir, 'docker')).find((path) => existsSync(path))
  const configDir = join(stateDir, 'docker-config')
  const seccompFile = join(stateDir, 'docker-seccomp.json')
  const emptyFile = join(stateDir, 'docker-empty')
  const label = `${LABEL}=${resolve(stateDir)}`
  let prepared: Promise<Tools> | undefined

  function socketPath(): string | undefined {
    return deps.dockerHost?.replace(/^unix:\/\//, '') ?? findSocket(process.getuid?.())
  }

  /** What does not change from one sandbox to the next. */
  async function prepare(): Promise<Tools> {
    const socket = socketPath()
    if (socket === undefined || cliPath === undefined || isRemote)
      throw new SandboxStartError('There is no docker on this machine.')
    const daemon = openDaemon(socket)
    const info = await daemon.info()
    const user = userFor(info.SecurityOptions?.some((one) => one === 'name=rootless') ?? false)
    // Without a configuration of the user's, which would give his proxies to the container.
    await mkdir(configDir, { recursive: true, mode: 0o700 })
    await writeFile(seccompFile, JSON.stringify(seccompProfile(process.arch)))
    await writeFile(emptyFile, '')
    const image = root.image ?? (await ensureImage(daemon, root, user))
    return { cliPath, socket, daemon, user, image, version: info.ServerVersion }
  }

  async function create(options: SandboxOptions): Promise<Sandbox> {
    const tools = await (prepared ??= prepare().catch((error: unknown) => {
      prepared = undefined
      throw error
    }))
    const { daemon, user } = tools
    const id = randomBytes(8).toString('hex')
    const name = `longrun-${id}`
    await giveDataDir(options.dataDir, user)
    const { readOomKills, attach } = openOomCounter()
    const door = await openDoor({
      network: options.network,
      directory: join(stateDir, `${id}.docker-network`),
      root,
    })
    const sandbox = await startKernel({
      id,
      // Pipes inside and no terminal, which code could open: the one on the host is made raw here, and the end of the command
      // is the end of the supervisor's input.
      command: '/bin/sh',
      args: [
        '-c',
        'stty raw -echo && exec "$@"',
        'sh',
        tools.cliPath,
        ...runArgs({ name, tools, options, door }),
      ],
      env: { PATH: '/usr/bin:/bin' },
      dataDir: options.dataDir,
      ...(process.getuid?.() === 0 && { owner: user }),
      limits: { ...options.limits, processes: UNCOUNTED_PROCESSES },
      memoryBounded: true,
      log: deps.log,
      oomKills: readOomKills,
      // The command ends with its container; without an answer of the daemon, it is at least the command that goes.
      kill: async (pid) => {
        await daemon.remove(name).catch((error: unknown) => {
          deps.log.warn({ sandbox: id, error }, 'a container could not be removed')
          killProcess(pid)
        })
      },
      cleanUp: async () => {
        // One that never came up has had no end of its own.
        await daemon.remove(name).catch(() => {})
        await door?.[Symbol.asyncDispose]()
      },
    })
    await door?.attach(sandbox)
    const container = await daemon.inspect(name).catch(() => undefined)
    const isHere = container !== undefined && attach(container)
    return isHere ? { ...sandbox, hostPid: container.State.Pid } : sandbox
  }

  function runArgs({ name, tools, options, door }: RunArgs): string[] {
    const { limits, dataDir } = options
    const { user } = tools
    const [python = '', ...supervisorArgs] = supervisorArgv(root)
    return [
      ['--config', configDir, '--host', `unix://${tools.socket}`, 'run', '-i', '--rm'],
      ['--name', name, '--hostname', 'sandbox', '--user', `${user.uid}:${user.gid}`],
      ['--label', label, '--pull', 'never', '--log-driver', 'none'],
      ['--network', 'none', '--ipc', 'private', '--read-only', '--workdir', '/'],
      ['--cap-drop', 'ALL', '--security-opt', 'no-new-privileges'],
      ['--security-opt', `seccomp=${seccompFile}`, '--no-healthcheck'],
      limitArgs(limits),
      [...bindsOf(root), { from: kernelDir, to: KERNEL_PATH }].flatMap(({ from, to }) =>
        mount(from, to, 'readonly'),
      ),
      // Docker would put the host's here.
      mount(emptyFile, '/etc/resolv.conf', 'readonly'),
      mount(dataDir, '/mnt/data'),
      door ? mount(door.directory, DOOR_PATH, 'readonly') : [],
      tmpfs('/tmp', limits.tmpBytes, 'mode=1777,exec'),
      tmpfs('/home/sandbox', 64 * MIB, `mode=0700,uid=${user.uid},gid=${user.gid},exec`),
      tmpfs('/run', MIB, 'mode=0755'),
      // In place of the host's devices and groups.
      tmpfs('/sys', MIB, 'mode=0555,ro'),
      Object.entries({ ...insideEnv(root), ...door?.env }).flatMap(([key, value]) => [
        '--env',
        `${key}=${value}`,
      ]),
      // As process 1 the supervisor can be neither killed nor stopped from inside.
      ['--entrypoint', python, tools.image, ...supervisorArgs],
    ].flat()
  }

  async function probe(): Promise<ProbeResult> {
    const why = notRunning({
      cliPath,
      socketPath: socketPath(),
      remoteHost: isRemote ? deps.dockerHost : undefined,
    })
    if (why) return why
    await mkdir(stateDir, { recursive: true, mode: 0o700 })
    const dataDir = await mkdtemp(join(stateDir, 'docker-probe-'))
    try {
      const tools = await prepare()
      const unbounded = notLimiting(await tools.daemon.info())
      if (unbounded) return unbounded
      prepared = Promise.resolve(tools)
      await using sandbox = await create({ dataDir, limits: DEFAULT_LIMITS, network: 'none' })
      const { status } = await sandbox.runCode('open("/mnt/data/x", "w").write("1")', {
        timeoutMs: 30_000,
      })
      const written = await readFile(join(dataDir, 'x'), 'utf8').catch(() => undefined)
      if (status === 'ok' && written === '1') return { ok: true, version: tools.version }
      throw new SandboxStartError(
        status === 'ok'
          ? 'what it wrote to its files is not seen here, or file sharing is off.'
          : `writing a file ended as ${status}.`,
      )
    } catch (error) {
      return diagnose(error, root)
    } finally {
      await removeTree(dataDir)
    }
  }

  async function reap(): Promise<void> {
    const socket = socketPath()
    if (socket !== undefined && !isRemote && existsSync(socket))
      await removeLabelled(openDaemon(socket), label).catch((error: unknown) => {
        deps.log.warn({ error }, 'containers of earlier processes could not be looked for')
      })
    for (const name of await readdir(stateDir).catch(() => []))
      if (/^docker-probe-|\.docker-network$/.test(name)) await removeTree(join(stateDir, name))
  }

  return { name: 'docker', probe, create, reap }
}

type Tools = {
  cliPath: string
  socket: string
  daemon: DockerDaemon
  user: ContainerUser
  image: string
  version: string
}

type RunArgs = { name: string; tools: Tools; options: SandboxOptions; door: Door | undefined }

async function removeLabelled(daemon: DockerDaemon, label: string): Promise<void> {
  for (const id of await daemon.labelled(label)) await daemon.remove(id)
}

/** Root of a daemon that is a user's is that user; else the numbers are the same inside and outside. */
function userFor(isRootless: boolean): ContainerUser {
  const uid = process.getuid?.() ?? UNPRIVILEGED.uid
  if (isRootless) return { uid: 0, gid: 0 }
  return uid === 0 ? UNPRIVILEGED : { uid, gid: process.getgid?.() ?? uid }
}

/** What is in it already becomes the sandbox's own, too: links themselves and not their targets. */
async function giveDataDir(dataDir: string, { uid, gid }: ContainerUser): Promise<void> {
  await chmod(dataDir, 0o700)
  if (process.getuid?.() !== 0) return
  await chown(dataDir, uid, gid)
  await run('chown', ['-hRP', `${uid}:${gid}`, '--', dataDir], { env: { PATH: '/usr/bin:/bin' } })
}

function limitArgs({ memoryBytes, processes, cpus, tmpBytes }: SandboxLimits): string[] {
  return [
    ['--memory', String(memoryBytes), '--memory-swap', String(memoryBytes)],
    ['--pids-limit', String(processes + OWN_PROCESSES)],
    // The daemon refuses more than there are.
    ['--cpus', Math.min(cpus, availableParallelism()).toFixed(2)],
    ['--shm-size', String(tmpBytes)],
  ].flat()
}

function mount(from: string, to: string, ...options: string[]): string[] {
  return ['--mount', ['type=bind', `source=${from}`, `target=${to}`, ...options].map(csv).join(',')]
}

function csv(field: string): string {
  return /[",]/.test(field) ? `"${field.replaceAll('"', '""')}"` : field
}

function tmpfs(path: string, sizeBytes: number, options: string): string[] {
  return ['--tmpfs', `${path}:size=${sizeBytes},${options}`]
}

function killProcess(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch {
    // It has ended.
  }
}
