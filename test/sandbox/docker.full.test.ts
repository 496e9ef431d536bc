import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'

import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'

import { createLogger } from '../../log.ts'
import { DockerDaemonError, openDaemon } from '../../sandbox/docker-daemon.ts'
import { type TarEntry, tarOf } from '../../sandbox/docker-image.ts'
import { diagnose, notLimiting } from '../../sandbox/docker-remedies.ts'
import { seccompProfile, type SeccompProfile } from '../../sandbox/docker-seccomp.ts'
import { createDocker } from '../../sandbox/docker.ts'
import type { ProbeResult } from '../../sandbox/index.ts'
import { denied } from '../../sandbox/seccomp.ts'
import { eventually, isAlive } from '../local/scratch.ts'
import {
  describeProviders,
  logsOf,
  openTestSandbox,
  printed,
  TEST_LIMITS,
  testProviders,
  testRoot,
} from './support.ts'

// Before the imports.
vi.hoisted(() => (process.env['TEST_SANDBOX_PROVIDER'] = 'docker'))

let dir: string
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'longrun-docker-'))
})
afterEach(() => rmSync(dir, { recursive: true, force: true, maxRetries: 10 }))

const log = createLogger('silent')
const { root } = testRoot()

describe('the rules for system calls, as docker takes them', () => {
  const EPERM = 1
  const ENOSYS = 38
  const HIGH = 2 ** 32

  test.each(['x64', 'arm64'] as const)(
    'refuse on %s what the filter of bubblewrap refuses',
    (arch) => {
      const profile = seccompProfile(arch)
      for (const name of Object.keys(denied[arch]))
        expect([name, answerTo(profile, name)]).toEqual([name, EPERM])
      expect(answerTo(profile, 'clone3')).toBe(ENOSYS)
      expect(answerTo(profile, 'read')).toBe(0)
    },
  )

  test.each([
    ['a Unix socket', 'socket', [1], 0],
    ['IPv4', 'socket', [2], 0],
    ['IPv6', 'socket', [10], 0],
    ['netlink', 'socket', [16], EPERM],
    ['packets', 'socket', [17], EPERM],
    ['vsock', 'socket', [40], EPERM],
    ['vsock, with bits that the kernel does not look at', 'socket', [40 + HIGH], EPERM],
    ['no family', 'socket', [0], EPERM],
    ['a thread', 'clone', [0x3d0f00], 0],
    ['a namespace of users', 'clone', [0x10000000], EPERM],
    ['a namespace of a network, among others', 'clone', [0x3d0f00 + 0x40000000], EPERM],
    ['the size of a terminal', 'ioctl', [0, 0x5413], 0],
    ['input for a terminal', 'ioctl', [0, 0x5412], EPERM],
    ['the same with bits that the kernel does not look at', 'ioctl', [0, 0x5412 + HIGH], EPERM],
    ['a FIFO', 'mknod', [0, 0o010644], 0],
    ['a disk', 'mknod', [0, 0o060644], EPERM],
    ['a terminal', 'mknodat', [0, 0, 0o020644], EPERM],
  ])('%s', (_, name, args, answer) => {
    expect(answerTo(seccompProfile('x64'), name, args)).toBe(answer)
  })

  test('there are none for other machines', () => {
    expect(() => seccompProfile('mips')).toThrow('mips')
  })
})

/** What a runtime answers: the first rule that holds, for each condition of a call is a rule of its own. */
function answerTo(profile: SeccompProfile, name: string, args: number[] = []): number {
  const rule = profile.syscalls.find(
    (one) =>
      one.names.includes(name) &&
      (one.args ?? []).every(({ index, op, value, valueTwo }) => {
        const given = BigInt(args[index] ?? 0)
        if (op === 'SCMP_CMP_EQ') return given === BigInt(value)
        if (op === 'SCMP_CMP_GT') return given > BigInt(value)
        return (given & BigInt(value)) === BigInt(valueTwo ?? 0)
      }),
  )
  return rule?.errnoRet ?? 0
}

describe('the archive that an image is made of', () => {
  const list = (entries: TarEntry[], ...options: string[]): string =>
    spawnSync('tar', ['-t', ...options], { input: tarOf(entries) }).stdout.toString()

  test('is read by tar', () => {
    const long = `/etc/${'deep/'.repeat(30)}file`
    const entries: TarEntry[] = [
      { type: 'directory', path: '/tmp', mode: 0o1777 },
      { type: 'file', path: '/etc/ü', mode: 0o644, data: Buffer.from('x'.repeat(513)) },
      { type: 'link', path: '/bin', target: 'usr/bin' },
      { type: 'file', path: long, mode: 0o600, data: Buffer.from('y') },
      { type: 'link', path: '/long', target: long },
    ]
    const lines = list(entries, '-v', '--quoting-style=literal').trim().split('\n')
    expect(lines.map((line) => line.replaceAll(/\s+/g, ' '))).toEqual([
      expect.stringMatching(/^drwxrwxrwt (0\/0|root\/root) 0 .* tmp\/$/),
      expect.stringMatching(/^-rw-r--r-- (0\/0|root\/root) 513 .* etc\/ü$/),
      expect.stringMatching(/^lrwxrwxrwx .* bin -> usr\/bin$/),
      expect.stringMatching(new RegExp(`^-rw------- .* 1 .* ${long.slice(1)}$`)),
      expect.stringMatching(new RegExp(`^lrwxrwxrwx .* long -> ${long}$`)),
    ])
  })
})

describe('why docker does not run, and what to do', () => {
  const probe = async (dockerHost: string): Promise<ProbeResult> =>
    await createDocker({ root, stateDir: dir, log, dockerHost }).probe()

  test('a daemon of another machine, where the files are not', async () => {
    const result = await probe('tcp://192.0.2.1:2375')
    expect(result).toMatchObject({ ok: false, why: expect.stringContaining('tcp://192.0.2.1') })
  })

  test('a daemon that does not run', async () => {
    const result = await probe(`unix://${join(dir, 'docker.sock')}`)
    expect(result).toMatchObject({ ok: false, remedy: expect.stringMatching(/start/i) })
  })

  test.each([
    ['a user who may not', 'connect EACCES /var/run/docker.sock', undefined, /usermod -aG docker/],
    ['a daemon that has ended', 'connect ECONNREFUSED /x', undefined, /systemctl start docker/],
    [
      'a daemon that sees other files',
      'bind source path does not exist: /x',
      400,
      /under the same paths/,
    ],
  ])('%s', (_, complaint, status, remedy) => {
    const said = diagnose(new DockerDaemonError(complaint, status), root)
    expect(said.remedy).toMatch(remedy)
    expect(said.why).toContain(complaint)
  })

  test('an image that is not there', () => {
    const said = diagnose(new Error('Unable to find image'), { ...root, image: 'python-for-code' })
    expect(said.why).toContain('python-for-code')
    expect(said.remedy).toContain('docker build -t python-for-code')
  })

  test('a daemon that bounds nothing', () => {
    const info = { ServerVersion: '28', MemoryLimit: false, PidsLimit: false, CpuCfsQuota: true }
    expect(notLimiting(info)?.why).toContain('memory and processes')
    expect(notLimiting({ ...info, MemoryLimit: true, PidsLimit: true })).toBe(undefined)
  })
})

describeProviders('with a daemon', (provider) => {
  const isOther = provider.name !== 'docker'
  const daemon = () =>
    openDaemon(
      (process.env['DOCKER_HOST'] ?? 'unix:///var/run/docker.sock').slice('unix://'.length),
    )
  const container = async (id: string) => await daemon().inspect(`longrun-${id}`)

  test.skipIf(isOther)('what is killed for lack of memory is told', async () => {
    await using sandbox = await openTestSandbox(provider)
    const { status, note, outputs } = await sandbox.runCode(
      // Each within the limit of a process, and together beyond that of the container.
      [
        'import subprocess, sys',
        'hungry = [sys.executable, "-c", "x = b\'x\' * (300 << 20); import time; time.sleep(20)"]',
        'both = [subprocess.Popen(hungry) for _ in range(2)]',
        'while all(one.poll() is None for one in both): pass',
        'for one in both: one.kill()',
        'sorted(one.wait() for one in both)',
      ].join('\n'),
      { timeoutMs: 20_000 },
    )
    expect({ status, logs: logsOf(outputs) }).toEqual({ status: 'ok', logs: '[-9, -9]' })
    expect(note).toContain('ran out of memory (512 MB)')
  })

  test.skipIf(isOther)('the account inside has the number of its files', async () => {
    await using sandbox = await openTestSandbox(provider)
    expect(await printed(sandbox, 'import os, pwd\nprint(pwd.getpwuid(os.getuid()).pw_name)')).toBe(
      'sandbox\n',
    )
  })

  test.skipIf(isOther)(
    '/tmp can be written to, and names of servers of the host are not told',
    async () => {
      await using sandbox = await openTestSandbox(provider)
      expect(
        await printed(
          sandbox,
          'open("/tmp/x", "w").write("x")\nprint(repr(open("/etc/resolv.conf").read()))',
        ),
      ).toBe("''\n")
    },
  )

  test.skipIf(isOther)('kill -9 of the docker command ends its container', async () => {
    await using sandbox = await openTestSandbox(provider)
    expect(await container(sandbox.id)).toBeDefined()
    const { stdout } = spawnSync('pgrep', ['-f', `^[^ ]*docker .* --name longrun-${sandbox.id} `])
    const [pid = '0'] = stdout.toString().split('\n')
    process.kill(Number(pid), 'SIGKILL')
    expect(await sandbox.died).toMatch(/unexpectedly/)
    expect(await container(sandbox.id)).toBe(undefined)
    expect(isAlive(sandbox.hostPid)).toBe(false)
  })

  test.skipIf(isOther)(
    'kill -9 of the server: the next one ends its containers, and no others',
    async () => {
      await using other = await openTestSandbox(provider)
      const server = spawn(
        process.execPath,
        [resolve('test/sandbox/container-main.ts'), 'docker', dir],
        { stdio: ['ignore', 'pipe', 'inherit'] },
      )
      const [line] = (await once(server.stdout, 'data')) as [Buffer]
      const { id, hostPid } = JSON.parse(line.toString()) as { id: string; hostPid: number }
      server.kill('SIGKILL')
      await once(server, 'exit')
      await testProviders(join(dir, 'state'))
        .find(({ name }) => name === 'docker')
        ?.reap()
      expect(await container(id)).toBe(undefined)
      await eventually(() => !isAlive(hostPid))
      expect(await printed(other, 'print("here")')).toBe('here\n')
    },
  )

  test.skipIf(isOther)('code that spoils its terminal spoils its own sandbox only', async () => {
    await using other = await openTestSandbox(provider)
    await using sandbox = await openTestSandbox(provider)
    await sandbox.runCode(
      [
        'import termios, glob',
        'for path in ["/dev/console", *glob.glob("/dev/pts/[0-9]*")]:',
        '    try:',
        '        with open(path, "r+b", buffering=0) as f:',
        '            modes = termios.tcgetattr(f)',
        '            modes[3] |= termios.ECHO | termios.ICANON | termios.ISIG',
        '            termios.tcsetattr(f, termios.TCSANOW, modes)',
        '    except OSError: pass',
      ].join('\n'),
      { timeoutMs: 5000 },
    )
    // Echoed frames are nobody's, and longer ones are cut: then the sandbox is ended.
    const short = await sandbox.runCode('6 * 7', { timeoutMs: 1000 })
    const long = await sandbox.runCode(`len("${'x'.repeat(20_000)}")`, { timeoutMs: 1000 })
    for (const { status } of [short, long]) expect(['ok', 'timeout', 'gone']).toContain(status)
    expect(await printed(other, 'print("here")')).toBe('here\n')
  })

  test.skipIf(isOther)('names with commas and quotes can be bound', async () => {
    const dataDir = join(dir, 'a, "b" = c:d')
    mkdirSync(dataDir)
    writeFileSync(join(dataDir, 'x'), 'x')
    await using sandbox = await provider.create({
      dataDir,
      limits: TEST_LIMITS,
      network: 'none',
    })
    expect(await printed(sandbox, 'print(open("/mnt/data/x").read())')).toBe('x\n')
  })
})
