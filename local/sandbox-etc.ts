import { spawnSync } from 'node:child_process'
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readlinkSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'

import type { HostPython } from '../sandbox/rootfs/host.ts'

/** Writes an /etc of our own: nothing in it tells whose machine this is. */
export function makeEtc(etc: string, python: HostPython): void {
  mkdirSync(join(etc, 'fonts'), { recursive: true })
  for (const [name, content] of Object.entries(files)) writeFileSync(join(etc, name), content)
  // awk and the like are links to links.
  copyAlternatives(join(etc, 'alternatives'))
  makeLibraryCache(join(etc, 'ld.so.cache'))
  if (python.certificates !== undefined) {
    // For hosts on the allow-list. These are public, where the machine has no authority of its own.
    mkdirSync(join(etc, 'ssl', 'certs'), { recursive: true })
    copyFileSync(python.certificates, join(etc, 'ssl', 'certs', 'ca-certificates.crt'))
  }
}

const files = {
  passwd:
    'root:x:0:0:root:/nonexistent:/bin/sh\n' +
    'sandbox:x:1000:1000:sandbox:/home/sandbox:/bin/sh\n' +
    'nobody:x:65534:65534:nobody:/nonexistent:/bin/sh\n',
  group: 'root:x:0:\nsandbox:x:1000:\nnogroup:x:65534:\n',
  hosts: '127.0.0.1 localhost\n::1 localhost\n',
  hostname: 'sandbox\n',
  'fonts/fonts.conf':
    '<fontconfig><dir>/usr/share/fonts</dir><cachedir>/tmp/.fontconfig</cachedir></fontconfig>\n',
  'nsswitch.conf': 'passwd: files\ngroup: files\nhosts: files dns\n',
}

function copyAlternatives(into: string): void {
  const from = '/etc/alternatives'
  mkdirSync(into)
  for (const name of existsSync(from) ? readdirSync(from) : []) {
    const target = linkTarget(join(from, name))
    if (target && /^\/usr\/(bin|sbin|lib\w*|share)\//.test(target))
      symlinkSync(target, join(into, name))
  }
}

function linkTarget(path: string): string | undefined {
  try {
    return readlinkSync(path)
  } catch {
    return undefined
  }
}

/** The machine's own would name the places of its other software. Without any, programs look in the usual places. */
function makeLibraryCache(file: string): void {
  const args = ['-X', '-C', file, '-f', '/dev/null']
  const ldconfig = ['/usr/sbin/ldconfig', '/sbin/ldconfig'].find((path) => existsSync(path))
  if (ldconfig) spawnSync(ldconfig, args, { stdio: 'ignore', timeout: 20_000 })
}
