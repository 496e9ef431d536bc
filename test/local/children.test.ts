import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { z } from 'zod'
import { claimPort, SYSTEM_PATH, type ChildSpec } from '../../local/children.ts'
import { eventually, isAlive, quietChildren, scratchDir } from './scratch.ts'

const Ids = z.object({ idler: z.number(), lifeline: z.number() })

function shell(script: string, more: Partial<ChildSpec> = {}): ChildSpec {
  return {
    name: 'child',
    command: 'sh',
    args: ['-c', script],
    env: { PATH: SYSTEM_PATH },
    stop: 'SIGTERM',
    graceMs: 2_000,
    ready: () => Promise.resolve(),
    restart: true,
    ...more,
  }
}

const linesOf = (path: string) =>
  existsSync(path) ? readFileSync(path, 'utf8').trimEnd().split('\n') : []

async function startParent(dataDir: string) {
  const main = fileURLToPath(new URL('parent-main.ts', import.meta.url))
  const parent = spawn(process.execPath, [main, dataDir], { stdio: ['ignore', 'pipe', 'inherit'] })
  const [line] = await once(parent.stdout, 'data')
  const exited = once(parent, 'exit')
  return { ...Ids.parse(JSON.parse(String(line))), parent, exited }
}

test('a child that ends by itself is started again', async () => {
  using dir = scratchDir()
  await using children = await quietChildren(dir.path)
  const starts = join(dir.path, 'starts')
  await children.spawn(shell(`echo up >> ${starts}; sleep 0.1`))
  await eventually(() => linesOf(starts).length >= 3)
  expect(linesOf(starts)).toContain('up')
})

test('children are stopped in the reverse order of their start', async () => {
  using dir = scratchDir()
  const order = join(dir.path, 'order')
  {
    await using children = await quietChildren(dir.path)
    for (const name of ['first', 'second', 'third']) {
      const up = join(dir.path, name)
      const script = `trap 'echo ${name} >> ${order}; exit' TERM; touch ${up}; while :; do sleep 0.05; done`
      const ready = () => eventually(() => existsSync(up)).then(() => undefined)
      await children.spawn(shell(script, { name, ready }))
    }
  }
  expect(linesOf(order)).toEqual(['third', 'second', 'first'])
})

test('a child that ignores its signal is killed after the grace', async () => {
  using dir = scratchDir()
  const up = join(dir.path, 'up')
  const children = await quietChildren(dir.path)
  await children.spawn(
    shell(`trap '' TERM; echo $$ > ${up}; while :; do sleep 0.05; done`, {
      graceMs: 200,
      ready: () => eventually(() => linesOf(up).length > 0).then(() => undefined),
    }),
  )
  const pid = Number(linesOf(up)[0])
  await children[Symbol.asyncDispose]()
  expect(isAlive(pid)).toBe(false)
})

test('an end before the child was ready is an error that quotes its last words', async () => {
  using dir = scratchDir()
  await using children = await quietChildren(dir.path)
  const spec = shell('echo the disk is full >&2; exit 3', { ready: () => new Promise(() => {}) })
  await expect(children.spawn(spec)).rejects.toThrow(/exit code 3[^]*the disk is full/)
})

test('a child that never answers is given up in time, and stopped', async () => {
  using dir = scratchDir()
  await using children = await quietChildren(dir.path)
  const pidFile = join(dir.path, 'pid')
  const spec = shell(`echo $$ > ${pidFile}; exec sleep 1000`, {
    startTimeoutMs: 300,
    ready: () => new Promise(() => {}),
  })
  await expect(children.spawn(spec)).rejects.toThrow('no answer within 0.3 s')
  await eventually(() => !isAlive(Number(linesOf(pidFile)[0])))
})

test('a program that cannot be found is said', async () => {
  using dir = scratchDir()
  await using children = await quietChildren(dir.path)
  const spec = shell('', { command: '/nonexistent/program' })
  await expect(children.spawn(spec)).rejects.toThrow('/nonexistent/program')
})

test('a child does not outlive a parent that was killed', async () => {
  using dir = scratchDir()
  const { parent, exited, idler } = await startParent(dir.path)
  parent.kill('SIGKILL')
  await exited
  await eventually(() => !isAlive(idler), 2_000)
  expect(isAlive(idler)).toBe(false)
})

test('the next start ends what a killed parent and a killed lifeline left', async () => {
  using dir = scratchDir()
  const { parent, exited, idler, lifeline } = await startParent(dir.path)
  process.kill(lifeline, 'SIGKILL')
  parent.kill('SIGKILL')
  await exited
  expect(isAlive(idler)).toBe(true)

  await using _ = await quietChildren(dir.path)
  await eventually(() => !isAlive(idler), 1_000)
})

test('a pid file does not end a process that only has the same id', async () => {
  using dir = scratchDir()
  {
    await using _ = await quietChildren(dir.path)
  }
  const other = spawn('sleep', ['1000'])
  const entry = { pid: other.pid, born: 'in another life', stop: 'SIGKILL', graceMs: 0 }
  writeFileSync(join(dir.path, 'pids', 'old.pid'), JSON.stringify(entry))
  await using _ = await quietChildren(dir.path)
  expect(other.exitCode ?? other.signalCode).toBe(null)
  other.kill('SIGKILL')
})

test('two servers on one data directory say so', async () => {
  using dir = scratchDir()
  await using _ = await quietChildren(dir.path)
  await expect(quietChildren(dir.path)).rejects.toThrow(
    `Another server (process ${process.pid}) is using ${dir.path}`,
  )
})

test('a taken port is said together with the variable that changes it', async () => {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = z.object({ port: z.number() }).parse(server.address())
  const claim = claimPort({ port: address.port, part: 'Postgres', variable: 'POSTGRES_PORT' })
  await expect(claim).rejects.toThrow(
    new RegExp(`Port ${address.port}, which Postgres .* POSTGRES_PORT`),
  )
  server.close()
})

test('port 0 is any free port', async () => {
  expect(await claimPort({ port: 0, part: 'Chroma', variable: 'CHROMA_PORT' })).toBeGreaterThan(0)
})
