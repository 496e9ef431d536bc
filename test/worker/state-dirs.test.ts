import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, readFileSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

import { expect, test } from 'vitest'

import { birthOf, reapSandboxes } from '../../sandbox/index.ts'
import { makeStateDir, removeDeadStateDirs } from '../../worker/state-dirs.ts'
import { createLogger } from '../../log.ts'
import { scratchDir } from '../local/scratch.ts'
import { testRoot } from '../sandbox/support-providers.ts'

const { root } = testRoot()

async function removed(dir: string): Promise<string[]> {
  const reaped: string[] = []
  await removeDeadStateDirs(dir, async (dead) => {
    expect(existsSync(dead)).toBe(true)
    await reapSandboxes({ root, stateDir: dead, log: createLogger('silent') })
    reaped.push(dead)
  })
  expect(reaped.filter((dead) => existsSync(dead))).toEqual([])
  return reaped
}

const ownerIn = (path: string) => JSON.parse(readFileSync(join(path, 'owner'), 'utf8')) as object
const longAgo = () => new Date(Date.now() - 2 * 3600_000)

test('the directory of a process that lives stays, and goes when it is disposed', async () => {
  using dir = scratchDir()
  const own = await makeStateDir(dir.path, 'own')
  expect(await removed(dir.path)).toEqual([])
  await own[Symbol.asyncDispose]()
  expect(existsSync(own.path)).toBe(false)
})

test('the directory of a process that has died is reaped and removed', async () => {
  using dir = scratchDir()
  await using own = await makeStateDir(dir.path, 'own')
  const child = spawn('sleep', ['60'])
  const pid = child.pid ?? 0
  const owner = ownerIn(own.path)
  const other = join(dir.path, 'other')
  mkdirSync(other)
  writeFileSync(join(other, 'owner'), JSON.stringify({ ...owner, pid, birth: await birthOf(pid) }))
  expect(await removed(dir.path)).toEqual([])
  child.kill('SIGKILL')
  await once(child, 'exit')
  expect(await removed(dir.path)).toEqual([other])
})

test('a process of another container counts as dead when it has given no sign for an hour', async () => {
  using dir = scratchDir()
  const other = join(dir.path, 'other')
  const owner = join(other, 'owner')
  await using own = await makeStateDir(dir.path, 'own')
  mkdirSync(other)
  writeFileSync(owner, JSON.stringify({ ...ownerIn(own.path), pid: 1, namespace: 'pid:[1]' }))
  expect(await removed(dir.path)).toEqual([])
  utimesSync(owner, longAgo(), longAgo())
  expect(await removed(dir.path)).toEqual([other])
})

test('a process of another machine is not looked for among ours, though namespaces have the same name there', async () => {
  using dir = scratchDir()
  await using own = await makeStateDir(dir.path, 'own')
  const other = join(dir.path, 'other')
  const owner = join(other, 'owner')
  mkdirSync(other)
  const theirs = { ...ownerIn(own.path), pid: 1, birth: 'there 1', boot: 'there' }
  writeFileSync(owner, JSON.stringify(theirs))
  expect(await removed(dir.path)).toEqual([])
  utimesSync(owner, longAgo(), longAgo())
  expect(await removed(dir.path)).toEqual([other])
})

test('a process of ours that lives has its directory, for however long it has given no sign', async () => {
  using dir = scratchDir()
  await using own = await makeStateDir(dir.path, 'own')
  utimesSync(join(own.path, 'owner'), longAgo(), longAgo())
  expect(await removed(dir.path)).toEqual([])
})

test('a directory that cannot be removed does not keep others from being removed', async () => {
  using dir = scratchDir()
  const names = ['a', 'b', 'c']
  for (const name of names) {
    mkdirSync(join(dir.path, name))
    utimesSync(join(dir.path, name), longAgo(), longAgo())
  }
  const warnings: string[] = []
  const log = Object.assign(createLogger('silent'), {
    warn: ({ stateDir }: { stateDir: string }) => warnings.push(stateDir),
  })
  // Nothing is removed below what a directory may not be opened by: a name that is too long.
  const bad = join(dir.path, 'x'.repeat(300))
  await removeDeadStateDirs(dir.path, (dead) =>
    reapSandboxes({ root, log, stateDir: dead.endsWith('/a') ? bad : dead }),
  )
  expect(warnings).toEqual([bad])
  expect(names.filter((name) => existsSync(join(dir.path, name)))).toEqual(['a'])
})

test('a directory that is just being made stays', async () => {
  using dir = scratchDir()
  mkdirSync(join(dir.path, 'new'))
  expect(await removed(dir.path)).toEqual([])
})
