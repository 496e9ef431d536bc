import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { afterEach, beforeEach, expect, test } from 'vitest'

import { openCgroups } from '../../sandbox/cgroup.ts'
import { TEST_LIMITS } from './support.ts'

// A tree of plain files in the place of the kernel's: which files are written, and what is in them. That the kernel heeds
// them is seen in the other tests of the sandbox, for the version of this machine.
let dir: string
let procDir: string

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'longrun-cgroup-'))
  procDir = join(dir, 'proc')
  mkdirSync(procDir)
})
afterEach(() => rmSync(dir, { recursive: true, force: true }))

function group(path: string, controllers: string): string {
  const full = join(dir, path)
  mkdirSync(full, { recursive: true })
  writeFileSync(join(full, 'cgroup.controllers'), controllers)
  writeFileSync(join(full, 'cgroup.subtree_control'), controllers)
  writeFileSync(join(full, 'cgroup.procs'), '')
  return full
}

function unified(own: string): void {
  writeFileSync(join(procDir, 'mountinfo'), `30 1 0:26 / ${dir} rw - cgroup2 cgroup2 rw\n`)
  writeFileSync(join(procDir, 'cgroup'), `0::${own}\n`)
}

const create = () => openCgroups({ name: 'longrun-x', procDir }).create('one', TEST_LIMITS)

test('without control groups there is none', () => {
  expect(create()).toBe(undefined)
})

test('version 2 without the controllers is none', () => {
  unified('/a')
  group('', 'memory pids')
  group('a', 'memory pids')
  expect(create()).toBe(undefined)
})

test('version 2 writes all bounds, in a group below the highest that is delegated', () => {
  unified('/user/app')
  group('', 'cpuset cpu io memory pids')
  rmSync(join(dir, 'cgroup.procs')) // not ours to divide
  group('user', 'cpu memory pids')
  group('user/app', 'cpu memory pids')
  // The kernel makes these files with the directory; a tree of plain files has them beforehand.
  group('user/longrun-x', 'cpu memory pids')
  const cgroup = create()
  const one = join(dir, 'user/longrun-x/one')
  expect(cgroup?.joinFiles).toEqual([join(one, 'own/cgroup.procs')])
  const bound = (file: string) => readFileSync(join(one, 'code', file), 'utf8')
  expect(bound('memory.max')).toBe(String(TEST_LIMITS.memoryBytes))
  expect(bound('memory.swap.max')).toBe('0')
  expect(bound('pids.max')).toBe(String(TEST_LIMITS.processes))
  expect(bound('cpu.max')).toBe('100000 100000')
  writeFileSync(join(one, 'code/memory.events'), 'low 0\noom 3\noom_kill 2\noom_group_kill 0\n')
  expect(cgroup?.oomKills()).toBe(2)
})

test('version 1 writes each bound in the hierarchy of its controller', () => {
  const mounts = ['memory', 'pids', 'cpu,cpuacct'].map((controllers, index) => {
    const at = join(dir, controllers)
    mkdirSync(join(at, 'mine'), { recursive: true })
    return `${30 + index} 1 0:${26 + index} / ${at} rw - cgroup cgroup rw,${controllers}`
  })
  writeFileSync(join(procDir, 'mountinfo'), mounts.join('\n'))
  writeFileSync(join(procDir, 'cgroup'), '3:memory:/mine\n2:pids:/mine\n1:cpu,cpuacct:/not-there\n')
  const cgroup = create()
  const code = (base: string) => join(dir, base, 'longrun-x/one/code')
  const bound = (path: string) => readFileSync(path, 'utf8')
  const { memoryBytes, processes } = TEST_LIMITS
  expect(bound(join(code('memory/mine'), 'memory.limit_in_bytes'))).toBe(String(memoryBytes))
  expect(bound(join(code('pids/mine'), 'pids.max'))).toBe(String(processes))
  expect(bound(join(code('cpu,cpuacct'), 'cpu.cfs_quota_us'))).toBe('100000')
  expect(cgroup?.joinFiles).toHaveLength(3)
  writeFileSync(join(code('memory/mine'), 'memory.oom_control'), 'under_oom 0\noom_kill 1\n')
  expect(cgroup?.oomKills()).toBe(1)
})

test('the groups of this machine, where it lets us make some, go with their sandbox', async () => {
  const cgroups = openCgroups({ name: `longrun-test-${process.pid}` })
  const cgroup = cgroups.create('one', TEST_LIMITS)
  if (!cgroup) return
  expect(cgroup.groups.every((path) => existsSync(path))).toBe(true)
  expect(cgroup.confine(2 ** 30)).toBe(false)
  await cgroups.reap()
  expect(cgroup.groups.some((path) => existsSync(path))).toBe(false)
})
