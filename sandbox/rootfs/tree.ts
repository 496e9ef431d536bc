import { existsSync, lstatSync, readdirSync, readlinkSync, statSync } from 'node:fs'
import { join } from 'node:path'

import type { SandboxRoot } from '../root.ts'

/** The parts of a directory that holds a whole system, as rootfs/debootstrap.sh makes it; undefined where it holds none. */
export function treeRoot(directory: string): SandboxRoot | undefined {
  const stamp = statSync(join(directory, 'opt', 'wheels'), { throwIfNoEntry: false })
  const python = statSync(join(directory, 'usr', 'bin', 'python3'), { throwIfNoEntry: false })
  if (!stamp || !python) return undefined
  const root: SandboxRoot = {
    version: `${directory} ${stamp.mtimeMs}`,
    binds: [],
    symlinks: [],
    python: '/usr/bin/python3',
    env: { PYTHONPATH: '/opt/wheels', PYTHONNOUSERSITE: '1' },
  }
  if (existsSync(join(directory, certificates))) root.env['SSL_CERT_FILE'] = certificates
  // By parts and not as a whole: a container's own / cannot be mounted over.
  for (const name of readdirSync(directory)) {
    if (!shown.test(name)) continue
    const from = join(directory, name)
    const path = `/${name}`
    if (lstatSync(from).isSymbolicLink()) root.symlinks.push({ target: readlinkSync(from), path })
    else root.binds.push({ from, to: path })
  }
  return root
}

const certificates = '/etc/ssl/certs/ca-certificates.crt'
const shown = /^(bin|sbin|lib\w*|usr|etc|opt)$/
