import { globSync, lstatSync, readlinkSync } from 'node:fs'
import { basename, join } from 'node:path'

import type { SandboxRoot } from '../root.ts'

/** A Python of this machine. */
export interface HostPython {
  /** The program itself, not a link to it. */
  executable: string
  /** Where it was installed: its `sys.base_prefix`. */
  prefix: string
  /** E.g. 3.11. */
  version: string
  /** E.g. 3.11.2. */
  release: string
  /** Its trust store, if it has one. */
  certificates: string | undefined
}

/**
 * This machine's /usr and Python, read-only, with `dir/wheels` and `dir/etc`. Shown is what packages of the distribution
 * install, which everybody can have; hidden is where others put things: /usr/local, /usr/src, Python's and Node's
 * installed packages, web roots. Nothing of the machine's /etc, /home, /opt, /var is there.
 */
export function hostRoot(python: HostPython, dir: string, version: string): SandboxRoot {
  const system = systemParts()
  const env: Record<string, string> = { PYTHONPATH: '/opt/wheels', PYTHONNOUSERSITE: '1' }
  // For hosts on the allow-list.
  if (python.certificates !== undefined) env['SSL_CERT_FILE'] = '/etc/ssl/certs/ca-certificates.crt'
  const own = isSystem(python) ? undefined : ownParts(python)
  const shown = [...system.binds, ...(own?.binds ?? [])]
  return {
    version,
    binds: [
      ...shown,
      ...hiddenIn(shown).map((to) => ({ from: join(dir, 'empty'), to })),
      { from: join(dir, 'etc'), to: '/etc' },
      { from: join(dir, 'wheels'), to: '/opt/wheels' },
    ],
    symlinks: [...system.symlinks, ...(own?.symlinks ?? [])],
    python: own?.python ?? python.executable,
    env: { ...env, ...own?.env },
  }
}

const topLevel = ['bin', 'sbin', 'lib', 'lib32', 'lib64', 'libx32']
const ofUsr = [...topLevel, 'libexec', 'share']

interface Parts {
  binds: SandboxRoot['binds']
  symlinks: SandboxRoot['symlinks']
}

function systemParts(): Parts {
  const parts: Parts = { binds: [], symlinks: [] }
  // /bin is a link to usr/bin almost everywhere, and /usr/sbin one to bin on some.
  for (const path of [
    ...ofUsr.map((name) => `/usr/${name}`),
    ...topLevel.map((name) => `/${name}`),
  ]) {
    const status = lstatSync(path, { throwIfNoEntry: false })
    if (status?.isSymbolicLink()) parts.symlinks.push({ target: readlinkSync(path), path })
    else if (status?.isDirectory()) parts.binds.push({ from: path, to: path })
  }
  return parts
}

const isSystem = ({ prefix }: HostPython): boolean => prefix === '/usr'

/** A Python of its own (pyenv, uv, conda, built by hand) is found by its place: bin/python3.11 beside lib/python3.11. */
function ownParts({ executable, prefix, version }: HostPython) {
  const inside = '/opt/python'
  const name = basename(executable)
  const python = `${inside}/bin/${name}`
  const shared = globSync('libpython3*.so*', { cwd: join(prefix, 'lib') })
  // Others install into /usr/local too: nothing but Python's own is shown of it.
  const libraries =
    prefix === '/usr/local'
      ? [`lib/python${version}`, ...shared.map((file) => `lib/${file}`)]
      : ['lib', 'lib64'].filter((folder) => isDirectory(join(prefix, folder)))
  return {
    python,
    binds: [
      { from: executable, to: python },
      ...libraries.map((path) => ({ from: join(prefix, path), to: `${inside}/${path}` })),
    ],
    symlinks: name === 'python3' ? [] : [{ target: name, path: `${inside}/bin/python3` }],
    // The program remembers the place where it was installed, which is not there.
    env: shared.length > 0 ? { LD_LIBRARY_PATH: `${inside}/lib` } : undefined,
  }
}

const packageFolders = ['site-packages', 'dist-packages']
const inLibraries = [
  ...packageFolders.map((folder) => `python3*/${folder}`),
  'node_modules',
  'cgi-bin',
]
const webRoots = ['nginx', 'httpd', 'webapps', 'www']

/** Directories inside that strangers have no business with. */
function hiddenIn(shown: SandboxRoot['binds']): string[] {
  return shown.flatMap(({ from, to }) => {
    if (!isDirectory(from)) return []
    return globSync(patternsOf(to), { cwd: from })
      .filter((path) => isDirectory(join(from, path)))
      .map((path) => join(to, path))
  })
}

function patternsOf(to: string): string[] {
  if (to.endsWith('/share')) return webRoots
  return /\/python3[^/]*$/.test(to) ? packageFolders : inLibraries
}

/** A link is none: what it leads to is hidden where it is, or not there. */
function isDirectory(path: string): boolean {
  return lstatSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false
}
