import { existsSync, realpathSync } from 'node:fs'
import { delimiter, join } from 'node:path'

import type { HostPython } from '../sandbox/rootfs/host.ts'
import { otherRoots, SandboxRefusal } from './sandbox-refusal.ts'
import { outputOf } from './slow-command.ts'

/** The first Python of this machine that the packages are made for. Throws a SandboxRefusal. */
export async function findHostPython(): Promise<HostPython> {
  const unfit: string[] = []
  for (const name of candidates()) {
    const found = await describe(name)
    if (!found) continue
    const reason = whyUnfit(found)
    if (reason) {
      unfit.push(`${name} is ${reason}`)
      continue
    }
    return {
      executable: realpathSync(found.executable),
      prefix: realpathSync(found.prefix),
      version: found.release.split('.').slice(0, 2).join('.'),
      release: found.release,
      certificates: found.certificates ?? undefined,
    }
  }
  throw new SandboxRefusal(
    `The code interpreter needs CPython 3.${oldest} to 3.${newest} on a Linux with glibc 2.28 or later, and found ` +
      `${unfit.length > 0 ? `only others: ${unfit.join('; ')}` : 'no python3'}.`,
    `Install one (Debian, Ubuntu: apt install python3; Fedora: dnf install python3), ${otherRoots}.`,
  )
}

const oldest = 10
const newest = 14
const minors = Array.from({ length: newest - oldest + 1 }, (_, index) => newest - index)

/** In each place first the one that people mean. */
function candidates(): string[] {
  const names = ['python3', ...minors.map((minor) => `python3.${minor}`)]
  const dirs = new Set((process.env['PATH'] ?? '').split(delimiter).filter(Boolean))
  return [...dirs]
    .flatMap((dir) => names.map((name) => join(dir, name)))
    .filter((file) => existsSync(file))
}

interface Description {
  implementation: string
  release: string
  libc: [string, string]
  machine: string
  bits: number
  freeThreaded: boolean
  missing: string[]
  executable: string
  prefix: string
  certificates: string | null
}

// A virtual environment's or a version manager's python3 tells of the real one.
const script = `
import importlib, json, os, platform, struct, sys, sysconfig
def is_missing(name):
    try:
        importlib.import_module(name)
    except ImportError:
        return True
missing = [name for name in ('bz2', 'ctypes', 'lzma', 'sqlite3', 'ssl', 'zlib') if is_missing(name)]
stores = ['/etc/ssl/certs/ca-certificates.crt', '/etc/pki/tls/certs/ca-bundle.crt', '/etc/ssl/ca-bundle.pem']
print(json.dumps({
    'implementation': sys.implementation.name,
    'release': '%d.%d.%d' % sys.version_info[:3],
    'libc': platform.libc_ver(),
    'machine': platform.machine(),
    'bits': struct.calcsize('P') * 8,
    'freeThreaded': bool(sysconfig.get_config_var('Py_GIL_DISABLED')),
    'missing': missing,
    'executable': getattr(sys, '_base_executable', None) or sys.executable,
    'prefix': sys.base_prefix,
    'certificates': next((store for store in stores if os.path.isfile(store)), None),
}))`

async function describe(name: string): Promise<Description | undefined> {
  try {
    return JSON.parse(await outputOf(name, ['-I', '-c', script])) as Description
  } catch {
    // A Python 2, or a link to one that is not installed.
    return undefined
  }
}

function whyUnfit(found: Description): string | undefined {
  const [major, minor] = numbers(found.release)
  if (found.implementation !== 'cpython') return found.implementation
  if (major !== 3 || minor < oldest || minor > newest) return found.release
  if (found.freeThreaded) return `${found.release} without a global lock`
  if (found.missing.length > 0) return `${found.release} without ${found.missing.join(', ')}`
  if (found.bits !== 64 || !['x86_64', 'aarch64'].includes(found.machine)) {
    return `for ${found.machine} with ${found.bits} bits`
  }
  const [libc, libcVersion] = found.libc
  const [libcMajor, libcMinor] = numbers(libcVersion)
  if (libc !== 'glibc') return 'for another C library than glibc'
  if (libcMajor < 2 || (libcMajor === 2 && libcMinor < 28)) return `for glibc ${libcVersion}`
  return undefined
}

function numbers(version: string): [number, number] {
  const [major = 0, minor = 0] = version.split('.').map(Number)
  return [major, minor]
}
