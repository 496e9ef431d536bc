import { chmod, mkdir, symlink, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { statSync } from 'node:fs'

import { seccompProfile, type SeccompProfile } from './docker-seccomp.ts'
import { insideEnv, KERNEL_PATH, kernelDir, supervisorArgv } from './kernel-files.ts'
import { type Door, DOOR_PATH } from './network.ts'
import type { SandboxOptions } from './provider.ts'
import type { SandboxRoot } from './root.ts'

export interface Bundle {
  /** Is made: it gets `config.json` and `rootfs`. */
  directory: string
  root: SandboxRoot
  options: SandboxOptions
  user: { uid: number; gid: number }
  door: Door | undefined
}

const MIB = 1024 * 1024
const PROGRAMS_BYTES = 256 * MIB

/** What an OCI runtime is told: the places of the root file system as empty directories, and what is mounted there. */
export async function writeBundle(bundle: Bundle): Promise<void> {
  const { directory, root } = bundle
  const rootfs = join(directory, 'rootfs')
  await mkdir(rootfs, { recursive: true, mode: 0o755 })
  const mounts = mountsOf(bundle)
  for (const { target, path } of root.symlinks) await makeLink(rootfs, path, target, mounts)
  await makeLink(rootfs, '/var/tmp', '/tmp', mounts)
  for (const { destination, source, type } of mounts) {
    if (isBeneath(destination, mounts)) continue
    const place = join(rootfs, destination)
    if (type === 'bind' && statSync(source).isFile()) {
      await mkdir(dirname(place), { recursive: true })
      await writeFile(place, '')
    } else await mkdir(place, { recursive: true })
  }
  // It may hold nothing of ours, but is gone through by another user.
  await chmod(rootfs, 0o755)
  await writeFile(join(directory, 'config.json'), JSON.stringify(configOf(bundle, mounts)))
}

type Mount = { destination: string; type: string; source: string; options: string[] }

function mountsOf({ root, options, user, door }: Bundle): Mount[] {
  const bind = (source: string, destination: string, access: 'ro' | 'rw'): Mount => ({
    destination,
    type: 'bind',
    source,
    options: ['rbind', access, 'nosuid', 'nodev'],
  })
  const tmpfs = (destination: string, sizeBytes: number, ...more: string[]): Mount => ({
    destination,
    type: 'tmpfs',
    source: 'tmpfs',
    options: ['nosuid', 'nodev', `size=${sizeBytes}`, ...more],
  })
  const { tmpBytes } = options.limits
  return [
    { destination: '/proc', type: 'proc', source: 'proc', options: [] },
    ...root.binds.map(({ from, to }) => bind(from, to, 'ro')),
    bind(kernelDir, KERNEL_PATH, 'ro'),
    tmpfs('/dev/shm', tmpBytes, 'mode=1777'),
    tmpfs('/tmp', tmpBytes, 'mode=1777'),
    tmpfs('/home/sandbox', 64 * MIB, 'mode=0700', `uid=${user.uid}`, `gid=${user.gid}`),
    tmpfs('/run', MIB, 'mode=0755'),
    bind(options.dataDir, '/mnt/data', 'rw'),
    ...(door ? [bind(door.directory, DOOR_PATH, 'ro')] : []),
  ]
}

function isBeneath(path: string, mounts: Mount[]): boolean {
  return mounts.some(({ destination }) => path.startsWith(`${destination}/`))
}

async function makeLink(
  rootfs: string,
  path: string,
  target: string,
  mounts: Mount[],
): Promise<void> {
  if (isBeneath(path, mounts)) return
  await mkdir(dirname(join(rootfs, path)), { recursive: true })
  await symlink(target, join(rootfs, path))
}

function configOf({ root, user, door, options }: Bundle, mounts: Mount[]) {
  const env = { ...insideEnv(root), ...door?.env }
  // In place of RLIMIT_DATA, which gVisor does not hold: with room for the programs and libraries themselves.
  const addressBytes = Math.round(options.limits.memoryBytes * 0.9) + PROGRAMS_BYTES
  return {
    ociVersion: '1.0.2',
    hostname: 'sandbox',
    root: { path: 'rootfs', readonly: true },
    process: {
      terminal: true,
      user,
      cwd: '/',
      args: supervisorArgv(root),
      env: Object.entries(env).map(([name, value]) => `${name}=${value}`),
      capabilities: { bounding: [], effective: [], inheritable: [], permitted: [], ambient: [] },
      noNewPrivileges: true,
      rlimits: [{ type: 'RLIMIT_AS', hard: addressBytes, soft: addressBytes }],
    },
    mounts,
    linux: {
      namespaces: ['pid', 'network', 'ipc', 'uts', 'mount'].map((type) => ({ type })),
      seccomp: profile(),
    },
  }
}

/** Without clone3: gVisor says EPERM to all that is refused, and programs that hear that of it take no other call. */
function profile(): SeccompProfile {
  const whole = seccompProfile(process.arch)
  return { ...whole, syscalls: whole.syscalls.filter(({ names }) => !names.includes('clone3')) }
}
