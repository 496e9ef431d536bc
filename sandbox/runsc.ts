import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { existsSync } from 'node:fs'
import { chmod, chown, mkdir, mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'

import { SandboxStartError } from './errors.ts'
import { startKernel } from './kernel.ts'
import { endLeftover, writeLeftover } from './leftovers.ts'
import { openDoor } from './network.ts'
import {
  DEFAULT_LIMITS,
  type ProbeFailure,
  type ProbeResult,
  type ProviderDeps,
  type SandboxOptions,
  type SandboxProvider,
} from './provider.ts'
import { writeBundle } from './runsc-bundle.ts'
import type { Sandbox } from './sandbox.ts'

const run = promisify(execFile)
const SYSTEM_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
/** Of a server that is root: nobody's, as with bubblewrap. */
const UNPRIVILEGED = { uid: 65_530, gid: 65_530 }

/** Isolation by gVisor, a kernel in user space: no system call of strangers' code reaches the one of the host. */
export function createRunsc(deps: ProviderDeps): SandboxProvider {
  const { root, stateDir } = deps
  const isRoot = process.getuid?.() === 0
  const runscPath = SYSTEM_PATH.split(':')
    .map((dir) => join(dir, 'runsc'))
    .find((path) => existsSync(path))
  const processesDir = join(stateDir, 'runsc-processes')

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
    await writeBundle({ directory, root, options, user, door })
    const processFile = join(processesDir, id)
    const sandbox = await startKernel({
      id,
      command: runscPath,
      args: [
        ...['--root', join(directory, 'state'), '--platform=ptrace', '--network=none'],
        ...['--ignore-cgroups', '--host-uds=open', '--file-access-mounts=shared'],
        ...(isRoot ? [] : ['--rootless']),
        ...['run', '--bundle', directory, id],
      ],
      env: { PATH: SYSTEM_PATH },
      dataDir: options.dataDir,
      ...(isRoot && { owner: user }),
      limits: options.limits,
      memoryBounded: false,
      log: deps.log,
      cleanUp: async () => {
        await door?.[Symbol.asyncDispose]()
        await rm(directory, { recursive: true, force: true })
        await rm(processFile, { force: true })
      },
    })
    await door?.attach(sandbox)
    await writeLeftover(processFile, sandbox.hostPid, [])
    return sandbox
  }

  async function probe(): Promise<ProbeResult> {
    const why = notRunning()
    if (why || runscPath === undefined) return why!
    await mkdir(stateDir, { recursive: true, mode: 0o700 })
    const dataDir = await mkdtemp(join(stateDir, 'runsc-probe-'))
    try {
      const { stdout } = await run(runscPath, ['--version'], { env: { PATH: SYSTEM_PATH } })
      await using sandbox = await create({ dataDir, limits: DEFAULT_LIMITS, network: 'none' })
      const { status, outputs, note } = await sandbox.runCode('open("/mnt/data/x", "w").write("1")', { timeoutMs: 30_000 })
      const written = await readFile(join(dataDir, 'x'), 'utf8').catch(() => undefined)
      if (status === 'ok' && written === '1')
        return { ok: true, version: stdout.split('\n', 1).join('') }
      return diagnose(`writing a file ended as ${status}. ${note} ${JSON.stringify(outputs)}`)
    } catch (error) {
      return diagnose(error instanceof Error ? error.message : String(error))
    } finally {
      await rm(dataDir, { recursive: true, force: true })
    }
  }

  function notRunning(): ProbeFailure | undefined {
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
        remedy: 'Install gVisor (Debian: `apt-get install runsc`), or choose another with SANDBOX_PROVIDER.',
      }
    return undefined
  }

  return {
    name: 'runsc',
    probe,
    create,
    async reap() {
      for (const name of await readdir(processesDir).catch(() => []))
        await endLeftover(join(processesDir, name))
      for (const name of await readdir(stateDir).catch(() => []))
        if (/\.runsc$|^runsc-probe-/.test(name))
          await rm(join(stateDir, name), { recursive: true, force: true })
    },
  }
}

async function giveDataDir(dataDir: string, isRoot: boolean): Promise<void> {
  await chmod(dataDir, 0o700)
  if (!isRoot) return
  const { uid, gid } = UNPRIVILEGED
  await chown(dataDir, uid, gid)
  await run('chown', ['-hRP', `${uid}:${gid}`, '--', dataDir], { env: { PATH: SYSTEM_PATH } })
}

function diagnose(complaint: string): ProbeFailure {
  return {
    ok: false,
    why: `gVisor could not start a sandbox: ${complaint}`,
    remedy: 'Use bubblewrap or docker (SANDBOX_PROVIDER).',
  }
}
