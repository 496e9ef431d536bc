import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { homedir, tmpdir } from 'node:os'
import { join, resolve } from 'node:path'

import { afterEach, beforeEach, describe, expect, test } from 'vitest'

import { createLogger } from '../../log.ts'
import { diagnose, notRunning } from '../../sandbox/bubblewrap-remedies.ts'
import { type CodeResult, openSandboxes } from '../../sandbox/index.ts'
import { testRoot } from './support.ts'

let dir: string
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'longrun-bwrap-'))
})
afterEach(() => rmSync(dir, { recursive: true, force: true, maxRetries: 10 }))

const log = createLogger('silent')
const root = () => testRoot().root

describe('why bubblewrap does not run, and what to do', () => {
  const nothing = () => ''
  const settings = (set: Record<string, string>) => (path: string) => set[path] ?? ''

  test.each([
    [
      'AppArmor of Ubuntu',
      'bwrap: setting up uid map: Permission denied',
      settings({ '/proc/sys/kernel/apparmor_restrict_unprivileged_userns': '1' }),
      /apparmor_restrict_unprivileged_userns=0/,
    ],
    [
      'namespaces that are set to none',
      'bwrap: Creating new namespace failed: No space left on device',
      settings({ '/proc/sys/user/max_user_namespaces': '0' }),
      /user\.max_user_namespaces=/,
    ],
    [
      'Debian’s older switch',
      'bwrap: No permissions to create new namespace',
      settings({ '/proc/sys/kernel/unprivileged_userns_clone': '0' }),
      /unprivileged_userns_clone=1/,
    ],
    [
      'a container that allows none',
      'bwrap: No permissions to create a new namespace',
      nothing,
      /security-opt/,
    ],
    [
      'root that may not become another user',
      'setpriv: setresuid failed: Operation not permitted',
      nothing,
      /CAP_SETUID/,
    ],
    [
      'root that may not mount',
      'unshare: unshare failed: Operation not permitted',
      nothing,
      /CAP_SYS_ADMIN/,
    ],
  ])('%s', (_, complaint, read, remedy) => {
    expect(diagnose(complaint, read).remedy).toMatch(remedy)
    expect(diagnose(complaint, read).why).toContain(complaint)
  })

  test('bubblewrap that is not there', () => {
    const missing = notRunning({ isRoot: false, bwrapPath: undefined, root: root() })
    expect(missing?.remedy).toContain('apt-get install bubblewrap')
  })

  test('a root that is an image', () => {
    const image = { ...root(), image: 'name' }
    expect(notRunning({ isRoot: false, bwrapPath: '/bwrap', root: image })?.why).toMatch(/docker/)
  })

  test('without any provider that works it is said, and nothing runs', async () => {
    const sandboxes = await openSandboxes({
      provider: 'bubblewrap',
      root: root(),
      stateDir: dir,
      log,
      bwrapPath: '/no/such/bwrap',
    })
    expect(sandboxes).toEqual({
      none: expect.stringMatching(/no sandbox.*bubblewrap was not found.*Install it/),
    })
    const off = await openSandboxes({ provider: 'none', root: root(), stateDir: dir, log })
    expect(off).toEqual({ none: expect.stringContaining('SANDBOX_PROVIDER') })
  })

  const probe = () => [process.execPath, resolve('test/sandbox/probe-main.ts'), dir]
  const canUnshare = spawnSync('unshare', ['--user', '--map-root-user', 'true']).status === 0

  test.skipIf(!canUnshare)(
    '13: as root that cannot become another user, nothing is started',
    () => {
      // A namespace of users in which this process is root, and no other user is known.
      const { stdout } = spawnSync('unshare', ['--user', '--map-root-user', ...probe()])
      expect(JSON.parse(stdout.toString())).toMatchObject({
        ok: false,
        remedy: expect.stringContaining('another user than root'),
      })
    },
  )
})

describe('as a user without any rights', () => {
  const isRoot = process.getuid?.() === 0

  /** Runs a program as a user that has no account; what is in private directories is shown to it in a mount namespace. */
  const asStranger = (argv: string[]) => {
    const uid = '54321'
    const shown = ['.cache', '.pyenv'].map((name) => join(homedir(), name)).filter(existsSync)
    const script = `set -e
      chown ${uid}:${uid} "$1"; home=$2; shift 2
      mount -t tmpfs -o mode=755 tmpfs /sys
      n=0; for path in ${shown.join(' ')}; do n=$((n + 1)); mkdir /sys/$n; mount --rbind $path /sys/$n; done
      mount -t tmpfs -o mode=755 tmpfs $home
      n=0; for path in ${shown.join(' ')}; do n=$((n + 1)); mkdir -p $path; mount --rbind /sys/$n $path; done
      exec setpriv --reuid=${uid} --regid=${uid} --clear-groups --no-new-privs --bounding-set=-all "$@"`
    return spawnSync('unshare', ['--mount', 'sh', '-c', script, 'sh', dir, homedir(), ...argv], {
      encoding: 'utf8',
    })
  }

  test.skipIf(!isRoot)('code runs, and its memory and processes are bounded', () => {
    const { stdout, stderr } = asStranger([
      process.execPath,
      resolve('test/sandbox/user-main.ts'),
      dir,
      'open("x", "w").write("x"); open("x").read()',
      'print([line for line in open("/proc/self/status") if line[:6] in ("CapBnd", "Seccom", "NoNewP")])',
      // More than its limit, over several processes.
      'import os, time\nfor _ in range(3): os.fork()\nx = b"x" * (150 * 2**20)\ntime.sleep(20)',
      'import os\nwhile True:\n    try: os.fork()\n    except OSError: break',
      '6 * 7',
    ])
    expect(stderr).toBe('')
    const { uid, results } = JSON.parse(stdout) as { uid: number; results: CodeResult[] }
    expect(uid).toBe(54321)
    const [files, status, memory, , last] = results
    expect(files).toMatchObject({ status: 'ok', outputs: [{ logs: "'x'" }] })
    expect(JSON.stringify(status?.outputs)).toMatch(/NoNewPrivs:.{3}1.*Seccomp:.{3}2/)
    expect(memory).toMatchObject({ status: 'crashed', stateLost: true })
    expect(memory?.note).toContain('ran out of memory (512 MB)')
    expect(last).toMatchObject({ status: 'ok', outputs: [{ logs: '42' }] })
  })

  test.skipIf(!isRoot)('memory that is taken between two calls is bounded', () => {
    const hog =
      'import time; open(__import__("sys").argv[1], "w"); x = b"x" * (200 * 2**20); time.sleep(60)'
    const { stdout, stderr } = asStranger([
      process.execPath,
      resolve('test/sandbox/user-main.ts'),
      dir,
      `import subprocess\nfor n in range(4): subprocess.Popen(["python3", "-c", '${hog}', f"hog{n}"]);`,
      '$ until [ -e hog3 ]; do sleep 0.1; done; while pgrep -f "hog[0-9]$"; do sleep 0.1; done',
      '6 * 7',
    ])
    expect(stderr).toBe('')
    const { results } = JSON.parse(stdout) as { results: CodeResult[] }
    expect(results).toMatchObject([
      { status: 'ok' },
      { status: 'ok', stateLost: true, outputs: [{ logs: '42' }] },
    ])
    expect(results[1]?.note).toContain('ended between two calls (out of memory)')
  })
})
