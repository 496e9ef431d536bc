import { existsSync, readFileSync } from 'node:fs'

import type { SandboxRoot } from './root.ts'

/** Why bubblewrap does not work here, and what to do. Both are sentences for whoever runs the server. */
export interface Remedy {
  why: string
  remedy: string
}

export interface Circumstances {
  isRoot: boolean
  bwrapPath: string | undefined
  root: SandboxRoot
}

const ROOT_TOOLS = ['setpriv', 'unshare', 'mount']
const TOOL_DIRS = ['/usr/bin', '/bin', '/usr/sbin', '/sbin']

/** What can be seen without trying. */
export function notRunning({ isRoot, bwrapPath, root }: Circumstances): Remedy | undefined {
  if (process.platform !== 'linux')
    return { why: 'bubblewrap is for Linux.', remedy: 'Use docker (SANDBOX_PROVIDER=docker).' }
  if (root.image !== undefined)
    return {
      why: 'SANDBOX_IMAGE is for docker only.',
      remedy: 'For bubblewrap, set SANDBOX_ROOT, or neither for the default.',
    }
  if (bwrapPath === undefined)
    return {
      why: 'bubblewrap was not found.',
      remedy:
        'Install it: `apt-get install bubblewrap`, or your distribution’s package of that name.',
    }
  const missing = ROOT_TOOLS.filter(
    (tool) => !TOOL_DIRS.some((dir) => existsSync(`${dir}/${tool}`)),
  )
  if (isRoot && missing.length > 0)
    return {
      why: `As root the sandbox needs ${missing.join(', ')} to give up root’s rights.`,
      remedy: 'Install util-linux, or run the server as another user than root.',
    }
  return undefined
}

/** What the launcher complained of, read by what the kernel says of itself. */
export function diagnose(complaint: string, read: (path: string) => string = readSetting): Remedy {
  const why = `bubblewrap could not start a sandbox: ${complaint}`
  const isRefused = /namespace|uid map|Operation not permitted|Permission denied/i.test(complaint)
  if (/setpriv|setresuid|setgroups|chown/i.test(complaint))
    return {
      why,
      remedy:
        'This is root without the right to become another user (CAP_SETUID, CAP_SETGID, CAP_CHOWN): ' +
        'run the server as another user than root, or give the container these capabilities.',
    }
  if (/^.*(unshare|mount): /m.test(complaint) && !/bwrap: /.test(complaint))
    return {
      why,
      remedy:
        'This is root without the right to mount (CAP_SYS_ADMIN), as in a container: run the server as another user than ' +
        'root, or keep its data, cache and project in directories that all users may pass through.',
    }
  if (read('/proc/sys/user/max_user_namespaces') === '0')
    return { why, remedy: 'User namespaces are off: `sysctl -w user.max_user_namespaces=15000`.' }
  if (read('/proc/sys/kernel/unprivileged_userns_clone') === '0')
    return {
      why,
      remedy: 'User namespaces are off: `sysctl -w kernel.unprivileged_userns_clone=1`.',
    }
  if (isRefused && read('/proc/sys/kernel/apparmor_restrict_unprivileged_userns') === '1')
    return {
      why,
      remedy:
        'AppArmor keeps programs from making user namespaces (Ubuntu 23.10 and later). Allow it to bubblewrap: write ' +
        '`abi <abi/4.0>, include <tunables/global> profile bwrap /**/bwrap flags=(unconfined) { userns, }` to ' +
        '/etc/apparmor.d/bwrap and run `apparmor_parser -r /etc/apparmor.d/bwrap`; or allow it to all programs: ' +
        '`sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`.',
    }
  if (isRefused)
    return {
      why,
      remedy:
        'The kernel, or the container that the server runs in, allows no user namespaces: allow them ' +
        '(for docker: `--security-opt seccomp=unconfined --security-opt apparmor=unconfined`), or use docker.',
    }
  return {
    why,
    remedy: 'Try the sandbox’s parts by hand, or choose another with SANDBOX_PROVIDER.',
  }
}

function readSetting(path: string): string {
  try {
    return readFileSync(path, 'utf8').trim()
  } catch {
    return ''
  }
}
