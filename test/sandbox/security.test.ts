import { createServer } from 'node:net'
import { once } from 'node:events'
import { closeSync, openSync, readFileSync, readSync, writeFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'

import { afterAll, beforeAll, expect, test, vi } from 'vitest'

import { insideEnv, SandboxFilesystemError } from '../../sandbox/index.ts'
import {
  descendantsOf,
  describeProviders,
  openTestSandbox,
  printed,
  testRoot,
  type TestSandbox,
  valueOf,
} from './support.ts'

/** Whatever random bytes were asked for: the keys of the supervisors are among them. */
const { keys } = vi.hoisted(() => ({ keys: [] as Buffer[] }))
vi.mock('node:crypto', async (importOriginal) => {
  const crypto = await importOriginal<typeof import('node:crypto')>()
  const randomBytes = (size: number): Buffer => {
    const bytes = crypto.randomBytes(size)
    if (size === 32) keys.push(bytes)
    return bytes
  }
  return { ...crypto, randomBytes }
})

/** What strangers' code can see and do. The numbers are those of the list in the threat model. */
describeProviders('what code cannot do', (provider) => {
  let sandbox: TestSandbox
  const value = async (expression: string, setUp?: string) =>
    await valueOf(sandbox, expression, setUp)

  process.env['CANARY'] = 'canary-of-the-host'

  beforeAll(async () => {
    sandbox = await openTestSandbox(provider)
  })
  afterAll(async () => await sandbox.terminate())

  test('1: no variable of the host is in any environment', async () => {
    const environments = (await value(
      '{p: open(f"/proc/{p}/environ").read() for p in pids if readable(p)}',
      [
        'import os',
        'pids = [p for p in os.listdir("/proc") if p.isdigit()]',
        'def readable(p):',
        '    try: return open(f"/proc/{p}/environ").read() is not None',
        '    except OSError: return False',
      ].join('\n'),
    )) as Record<string, string>
    expect(JSON.stringify(environments)).not.toContain('canary')
    const own = (await value('list(os.environ)', 'import os')) as string[]
    const given = Object.keys(insideEnv(testRoot().root))
    // Names that shells and launchers set by themselves.
    expect(own.filter((name) => ![...given, 'PWD', 'HOSTNAME', 'SHLVL'].includes(name))).toEqual([])
  })

  test('2: no capability, no new privileges, a filter, and no root on the host', async () => {
    const status = await printed(sandbox, 'print(open("/proc/self/status").read())')
    expect(status).toMatch(/^CapBnd:\s0+$/m)
    expect(status).toMatch(/^CapEff:\s0+$/m)
    expect(status).toMatch(/^Seccomp:\s2$/m)
    // gVisor does not show the rest, and the processes that it consists of are looked at in runsc.test.ts.
    if (provider.name === 'runsc') return
    expect(status).toMatch(/^NoNewPrivs:\s1$/m)
    // From outside, since a sandbox sees its own numbers of users.
    const running = sandbox.runCode('import time; MARK = "a-mark"; time.sleep(2)', {
      timeoutMs: 9000,
    })
    const inside = [sandbox.hostPid, ...descendantsOf(sandbox.hostPid)]
    expect(inside.length).toBeGreaterThan(2)
    for (const pid of inside) {
      const uids = /^Uid:\s+(?<uids>.*)$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))
      expect(uids?.groups?.['uids']?.split(/\s+/)).not.toContain('0')
    }
    await running
  })

  test('3: no descriptor of a terminal, also in a second sandbox', async () => {
    await using second = await openTestSandbox(provider)
    for (const one of [sandbox, second]) {
      const links = (await valueOf(
        one,
        'links()',
        [
          'import os',
          'def links():',
          '    found = []',
          '    for p in filter(str.isdigit, os.listdir("/proc")):',
          '        try:',
          '            for fd in os.listdir(f"/proc/{p}/fd"):',
          '                found.append([p, int(fd), os.readlink(f"/proc/{p}/fd/{fd}")])',
          '        except OSError: pass',
          '    return found',
        ].join('\n'),
      )) as [string, number, string][]
      expect(links.some(([, , link]) => link.startsWith('pipe:'))).toBe(true)
      // docker's init holds the terminal; the MAC is what keeps frames from being forged there.
      const isInit = (pid: string, fd: number) =>
        provider.name !== 'bubblewrap' && pid === '1' && fd <= 2
      const terminals = links.filter(
        ([pid, fd, link]) => /ptmx|pts|tty|console/.test(link) && !isInit(pid, fd),
      )
      expect(terminals).toEqual([])
    }
  })

  test('4: no service of the host can be reached, nor anything else', async () => {
    const server = createServer((socket) => socket.end('reached')).listen(0, '127.0.0.1')
    await once(server, 'listening')
    const address = server.address()
    const port = typeof address === 'object' && address ? address.port : 0
    const reach = [
      'import socket',
      'def reach(host, port):',
      '    try:',
      '        socket.create_connection((host, port), timeout=2).close()',
      '        return "reached"',
      '    except OSError as error:',
      '        return type(error).__name__',
      'def resolve(name):',
      '    try: return socket.gethostbyname(name)',
      '    except OSError: return None',
    ].join('\n')
    expect(await value(`reach("127.0.0.1", ${port})`, reach)).not.toBe('reached')
    expect(await value('reach("169.254.169.254", 80)')).not.toBe('reached')
    expect(await value('reach("172.17.0.1", 22)')).not.toBe('reached')
    expect(await value('reach("1.1.1.1", 53)')).not.toBe('reached')
    expect(await value('resolve("example.com")')).toBe(null)
    server.close()
  })

  test('5: frames that code forges are not delivered', async () => {
    const forged = String.raw`"\n~" + "0" * 32 + " [9999,{\"t\":\"done\",\"id\":1}]\n"`
    await printed(
      sandbox,
      [
        'import os, glob',
        `frame = (${forged}).encode()`,
        'for path in ["/dev/console", "/dev/tty", *glob.glob("/dev/pts/*"), *glob.glob("/proc/*/fd/*")]:',
        '    try:',
        '        if "pts" in os.path.realpath(path) or "console" in path or "tty" in path:',
        '            with open(path, "wb", buffering=0) as f: f.write(frame)',
        '    except OSError: pass',
      ].join('\n'),
    )
    expect(await printed(sandbox, `print(${forged}); print("after")`)).toMatch(/after\n$/)
  })

  test('what code writes to the lines that its interpreter has reaches nothing else', async () => {
    await using victim = await openTestSandbox(provider)
    const junk = [
      'import os, random, socket, stat',
      'random.seed(7)',
      'kinds = [b"I", b"O", b"E", b"R", b"S", b"X", b"A", b"", b"{"]',
      'for fd in range(3, 300):',
      '    try: mode = os.fstat(fd).st_mode',
      '    except OSError: continue',
      '    for _ in range(200):',
      '        data = random.choice(kinds) + random.randbytes(random.choice([0, 1, 5, 6, 60, 5000]))',
      '        try:',
      '            if stat.S_ISSOCK(mode): socket.socket(fileno=os.dup(fd)).send(data, socket.MSG_DONTWAIT)',
      '            elif stat.S_ISFIFO(mode): os.write(fd, data)',
      '        except OSError: pass',
    ].join('\n')
    await victim.runCode(junk, { timeoutMs: 5000 })
    // Whatever it has done to its own cells, the session answers or is said to be gone.
    await victim.runCode('import os; os._exit(0)', { timeoutMs: 5000 })
    await victim.runCode('1', { timeoutMs: 5000 })
    expect(await victim.runCode('6 * 7', { timeoutMs: 5000 })).toMatchObject({
      status: 'ok',
      outputs: [{ logs: '42' }],
    })
  })

  test('6: what holds the key cannot be looked into, and the key is in nothing else', async () => {
    const looks = [
      'import os',
      'def parent(p): return int(open(f"/proc/{p}/stat").read().rpartition(")")[2].split()[1])',
      'S = parent(os.getppid())',
      'def look(p, what):',
      '    try:',
      '        with open(f"/proc/{p}/{what}", "rb") as f: f.read(1)',
      '        return "read"',
      '    except OSError as error: return type(error).__name__',
    ].join('\n')
    expect(await value('open(f"/proc/{S}/cmdline").read()', looks)).toContain('supervisor.py')
    // gVisor shows the others to processes of the same user; the key is in memory only.
    const closed = provider.name === 'runsc' ? ['mem'] : ['mem', 'environ', 'maps', 'fd/0']
    for (const what of closed) {
      expect(await value(`look(S, "${what}")`)).toBe('PermissionError')
    }
    expect(await value('look(os.getppid(), "mem")')).toBe('PermissionError')

    // From outside, where the processes can be seen from here.
    const inside = descendantsOf(sandbox.hostPid).map((pid) => ({ pid, program: programOf(pid) }))
    const others = inside.filter(({ program }) => program === 'zygote.py')
    for (const { pid } of others) expect(holdsAnyOf(pid, keys)).toBe(false)
    if (process.getuid?.() !== 0 || provider.name !== 'bubblewrap') return
    expect(others.length).toBe(2)
    const supervisors = inside.filter(({ program }) => program === 'supervisor.py')
    expect(supervisors.some(({ pid }) => holdsAnyOf(pid, keys))).toBe(true)
  })

  test('7: system calls that are not needed are refused', async () => {
    const call = [
      'import ctypes, os, platform, socket',
      'libc = ctypes.CDLL(None, use_errno=True)',
      'numbers = {"x86_64": dict(unshare=272, keyctl=250, io_uring_setup=425, ptrace=101, mount=165, setns=308, bpf=321,',
      '    userfaultfd=323, perf_event_open=298, personality=135, process_vm_readv=310),',
      '  "aarch64": dict(unshare=97, keyctl=219, io_uring_setup=425, ptrace=117, mount=40, setns=268, bpf=280,',
      '    userfaultfd=282, perf_event_open=241, personality=92, process_vm_readv=270)}[platform.machine()]',
      'def call(name, *args):',
      '    ctypes.set_errno(0)',
      '    return libc.syscall(numbers[name], *args) == -1 and ctypes.get_errno()',
      'def family(number):',
      '    try: socket.socket(number, socket.SOCK_STREAM).close(); return 0',
      '    except OSError as error: return error.errno',
    ].join('\n')
    await printed(sandbox, call)
    const EPERM = 1
    const refused = (await value('{name: call(name, 0, 0, 0, 0, 0) for name in numbers}')) as object
    expect(new Set(Object.values(refused))).toEqual(new Set([EPERM]))
    expect(await value('call("unshare", 0x10000000)')).not.toBe(false)
    expect(await value('family(40)')).not.toBe(0)
    expect(await value('family(17)')).not.toBe(0)
  })

  test('8: links, FIFOs and directories in /mnt/data are neither read nor waited for', async () => {
    const canary = join(dirname(sandbox.dataDir), 'canary')
    writeFileSync(canary, 'secret')
    await printed(
      sandbox,
      [
        'import os',
        'os.chdir("/mnt/data")',
        `os.symlink(${JSON.stringify(canary)}, "link")`,
        'os.symlink("/etc", "etc"); os.symlink("..", "up"); os.mkfifo("fifo"); os.mkdir("dir")',
        'open("dir/file", "w").write("x"); os.chmod("dir/file", 0o6777)',
        'import socket; s = socket.socket(socket.AF_UNIX); s.bind("socket")',
      ].join('\n'),
    )
    const { filesystem } = sandbox
    for (const path of ['link', 'etc', 'fifo', 'dir', 'socket', 'etc/passwd', 'up/canary']) {
      await expect(filesystem.readBytes(path)).rejects.toThrow(SandboxFilesystemError)
      await expect(filesystem.openRead(path)).rejects.toThrow(SandboxFilesystemError)
    }
    await expect(filesystem.readText('../canary')).rejects.toThrow('not under /mnt/data')
    await expect(filesystem.writeText('etc/new', 'x')).rejects.toThrow('no directory')
    await filesystem.writeText('link', 'replaced')
    expect(readFileSync(canary, 'utf8')).toBe('secret')
    expect(await filesystem.readText('link')).toBe('replaced')
    const files = await filesystem.listFiles()
    expect(files.map(({ path }) => path)).toEqual(['/mnt/data/dir/file', '/mnt/data/link'])
  })

  test('9: one sandbox sees neither files nor processes of another', async () => {
    await using other = await openTestSandbox(provider)
    await other.filesystem.writeText('mine', 'x')
    await other.exec(['sleep', '543'])
    expect(await value('os.listdir("/mnt/data")', 'import os')).not.toContain('mine')
    const found = await sandbox.exec(['pgrep', '-f', 'sleep 543'])
    expect(await found.wait()).toBe(1)
  })

  test('12: a flood of a program sends no more than its limit', async () => {
    let bytes = 0
    await sandbox.runCode('!timeout 1 yes', {
      timeoutMs: 10_000,
      onOutput: (piece) => {
        bytes += piece.type === 'logs' ? piece.logs.length : 0
      },
    })
    expect(bytes).toBeLessThanOrEqual(1024 * 1024 + 64 * 1024)
  })

  test('files of the host are not there, and those of the system cannot be changed', async () => {
    const canary = join(dirname(sandbox.dataDir), 'canary')
    writeFileSync(canary, 'secret')
    const probe = [
      'import os, glob',
      'def writes(path):',
      '    try:',
      '        with open(path, "a") as f: f.write("x")',
      '        return True',
      '    except OSError: return False',
    ].join('\n')
    expect(await value(`os.path.exists(${JSON.stringify(canary)})`, probe)).toBe(false)
    expect(await value('os.path.exists("/var/run/docker.sock")')).toBe(false)
    expect(
      await value(
        'os.path.exists(os.path.join("/root", ".cache")) or os.path.exists("/etc/shadow")',
      ),
    ).toBe(false)
    const paths = [
      '/x',
      '/etc/passwd',
      '/usr/bin/x',
      '/kernel/worker.py',
      '/opt/wheels/x',
      '/dev/x',
    ]
    for (const path of [...paths, '/proc/sys/kernel/core_pattern', '/proc/sysrq-trigger']) {
      expect({ path, writes: await value(`writes("${path}")`) }).toEqual({ path, writes: false })
    }
    expect(await value('glob.glob("/sys/fs/cgroup/*")')).toEqual([])
  })

  test('programs with set-user-id bits give nobody rights', async () => {
    const uid = (await value('os.getuid()', 'import os')) as number
    expect(uid).not.toBe(0)
    await printed(
      sandbox,
      'import shutil; shutil.copy("/usr/bin/id", "/mnt/data/id"); os.chmod("/mnt/data/id", 0o6755)',
    )
    expect(await printed(sandbox, '!/mnt/data/id -u')).toBe(`${uid}\n`)
  })
})

function programOf(pid: number): string | undefined {
  const argv = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0')
  return argv.map((one) => basename(one)).find((one) => one.endsWith('.py'))
}

/** Whether one of the texts is anywhere in the memory of a process. */
function holdsAnyOf(pid: number, texts: Buffer[]): boolean {
  const memory = openSync(`/proc/${pid}/mem`, 'r')
  try {
    return readFileSync(`/proc/${pid}/maps`, 'utf8')
      .split('\n')
      .some((line) => {
        const area = /^(?<from>[0-9a-f]+)-(?<to>[0-9a-f]+) rw/.exec(line)?.groups
        if (!area) return false
        const from = Number.parseInt(area['from'] ?? '', 16)
        const bytes = Buffer.alloc(Number.parseInt(area['to'] ?? '', 16) - from)
        readSync(memory, bytes, 0, bytes.length, from)
        return texts.some((text) => bytes.includes(text))
      })
  } finally {
    closeSync(memory)
  }
}
