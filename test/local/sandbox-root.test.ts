import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import {
  chmodSync,
  copyFileSync,
  existsSync,
  globSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { join, resolve } from 'node:path'

import { expect, test } from 'vitest'

import { findRoot, openRoot } from '../../sandbox/root.ts'
import type { SandboxRoot } from '../../sandbox/root.ts'
import { hostRoot } from '../../sandbox/rootfs/host.ts'
import { readStatus, statusFile, writeStatus } from '../../sandbox/rootfs/status.ts'
import { eventually, isAlive, scratchDir } from './scratch.ts'

const builder = resolve('local/sandbox-root.ts')

const inCache = (cacheDir: string) => ({ cacheDir, directory: undefined, image: undefined })
const stateIn = (cacheDir: string) => openRoot(inCache(cacheDir)).state()

// ---------------------------------------------------------------- what is said of it

test('what was never set up is said, with what to do', () => {
  using dir = scratchDir()
  expect(stateIn(dir.path)).toMatchObject({
    state: 'failed',
    remedy: expect.stringContaining('npm start'),
  })
})

test('whoever waits hears each step, and then the root', async () => {
  using dir = scratchDir()
  const file = statusFile(dir.path)
  const heard: string[] = []
  writeStatus(file, { state: 'building', percent: 5, message: 'downloading numpy' })
  const settled = openRoot(inCache(dir.path)).wait(AbortSignal.timeout(10_000), (progress) => {
    heard.push(progress)
    const next = heard.length
    if (next === 1) writeStatus(file, { state: 'building', percent: 70, message: 'compiling' })
    else writeStatus(file, { state: 'ready', root: rootOf(dir.path), bwrapPath: undefined })
  })
  expect(await settled).toEqual({
    state: 'ready',
    root: rootOf(dir.path),
    bwrapPath: undefined,
  })
  expect(heard).toEqual(['5 %, downloading numpy', '70 %, compiling'])
})

test('a wait ends with its signal', async () => {
  using dir = scratchDir()
  writeStatus(statusFile(dir.path), { state: 'building', percent: 5, message: 'beginning' })
  const stop = new AbortController()
  const waiting = openRoot(inCache(dir.path)).wait(stop.signal, () => stop.abort())
  await expect(waiting).rejects.toThrow('aborted')
})

test('a build that nobody carries on is not waited for', () => {
  using dir = scratchDir()
  const file = statusFile(dir.path)
  writeStatus(file, { state: 'building', percent: 5, message: 'beginning' })
  expect(stateIn(dir.path)).toMatchObject({ state: 'building' })
  const longAgo = new Date(Date.now() - 60_000)
  utimesSync(file, longAgo, longAgo)
  expect(stateIn(dir.path)).toMatchObject({
    state: 'failed',
    why: expect.stringContaining('interrupted'),
  })
})

test('a root whose files were deleted is not ready', () => {
  using dir = scratchDir()
  const root = rootOf(join(dir.path, 'gone'))
  writeStatus(statusFile(dir.path), { state: 'ready', root, bwrapPath: undefined })
  expect(stateIn(dir.path)).toMatchObject({
    state: 'failed',
    why: expect.stringContaining(join(dir.path, 'gone')),
  })
  expect(findRoot(inCache(dir.path))).toBeUndefined()
})

const rootOf = (from: string): SandboxRoot => ({
  version: '1',
  binds: [{ from, to: '/usr' }],
  symlinks: [],
  python: '/usr/bin/python3',
  env: {},
})

// ---------------------------------------------------------------- what is in it

test("a directory is shown by its parts, without its root's home and data", () => {
  using dir = scratchDir()
  for (const name of ['usr/bin', 'opt/wheels', 'etc', 'root', 'var', 'home']) {
    mkdirSync(join(dir.path, name), { recursive: true })
  }
  const options = { cacheDir: dir.path, directory: dir.path, image: undefined }
  expect(openRoot(options).state()).toMatchObject({
    state: 'failed',
    why: expect.stringContaining('SANDBOX_ROOT'),
  })
  writeFileSync(join(dir.path, 'usr/bin/python3'), '')
  symlinkSync('usr/bin', join(dir.path, 'bin'))
  expect(findRoot(options)).toMatchObject({
    binds: ['etc', 'opt', 'usr'].map((name) => ({ from: join(dir.path, name), to: `/${name}` })),
    symlinks: [{ target: 'usr/bin', path: '/bin' }],
    python: '/usr/bin/python3',
  })
  // Bubblewrap is still on its way.
  writeStatus(statusFile(dir.path), { state: 'building', percent: 1, message: 'beginning' })
  expect(openRoot(options).state()).toMatchObject({ state: 'building' })
})

test('an image is a root by itself', () => {
  using dir = scratchDir()
  const options = { cacheDir: dir.path, directory: undefined, image: 'python-for-code' }
  expect(findRoot(options)).toMatchObject({ image: 'python-for-code', binds: [], symlinks: [] })
})

test('nothing of the machine is shown but what its packages install, and Python', () => {
  using dir = scratchDir()
  const prefix = join(dir.path, 'python')
  mkdirSync(join(prefix, 'lib/python3.12/site-packages/secret'), { recursive: true })
  writeFileSync(join(prefix, 'lib/libpython3.12.so.1.0'), '')
  mkdirSync(join(dir.path, 'made'))
  const root = hostRoot(
    {
      executable: join(prefix, 'bin/python3.12'),
      prefix,
      version: '3.12',
      release: '3.12.4',
      certificates: undefined,
    },
    join(dir.path, 'made'),
    '1',
  )
  const others = root.binds.filter(({ from }) => !from.startsWith(dir.path))
  for (const { from, to } of others) {
    expect(from).toBe(to)
    expect(from).toMatch(/^(\/usr)?\/(bin|sbin|lib\w*|share)$/)
  }
  expect(root).toMatchObject({
    python: '/opt/python/bin/python3.12',
    env: { LD_LIBRARY_PATH: '/opt/python/lib', PYTHONPATH: '/opt/wheels' },
  })
  // The empty directory comes after what it hides.
  const order = root.binds.map(({ to }) => to)
  const hidden = '/opt/python/lib/python3.12/site-packages'
  expect(order.indexOf(hidden)).toBeGreaterThan(order.indexOf('/opt/python/lib'))
  expect(root.binds).toContainEqual({ from: join(dir.path, 'made/empty'), to: hidden })
})

// ---------------------------------------------------------------- the one that set-up has built

const built = stateIn(process.env.LONGRUN_CACHE ?? '')
const wheels = built.state === 'ready' ? hostPathOf(built.root, '/opt/wheels') : ''
const whyNot = whyNoBubblewrap()
const skipped = whyNot ? ` (skipped: ${whyNot})` : ''

test.skipIf(whyNot)(`the packages run, in the versions that are pinned${skipped}`, () => {
  const script = `
import json, importlib.metadata as metadata
import IPython, numpy, pandas, matplotlib, scipy, PIL, openpyxl, docx, pptx, pypdf, reportlab, sklearn
print(json.dumps({one.metadata['Name'].lower(): one.version for one in metadata.distributions()}))`
  const installed = JSON.parse(inside(['python3', '-c', script])) as Record<string, string>
  const pinned = readFileSync('sandbox/rootfs/requirements.txt', 'utf8')
  const names = readFileSync('sandbox/rootfs/requirements.in', 'utf8').trim().split('\n')
  expect(names).toHaveLength(12)
  for (const name of names) expect(pinned).toContain(`\n${name}==${installed[name]} `)
})

test.skipIf(whyNot)(`what people have installed on this machine is not there${skipped}`, () => {
  const script = `
import glob, os, pwd
print([path for path in ('/home', '/root', '/var', '/srv', '/usr/local', '/usr/src', '/etc/shadow', '/etc/apt') if os.path.exists(path)])
print([name for path in glob.glob('/usr/lib*/python3*/*-packages') + glob.glob('/opt/python/lib/python3*/*-packages') for name in os.listdir(path)])
print([entry.pw_name for entry in pwd.getpwall()])`
  expect(inside(['python3', '-c', script]).trim().split('\n')).toEqual([
    '[]',
    '[]',
    "['root', 'sandbox', 'nobody']",
  ])
})

test.skipIf(whyNot)(`the list of fonts is used as it is${skipped}`, () => {
  const script = `
import glob, os, shutil
shutil.copytree('/opt/wheels/.matplotlib', '/tmp/matplotlib')
[kept] = glob.glob('/tmp/matplotlib/fontlist-*.json')
os.utime(kept, (0, 0))
os.environ['MPLCONFIGDIR'] = '/tmp/matplotlib'
from matplotlib import font_manager
print(os.stat(kept).st_mtime, len(os.listdir('/tmp/matplotlib')))
print(all(os.path.isfile(font.fname) for font in font_manager.fontManager.ttflist))`
  expect(inside(['python3', '-c', script])).toBe('0.0 1\nTrue\n')
})

test.skipIf(whyNot)(
  `nothing is compiled again, and no byte code names this machine${skipped}`,
  () => {
    const files = globSync('**/*.pyc', { cwd: wheels }).map((name) => join(wheels, name))
    expect(files.length).toBeGreaterThan(1000)
    for (const file of files) {
      const code = readFileSync(file)
      // PEP 552: bit 0 means by hash, bit 1 that the source is to be looked at.
      expect(code.readUInt32LE(4)).toBe(1)
      expect(code.includes(process.env.LONGRUN_CACHE ?? '?')).toBe(false)
    }
  },
)

test.skipIf(whyNot)(`it takes less than a gigabyte${skipped}`, () => {
  const { stdout } = spawnSync('du', ['-sm', wheels], { encoding: 'utf8' })
  expect(Number.parseInt(stdout, 10)).toBeLessThan(1000)
})

function hostPathOf(root: SandboxRoot, path: string): string {
  return root.binds.find(({ to }) => to === path)?.from ?? ''
}

function whyNoBubblewrap(): string {
  if (built.state !== 'ready') return built.state === 'failed' ? built.why : 'it is being built'
  if (!built.bwrapPath) return 'there is no bubblewrap'
  const { status, stderr } = spawnSync(built.bwrapPath, bubblewrap(built.root, ['true']))
  return status === 0 ? '' : `bubblewrap does not work here: ${String(stderr).trim()}`
}

function inside(command: string[]): string {
  if (built.state !== 'ready' || !built.bwrapPath) throw new Error('there is no root')
  const { stdout, stderr } = spawnSync(built.bwrapPath, bubblewrap(built.root, command), {
    encoding: 'utf8',
  })
  expect(stderr).toBe('')
  return stdout
}

function args(line: string): string[] {
  return line.split(' ')
}

function bubblewrap(root: SandboxRoot, command: string[]): string[] {
  const env = { ...root.env, PATH: '/opt/python/bin:/usr/bin:/bin', MPLBACKEND: 'agg' }
  return [
    ...args('--unshare-all --die-with-parent --clearenv --cap-drop ALL'),
    ...root.binds.flatMap(({ from, to }) => ['--ro-bind', from, to]),
    ...root.symlinks.flatMap(({ target, path }) => ['--symlink', target, path]),
    ...Object.entries(env).flatMap(([name, value]) => ['--setenv', name, value]),
    ...args('--proc /proc --tmpfs /tmp --dev /dev --uid 1000 --gid 1000'),
    ...command,
  ]
}

// ---------------------------------------------------------------- how it is built

test('two builders at once build once; the one that waits finds what the other made', async () => {
  using machine = fakeMachine()
  const first = machine.build([])
  await eventually(() => stateIn(machine.cache).state === 'building')
  const beside = machine.build([])
  expect((await beside.ended).output).toBe('another builder is at it\n')
  const waiting = machine.build(['--wait'])
  machine.let('install')
  expect(await waiting.ended).toMatchObject({ code: 0 })
  await first.ended
  expect(machine.installs()).toBe(1)
  expect(stateIn(machine.cache)).toMatchObject({
    state: 'ready',
    bwrapPath: join(machine.bin, 'bwrap'),
  })
})

test('what is built is only looked at, and stays ready meanwhile', async () => {
  using machine = fakeMachine()
  machine.let('install')
  await machine.build(['--wait']).ended
  const again = machine.build([])
  await eventually(() => again.output() !== '')
  expect(stateIn(machine.cache).state).toBe('ready')
  await again.ended
  expect(machine.installs()).toBe(1)
})

test('a killed builder takes its installer along, and the next one begins anew', async () => {
  using machine = fakeMachine()
  const first = machine.build([])
  const installer = await eventually(() => machine.installer())
  first.child.kill('SIGKILL')
  await first.ended
  await eventually(() => !isAlive(installer))
  expect(stateIn(machine.cache).state).not.toBe('ready')

  machine.let('install')
  expect(await machine.build(['--wait']).ended).toMatchObject({ code: 0 })
  expect(stateIn(machine.cache).state).toBe('ready')
  expect(machine.installs()).toBe(2)
  expect(readdirSync(machine.cache).filter((name) => name.startsWith('.new-'))).toEqual([])
})

test('a failed install is said with its reason and its remedy, and tried again', async () => {
  using machine = fakeMachine()
  machine.let('fail')
  const { code, output } = await machine.build(['--wait']).ended
  expect(code).toBe(1)
  expect(output).toContain('the index is closed')
  expect(stateIn(machine.cache)).toMatchObject({
    state: 'failed',
    why: expect.stringContaining('the index is closed'),
    remedy: expect.stringContaining('PIP_INDEX_URL'),
  })
  machine.forbid('fail')
  machine.let('install')
  expect(await machine.build(['--wait']).ended).toMatchObject({ code: 0 })
  expect(stateIn(machine.cache).state).toBe('ready')
})

test.each([
  [{ release: '3.9.2' }, '3.9.2'],
  [{ release: '3.15.0' }, '3.15.0'],
  [{ implementation: 'pypy' }, 'pypy'],
  [{ libc: ['', ''] }, 'another C library'],
  [{ libc: ['glibc', '2.27'] }, 'glibc 2.27'],
  [{ machine: 'riscv64' }, 'riscv64'],
  [{ missing: ['ctypes'] }, '3.11.2 without ctypes'],
  [{ freeThreaded: true }, 'without a global lock'],
])('a Python with %j is refused in words', async (difference, words) => {
  using machine = fakeMachine(difference)
  const { code, output } = await machine.build(['--wait']).ended
  expect({ code, output }).toMatchObject({ code: 1, output: expect.stringContaining(words) })
  expect(stateIn(machine.cache)).toMatchObject({
    state: 'failed',
    remedy: expect.stringMatching(/apt install python3.*SANDBOX_IMAGE/),
  })
})

test('with a root of its own only bubblewrap is looked for', async () => {
  using machine = fakeMachine({ release: '2.7.18' })
  const { code } = await machine.build(['--wait'], { SANDBOX_ROOT: '/tree' }).ended
  expect(code).toBe(0)
  expect(machine.installs()).toBe(0)
  expect(readStatus(statusFile(machine.cache))).toEqual({
    state: 'ready',
    bwrapPath: join(machine.bin, 'bwrap'),
  })
})

test('npm start does not wait for it, and it goes on when the server has ended', async () => {
  using dir = scratchDir()
  for (const name of ['local', 'bin', 'cache', 'node_modules']) mkdirSync(join(dir.path, name))
  copyFileSync('local/setup.mjs', join(dir.path, 'local', 'setup.mjs'))
  writeFileSync(join(dir.path, 'package-lock.json'), JSON.stringify({ packages: { '': {} } }))
  writeFileSync(join(dir.path, 'node_modules', '.package-lock.json'), '{"packages":{}}')
  const started = join(dir.path, 'builder.pid')
  writeFileSync(
    join(dir.path, 'local', 'sandbox-root.ts'),
    `import { writeFileSync } from 'node:fs'
     writeFileSync(${JSON.stringify(started)}, String(process.pid))
     console.log('the state can be read')
     setInterval(() => {}, 1000)`,
  )
  const start = (provider: string) =>
    spawnSync(
      process.execPath,
      [join(dir.path, 'local/setup.mjs'), '--for', 'start', '--', 'echo', 'up'],
      {
        encoding: 'utf8',
        env: {
          ...process.env,
          XDG_CACHE_HOME: join(dir.path, 'cache'),
          TEMPORAL_ADDRESS: '127.0.0.1:1',
          CHROMA_URL: 'http://127.0.0.1:1',
          SANDBOX_PROVIDER: provider,
        },
      },
    )
  expect(start('none')).toMatchObject({ status: 0, stdout: 'up\n' })
  expect(existsSync(started)).toBe(false)

  expect(start('auto')).toMatchObject({ status: 0, stdout: 'up\n' })
  const pid = Number(readFileSync(started, 'utf8'))
  const isAtWork = isAlive(pid)
  process.kill(pid, 'SIGKILL')
  expect(isAtWork).toBe(true)
})

/** A machine with a Python that describes itself as it is told, and a pip that waits until it is let go on. */
function fakeMachine(difference: object = {}) {
  const dir = scratchDir()
  const bin = join(dir.path, 'bin')
  const cache = join(dir.path, 'cache')
  mkdirSync(bin)
  symlinkSync('/bin/sh', join(bin, 'sh'))
  const program = (name: string, script: string) => {
    writeFileSync(join(bin, name), `#!/bin/sh\n${script}\n`)
    chmodSync(join(bin, name), 0o755)
  }
  const described = {
    implementation: 'cpython',
    release: '3.11.2',
    libc: ['glibc', '2.36'],
    machine: 'x86_64',
    bits: 64,
    freeThreaded: false,
    missing: [],
    executable: join(bin, 'python3'),
    prefix: '/usr',
    certificates: null,
    ...difference,
  }
  writeFileSync(join(dir.path, 'described'), JSON.stringify(described))
  program('bwrap', 'echo bubblewrap 1.0')
  program(
    'python3',
    `case "$*" in
     *--version*) exit ;;
     *sys.implementation*) exec /bin/cat ${dir.path}/described ;;
     *finish.py*) exit ;;
     esac
     echo $$ >> ${dir.path}/installs
     while ! [ -e ${dir.path}/install ]; do
       [ -e ${dir.path}/fail ] && { echo the index is closed >&2; exit 1; }
       /bin/sleep 0.05
     done
     while [ $# -gt 0 ]; do [ "$1" = --target ] && /bin/mkdir -p "$2"; shift; done`,
  )
  const installs = () =>
    existsSync(join(dir.path, 'installs'))
      ? readFileSync(join(dir.path, 'installs'), 'utf8').trim().split('\n').map(Number)
      : []
  const started: ReturnType<typeof spawn>[] = []
  return {
    bin,
    cache,
    installs: () => installs().length,
    installer: () => installs().at(-1),
    let: (what: 'install' | 'fail') => writeFileSync(join(dir.path, what), ''),
    forbid: (what: 'fail') => spawnSync('rm', [join(dir.path, what)]),
    build(args: string[], env: Record<string, string> = {}) {
      const child = spawn(process.execPath, [builder, ...args], {
        env: { HOME: dir.path, PATH: bin, LONGRUN_CACHE: cache, ...env },
      })
      started.push(child)
      let output = ''
      child.stdout.on('data', (chunk) => (output += chunk))
      child.stderr.on('data', (chunk) => (output += chunk))
      const ended = once(child, 'close').then(([code]) => ({ code: code as unknown, output }))
      return { child, ended, output: () => output }
    },
    [Symbol.dispose]() {
      for (const child of started) child.kill('SIGKILL')
      dir[Symbol.dispose]()
    },
  }
}
