import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, utimesSync, writeFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'

import { expect, test } from 'vitest'

import { birthOf } from '../../sandbox/index.ts'
import { makeStateDir, removeDeadStateDirs } from '../../worker/state-dirs.ts'
import { scratchDir } from '../local/scratch.ts'

async function removed(dir: string): Promise<string[]> {
  const reaped: string[] = []
  await removeDeadStateDirs(dir, async (dead) => {
    expect(existsSync(dead)).toBe(true)
    reaped.push(dead)
  })
  expect(reaped.filter((dead) => existsSync(dead))).toEqual([])
  return reaped
}

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
  const owner = JSON.parse(await readFile(join(own.path, 'owner'), 'utf8')) as object
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
  mkdirSync(other)
  writeFileSync(owner, JSON.stringify({ pid: 1, birth: 'then', namespace: 'pid:[1]' }))
  expect(await removed(dir.path)).toEqual([])
  const longAgo = new Date(Date.now() - 2 * 3600_000)
  utimesSync(owner, longAgo, longAgo)
  expect(await removed(dir.path)).toEqual([other])
})

test('a directory that is just being made stays', async () => {
  using dir = scratchDir()
  mkdirSync(join(dir.path, 'new'))
  expect(await removed(dir.path)).toEqual([])
})
