import { execFile } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { existsSync } from 'node:fs'
import { chmod, chown, mkdir, mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'

import { openCgroups } from './cgroup.ts'
import { SandboxStartError } from './errors.ts'
import { startKernel } from './kernel.ts'
import { endLeftover, writeLeftover } from './leftovers.ts'
import { openDoor } from './network.ts'
import {
  DEFAULT_LIMITS,
  type ProbeFailure,
  type ProbeResult,
  type ProviderDeps,
  type SandboxLimits,
  type SandboxOptions,
  type SandboxProvider,
} from './provider.ts'
import { removeTree } from './remove-tree.ts'
import type { SandboxRoot } from './root.ts'
import { writeBundle } from './runsc-bundle.ts'
import type { Sandbox } from './sandbox.ts'

const run = promisify(execFile)
const SYSTEM_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
/** Of a server that is root: nobody's, as with bubblewrap. */
const UNPRIVILEGED = { uid: 65_530, gid: 65_530 }
/** What gVisor itself needs beside the code: for its memory, and for processes that stand for the code's. */
const OWN_MEMORY_BYTES = 256 * 1024 * 1024
const OWN_PROCESSES = 1024
const PROCESSES_EACH = 8

// Joining the groups before anything else leaves no moment outside of them.
const JOIN = `set -e
while [ "$1" != -- ]; do echo $$ > "$1"; shift; done; shift
exec "$@"`

/** Isolation by gVisor, a kernel in user space: no system call of strangers' code reaches the one of the host. */
export function createRunsc(deps: ProviderDeps): SandboxProvider {
  const { root, stateDir } = deps
  const isRoot = process.getuid?.() === 0
  const runscPath = SYSTEM_PATH.split(':')
    .map((dir) => join(dir, 'runsc'))
    .find((path) => existsSync(path))
  const processesDir = join(stateDir, 'runsc-processes')
  const stateHash = createHash('sha256').update(stateDir).digest('hex').slice(0, 8)
  const cgroups = openCgroups({ name: `longrun-runsc-${stateHash}` })

  async function create(options: SandboxOptions): Promise<Sandbox> {
    if (root.image !== undefined)
      throw new SandboxStartError('A root file system that is an image is for docker only.')
    if (runscPath === undefined) throw new SandboxStartError('runsc was not found.')
    const id = randomBytes(8).toString('hex')
    const directory = join(stateDir, `${id}.runsc`)
    const user = isRoot ? UNPRIVILEGED : { uid: 0, gid: 0 }
    await giveDataDir(options.dataDir, isRoot)
    await mkdir(processesDir, { recursive: true, mode: 0o700 })
    const door = await openDoor({
      network: options.network,
      directory: join(directory, 'network'),
      root,
    })
    const cgroup = cgroups.create(id, hostLimits(options.limits))
    if (!cgroup) throw new SandboxStartError('its memory cannot be bounded here.')
    await writeBundle({ directory, root, options, user, door })
    const processFile = join(processesDir, id)
    const sandbox = await startKernel({
      id,
      command: '/bin/sh',
      args: [
        // Under the bounds with all that it is: gVisor's processes are the code's.
        ['-c', JOIN, 'sh', ...cgroup.groups.map((dir) => join(dir, 'code', 'cgroup.procs')), '--'],
        [runscPath, '--root', join(directory, 'state')],
        ['--platform=ptrace', '--network=none', '--ignore-cgroups', '--oci-seccomp'],
        door ? ['--host-uds=open'] : [],
        isRoot ? [] : ['--rootless'],
        ['run', '--bundle', directory, id],
      ].flat(),
      env: { PATH: SYSTEM_PATH },
      dataDir: options.dataDir,
      ...(isRoot && { owner: user }),
      limits: options.limits,
      memoryBounded: true,
      log: deps.log,
      kill: async (pid) => {
        killProcess(pid)
        cgroup.kill()
      },
      cleanUp: async () => {
        await cgroup.remove()
        await door?.[Symbol.asyncDispose]()
        await removeTree(directory)
        await rm(processFile, { force: true })
      },
    })
    await door?.attach(sandbox)
    await writeLeftover(processFile, sandbox.hostPid, cgroup.groups)
    return sandbox
  }

  async function probe(): Promise<ProbeResult> {
    const why = notRunning(root, runscPath)
    if (why) return why
    await mkdir(stateDir, { recursive: true, mode: 0o700 })
    const dataDir = await mkdtemp(join(stateDir, 'runsc-probe-'))
    try {
      const { stdout } = await run(runscPath ?? 'runsc', ['--version'], {
        env: { PATH: SYSTEM_PATH },
      })
      await using sandbox = await create({ dataDir, limits: DEFAULT_LIMITS, network: 'none' })
      const { status } = await sandbox.runCode('open("/mnt/data/x", "w").write("1")', {
        timeoutMs: 30_000,
      })
      const written = await readFile(join(dataDir, 'x'), 'utf8').catch(() => undefined)
      if (status === 'ok' && written === '1')
        return { ok: true, version: stdout.split('\n', 1).join('') }
      return diagnose(`writing a file ended as ${status}.`)
    } catch (error) {
      return diagnose(error instanceof Error ? error.message : String(error))
    } finally {
      await removeTree(dataDir)
    }
  }

  return {
    name: 'runsc',
    probe,
    create,
    async reap() {
      for (const name of await readdir(processesDir).catch(() => []))
        await cgroups.remove(await endLeftover(join(processesDir, name)))
      await cgroups.reap()
      for (const name of await readdir(stateDir).catch(() => []))
        if (/\.runsc$|^runsc-probe-/.test(name)) await removeTree(join(stateDir, name))
    },
  }
}

function notRunning(root: SandboxRoot, runscPath: string | undefined): ProbeFailure | undefined {
  if (root.image !== undefined)
    return {
      ok: false,
      why: 'SANDBOX_IMAGE is for docker only.',
      remedy: 'For gVisor, set SANDBOX_ROOT, or neither for the default.',
    }
  if (runscPath === undefined)
    return {
      ok: false,
      why: 'runsc was not found.',
      remedy:
        'Install gVisor (Debian: `apt-get install runsc`), or choose another with SANDBOX_PROVIDER.',
    }
  return undefined
}

async function giveDataDir(dataDir: string, isRoot: boolean): Promise<void> {
  await chmod(dataDir, 0o700)
  if (!isRoot) return
  const { uid, gid } = UNPRIVILEGED
  await chown(dataDir, uid, gid)
  await run('chown', ['-hRP', `${uid}:${gid}`, '--', dataDir], { env: { PATH: SYSTEM_PATH } })
}

/** What the host bounds: all of gVisor. Beyond it the whole sandbox goes; the code has met its own limit before. */
function hostLimits(limits: SandboxLimits): SandboxLimits {
  return {
    ...limits,
    memoryBytes: limits.memoryBytes + OWN_MEMORY_BYTES,
    processes: limits.processes * PROCESSES_EACH + OWN_PROCESSES,
  }
}

function killProcess(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch {
    // It has ended.
  }
}

function diagnose(complaint: string): ProbeFailure {
  return {
    ok: false,
    why: `gVisor could not start a sandbox: ${complaint}`,
    remedy: /cannot be bounded/.test(complaint)
      ? 'Let this process make control groups: run it as root, or in a unit of systemd with `Delegate=yes`.'
      : 'Use bubblewrap or docker (SANDBOX_PROVIDER).',
  }
}
