import { spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { eventually, isAlive, scratchDir } from './scratch.ts'

const setupFile = fileURLToPath(new URL('../../local/setup.mjs', import.meta.url))

// A checkout whose npm only writes down that it was called, and how.
function fakeProject(dir: string, npm = '') {
  const lock = { lockfileVersion: 3, packages: { '': {}, 'node_modules/x': { version: '1.0.0' } } }
  for (const name of ['local', 'bin', 'cache']) mkdirSync(join(dir, name))
  copyFileSync(setupFile, join(dir, 'local', 'setup.mjs'))
  writeFileSync(join(dir, 'package-lock.json'), JSON.stringify(lock))
  const script = `#!/bin/sh\necho "$@" >> ${dir}/calls\n${npm}\nmkdir -p node_modules\n`
  writeFileSync(join(dir, 'bin', 'npm'), script)
  chmodSync(join(dir, 'bin', 'npm'), 0o755)
}

function setUp(dir: string, args: string[], nodeFlags: string[] = []) {
  const env = {
    ...process.env,
    PATH: `${join(dir, 'bin')}:${process.env.PATH}`,
    XDG_CACHE_HOME: join(dir, 'cache'),
    TEMPORAL_ADDRESS: '127.0.0.1:1',
    CHROMA_URL: 'http://127.0.0.1:1',
  }
  const main = join(dir, 'local', 'setup.mjs')
  const child = spawn(process.execPath, [...nodeFlags, main, ...args], { env })
  let output = ''
  child.stdout.on('data', (chunk) => (output += chunk))
  child.stderr.on('data', (chunk) => (output += chunk))
  const ended = once(child, 'close').then(([code, signal]) => ({ code, signal, output }))
  return { child, ended, output: () => output }
}

const check = (...command: string[]) => ['--for', 'check', '--', ...command]
const callsOf = (dir: string) =>
  existsSync(join(dir, 'calls')) ? readFileSync(join(dir, 'calls'), 'utf8').trim().split('\n') : []

test('packages are installed once for a lock file, and again when it changes', async () => {
  using dir = scratchDir()
  fakeProject(dir.path)
  await setUp(dir.path, check('true')).ended
  await setUp(dir.path, check('true')).ended
  expect(callsOf(dir.path)).toEqual([expect.stringMatching(/^ci /)])

  writeFileSync(join(dir.path, 'package-lock.json'), JSON.stringify({ packages: { '': {} } }))
  await setUp(dir.path, check('true')).ended
  expect(callsOf(dir.path)).toHaveLength(2)
})

test('two set-ups at once install once', async () => {
  using dir = scratchDir()
  fakeProject(dir.path, 'sleep 0.5')
  const both = await Promise.all([1, 2].map(() => setUp(dir.path, check('echo', 'done')).ended))
  expect(both.map(({ code }) => code)).toEqual([0, 0])
  expect(callsOf(dir.path)).toHaveLength(1)
})

test('what a killed set-up was busy with is done again', async () => {
  using dir = scratchDir()
  fakeProject(dir.path, '[ -e slow ] || { touch slow; echo $$ > npm.pid; exec sleep 1000; }')
  const first = setUp(dir.path, check('true'))
  const pid = await eventually(() => idIn(join(dir.path, 'npm.pid')))
  first.child.kill('SIGKILL')
  await first.ended
  await eventually(() => !isAlive(pid))

  const { code } = await setUp(dir.path, check('true')).ended
  expect(code).toBe(0)
  expect(callsOf(dir.path)).toHaveLength(2)
})

test('a signal ends the set-up together with what it has started', async () => {
  using dir = scratchDir()
  fakeProject(dir.path, 'echo $$ > npm.pid; exec sleep 1000')
  const setup = setUp(dir.path, check('echo', 'never'))
  const pid = await eventually(() => idIn(join(dir.path, 'npm.pid')))
  setup.child.kill('SIGINT')
  expect(await setup.ended).toEqual({ code: 130, signal: null, output: '' })
  expect(isAlive(pid)).toBe(false)
})

test('a failed install is said with its reason, and the command does not run', async () => {
  using dir = scratchDir()
  fakeProject(dir.path, 'echo the registry is closed >&2; exit 7')
  const { code, output } = await setUp(dir.path, check('echo', 'never')).ended
  expect(code).toBe(1)
  expect(output).toMatch(/npm ci failed \(7\):\nthe registry is closed/)
  expect(output).not.toContain('never')
})

test("the command's exit code, arguments and signals are its own", async () => {
  using dir = scratchDir()
  fakeProject(dir.path)
  expect(await setUp(dir.path, check('sh', '-c', 'exit 9')).ended).toMatchObject({ code: 9 })
  const echoed = await setUp(dir.path, check('printf', '%s|', 'a b', '$HOME', '')).ended
  expect(echoed.output).toBe('a b|$HOME||')

  const script = `trap 'echo asked to stop; exit 5' TERM; echo up; while :; do sleep 0.05; done`
  const running = setUp(dir.path, check('sh', '-c', script))
  await eventually(() => running.output().includes('up'))
  running.child.kill('SIGTERM')
  expect(await running.ended).toMatchObject({ code: 5, output: 'up\nasked to stop\n' })
})

test('the command gets what was found, and nothing that npm says about itself', async () => {
  using dir = scratchDir()
  fakeProject(dir.path)
  const { output } = await setUp(dir.path, check('env')).ended
  expect(output).toContain(`LONGRUN_CACHE=${join(dir.path, 'cache', 'longrun')}`)
  expect(output).not.toMatch(/^npm_(package|lifecycle)/m)
})

test('a Temporal CLI that does not run is said', async () => {
  using dir = scratchDir()
  fakeProject(dir.path)
  const args = ['TEMPORAL_ADDRESS=', 'TEMPORAL_CLI_PATH=/nonexistent/temporal']
  const setup = [process.execPath, join(dir.path, 'local', 'setup.mjs'), '--for', 'start', '--']
  const outer = setUp(dir.path, check('env', ...args, ...setup, 'echo', 'never'))
  const { code, output } = await outer.ended
  expect(code).toBe(1)
  expect(output.trim()).toBe(
    'TEMPORAL_CLI_PATH is /nonexistent/temporal, which does not run as the Temporal CLI.',
  )
})

// As on a Node that cannot become another program.
const OLD = ['--import', 'data:text/javascript,process.execve=undefined']

test('under an older Node the command has its own exit code and gets signals too', async () => {
  using dir = scratchDir()
  fakeProject(dir.path)
  const ended = setUp(dir.path, check('sh', '-c', 'exit 9'), OLD).ended
  expect(await ended).toMatchObject({ code: 9 })

  const script = `trap 'echo asked to stop; exit 5' TERM; echo up; while :; do sleep 0.05; done`
  const running = setUp(dir.path, check('sh', '-c', script), OLD)
  await eventually(() => running.output().includes('up'))
  running.child.kill('SIGTERM')
  expect(await running.ended).toMatchObject({ code: 5, output: 'up\nasked to stop\n' })
})

test('under an older Node a killed set-up does not leave its command behind', async () => {
  using dir = scratchDir()
  fakeProject(dir.path)
  const server = `
    process.on('disconnect', () => { console.log('alone', process.env.LONGRUN_SUPERVISED); process.exit() })
    setInterval(() => {}, 1000)
    console.log('up')`
  const started = ['--for', 'start', '--', 'node', '-e', server]
  const script = `trap 'echo alone; exit' TERM; echo up; while :; do sleep 0.05; done`
  for (const command of [started, check('sh', '-c', script)]) {
    const running = setUp(dir.path, command, OLD)
    await eventually(() => running.output().includes('up'))
    running.child.kill('SIGKILL')
    // The output is closed when the command has ended too.
    expect((await running.ended).output).toMatch(/^up\nalone/)
  }
})

test('a wrong use is answered with the right one', async () => {
  using dir = scratchDir()
  fakeProject(dir.path)
  const { code, output } = await setUp(dir.path, ['--for', 'fun', '--', 'true']).ended
  expect({ code, output }).toMatchObject({ code: 1, output: expect.stringContaining('Usage:') })
})

function idIn(file: string) {
  return existsSync(file) ? Number(readFileSync(file, 'utf8')) || undefined : undefined
}
