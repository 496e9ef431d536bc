import {
  accessSync,
  constants,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

import type { SandboxLimits } from './provider.ts'

/** Bounds that hold for all processes of a sandbox together, where this process may set them. */
export interface Cgroups {
  /** Undefined where there is no place to make one: only limits per process hold then. */
  create(id: string, limits: SandboxLimits): Cgroup | undefined
  /** Kills what is in groups of this name, and removes them. */
  reap(): Promise<void>
  /** The same for groups of a sandbox that was made by a process in another place of the hierarchy. */
  remove(groups: string[]): Promise<void>
}

export interface Cgroup {
  /** Its directories, one for each hierarchy. */
  groups: string[]
  /** A process that writes its id into each of them is in, but for the bounds. */
  joinFiles: string[]
  /** Puts a process under the bounds, found by its id in the innermost namespace. False where there is none. */
  confine: (pidInside: number) => boolean
  oomKills: () => number
  kill(): void
  /** Once its processes have ended; waits for that a while. */
  remove(): Promise<void>
}

export interface CgroupsOptions {
  /** The groups of one user of this code, of all groups on the machine. */
  name: string
  /** Where the kernel says what is mounted and in which groups this process is. */
  procDir?: string
}

/** A sandbox has two groups: for what runs strangers' code, with the bounds, and for what looks after it. */
const CODE = 'code'
const OWN = 'own'
const PROCESSES = 'cgroup.procs'
const CPU_PERIOD_US = 100_000
const CONTROLLERS = ['memory', 'pids', 'cpu'] as const

type Place = {
  parent: string
  /** Makes `parent`, which goes whenever there is no sandbox. */
  prepare: () => boolean
  settings: (limits: SandboxLimits) => Setting[]
}
/** `optional`: kernels without swap accounting lack it. */
type Setting = { file: string; value: string; optional?: boolean }

export function openCgroups({ name, procDir = '/proc/self' }: CgroupsOptions): Cgroups {
  const places = findPlaces(procDir, name)

  return {
    create(id, limits) {
      if (places.length === 0) return undefined
      const dirs = places.map(({ parent }) => join(parent, id))
      const own = dirs.map((dir) => join(dir, OWN))
      const code = dirs.map((dir) => join(dir, CODE))
      try {
        for (const [index, { prepare, settings }] of places.entries()) {
          prepare()
          mkdirSync(dirs[index]!)
          enableBelow(dirs[index]!)
          mkdirSync(own[index]!)
          mkdirSync(code[index]!)
          for (const setting of settings(limits)) applySetting(code[index]!, setting)
        }
      } catch {
        for (const dir of [...own, ...code, ...dirs]) tryRemove(dir)
        return undefined
      }
      return {
        groups: dirs,
        joinFiles: own.map((dir) => join(dir, PROCESSES)),
        confine(pidInside) {
          const pid = pidsOf(own[0]!).find((pid) => innermostPidOf(pid) === pidInside)
          if (pid === undefined) return false
          return code.every((dir) => tryWrite(join(dir, PROCESSES), String(pid)))
        },
        oomKills: countOomKills(code),
        kill: () => [...code, ...own].forEach(killAll),
        remove: async () => {
          await Promise.all(dirs.map(remove))
          for (const { parent } of places) tryRemove(parent)
        },
      }
    },
    async reap() {
      for (const { parent } of places) {
        for (const entry of readEntries(parent)) {
          await remove(join(parent, entry))
        }
        tryRemove(parent)
      }
    },
    remove: async (groups) => {
      await Promise.all(groups.map(remove))
      for (const group of groups) tryRemove(dirname(group))
    },
  }
}

/** Where groups can be made: one hierarchy for all controllers (version 2), or one for each (version 1). */
function findPlaces(procDir: string, name: string): Place[] {
  const mounts = readMounts(procDir)
  const own = readOwnGroups(procDir)
  return findUnified(mounts, own, name) ?? findSeparate(mounts, own, name) ?? []
}

type Mount = { root: string; at: string; type: string; options: string[] }

function readMounts(procDir: string): Mount[] {
  return readText(join(procDir, 'mountinfo'))
    .split('\n')
    .flatMap((line) => {
      const [before = '', after = ''] = line.split(' - ')
      const [, , , root, at] = before.split(' ')
      const [type, , options] = after.split(' ')
      if (root === undefined || at === undefined || !type?.startsWith('cgroup')) return []
      return [{ root, at, type, options: options?.split(',') ?? [] }]
    })
}

/** Lines of `hierarchy:controllers:path`; version 2 has no controllers there. */
function readOwnGroups(procDir: string): { controllers: string[]; path: string }[] {
  return readText(join(procDir, 'cgroup'))
    .split('\n')
    .flatMap((line) => {
      const [, controllers, ...path] = line.split(':')
      return controllers === undefined
        ? []
        : [{ controllers: controllers.split(','), path: path.join(':') }]
    })
}

type OwnGroups = ReturnType<typeof readOwnGroups>

/** The highest group that is ours to divide: where systemd delegates, that is far above the one this process is in. */
function findUnified(mounts: Mount[], own: OwnGroups, name: string): Place[] | undefined {
  const mount = mounts.find(({ type }) => type === 'cgroup2')
  const path = own.find(({ controllers }) => controllers[0] === '')?.path
  if (!mount || path === undefined) return undefined
  const ownDir = join(mount.at, relative(mount.root, path))
  const above: string[] = []
  for (let dir = ownDir; dir.startsWith(mount.at); dir = dirname(dir)) above.unshift(dir)
  for (const dir of above) {
    if (!isWritable(join(dir, PROCESSES)) || !delegates(dir)) continue
    const parent = join(dir, name)
    const prepare = () => tryMake(parent) && delegates(parent)
    if (!prepare()) continue
    tryRemove(parent)
    return [{ parent, prepare, settings: unifiedSettings }]
  }
  return undefined
}

function delegates(dir: string): boolean {
  const available = readText(join(dir, 'cgroup.controllers')).trim().split(' ')
  if (!CONTROLLERS.every((one) => available.includes(one))) return false
  const file = join(dir, 'cgroup.subtree_control')
  const enabled = readText(file).trim().split(' ')
  const missing = CONTROLLERS.filter((one) => !enabled.includes(one))
  if (missing.length === 0) return true
  try {
    writeFileSync(file, missing.map((one) => `+${one}`).join(' '))
    return true
  } catch {
    return false // processes are in it, or it is somebody else's
  }
}

function unifiedSettings(limits: SandboxLimits): Setting[] {
  return [
    { file: 'memory.max', value: String(limits.memoryBytes) },
    { file: 'memory.swap.max', value: '0', optional: true },
    { file: 'pids.max', value: String(limits.processes) },
    { file: 'cpu.max', value: `${quotaOf(limits)} ${CPU_PERIOD_US}` },
  ]
}

function findSeparate(mounts: Mount[], own: OwnGroups, name: string): Place[] | undefined {
  const places: Place[] = []
  for (const controller of CONTROLLERS) {
    const mount = mounts.find(
      ({ type, options }) => type === 'cgroup' && options.includes(controller),
    )
    const path = own.find(({ controllers }) => controllers.includes(controller))?.path
    if (!mount || path === undefined) return undefined
    const ownDir = join(mount.at, relative(mount.root, path))
    const parent = join(existsSync(ownDir) ? ownDir : mount.at, name)
    const prepare = () => tryMake(parent) && isWritable(parent)
    if (!prepare()) return undefined
    tryRemove(parent)
    places.push({ parent, prepare, settings: separateSettings[controller] })
  }
  return places
}

const separateSettings: Record<(typeof CONTROLLERS)[number], Place['settings']> = {
  memory: ({ memoryBytes }) => [
    { file: 'memory.limit_in_bytes', value: String(memoryBytes) },
    { file: 'memory.memsw.limit_in_bytes', value: String(memoryBytes), optional: true },
  ],
  pids: ({ processes }) => [{ file: 'pids.max', value: String(processes) }],
  cpu: (limits) => [
    { file: 'cpu.cfs_period_us', value: String(CPU_PERIOD_US) },
    { file: 'cpu.cfs_quota_us', value: String(quotaOf(limits)) },
  ],
}

function quotaOf({ cpus }: SandboxLimits): number {
  return Math.round(cpus * CPU_PERIOD_US)
}

function applySetting(dir: string, { file, value, optional }: Setting): void {
  try {
    writeFileSync(join(dir, file), value)
  } catch (error) {
    if (!optional) throw error
  }
}

/** It is asked twice for each cell, so that the file is looked for only once. */
function countOomKills(dirs: string[]): () => number {
  const files = dirs.flatMap((dir) => OOM_FILES.map((name) => join(dir, name)))
  let file: string | undefined
  return () => {
    file ??= files.find((path) => existsSync(path))
    return file === undefined ? 0 : oomKillsIn(readText(file))
  }
}

const OOM_FILES = ['memory.events', 'memory.oom_control']

function oomKillsIn(text: string): number {
  return Number(/^oom_kill (?<count>\d+)$/m.exec(text)?.groups?.['count'] ?? 0)
}

function killAll(dir: string): void {
  for (const pid of pidsOf(dir)) {
    try {
      process.kill(pid, 'SIGKILL')
    } catch {
      // It has ended.
    }
  }
}

function pidsOf(dir: string): number[] {
  return readText(join(dir, PROCESSES)).split('\n').filter(Boolean).map(Number)
}

/** `NSpid:` has the number of a process in each of its namespaces, the innermost last. */
function innermostPidOf(pid: number): number | undefined {
  const line = /^NSpid:(?<pids>.*)$/m.exec(readText(`/proc/${pid}/status`))
  return line ? Number(line.groups?.['pids']?.trim().split(/\s+/).at(-1)) : undefined
}

/** Version 2 hands controllers down step by step; version 1 has no such file. */
function enableBelow(dir: string): void {
  const file = join(dir, 'cgroup.subtree_control')
  if (existsSync(file)) writeFileSync(file, CONTROLLERS.map((one) => `+${one}`).join(' '))
}

const REMOVE_TRIES = 100
const REMOVE_PAUSE_MS = 20

async function remove(dir: string): Promise<void> {
  const groups = [join(dir, CODE), join(dir, OWN), dir]
  const isGone = (): boolean => groups.map((group) => tryRemove(group)).every(Boolean)
  for (let tries = 0; tries < REMOVE_TRIES && !isGone(); tries += 1) {
    for (const group of groups) killAll(group)
    await sleep(REMOVE_PAUSE_MS)
  }
}

function tryRemove(dir: string): boolean {
  try {
    rmdirSync(dir)
    return true
  } catch {
    return !existsSync(dir)
  }
}

function tryMake(dir: string): boolean {
  try {
    mkdirSync(dir, { recursive: true })
    return true
  } catch {
    return false
  }
}

function tryWrite(path: string, text: string): boolean {
  try {
    writeFileSync(path, text)
    return true
  } catch {
    return false // the process has just ended
  }
}

function isWritable(path: string): boolean {
  try {
    accessSync(path, constants.W_OK)
    return true
  } catch {
    return false
  }
}

function readEntries(dir: string): string[] {
  try {
    return readdirSync(dir, { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map((entry) => entry.name)
  } catch {
    return []
  }
}

function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return ''
  }
}
