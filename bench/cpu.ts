import { readdirSync, readFileSync } from 'node:fs'

/** CPU that processes have used so far, in milliseconds, by the part of us that they are. */
export type CpuTimes = Map<string, number>

/** Linux counts CPU time in ticks of 10 ms, whatever its kernel was built with. */
const tickMs = 10

/**
 * The CPU of a server and of what it has started, from /proc; empty where there is none. What ended in the meantime is
 * counted with the process that waited for it.
 */
export function cpuOf(server: number): CpuTimes {
  const processes = readProcesses()
  const used: CpuTimes = new Map()
  const add = (part: string, ms: number): void => void used.set(part, (used.get(part) ?? 0) + ms)
  const visit = (pid: number): void => {
    for (const child of processes.filter(({ parent }) => parent === pid)) {
      add(child.name, child.ownMs + child.endedMs)
      visit(child.pid)
    }
  }
  const own = processes.find(({ pid }) => pid === server)
  if (own) add('node', own.ownMs)
  visit(server)
  return used
}

/** What all programs of the machine have used, in milliseconds. */
export function cpuOfMachine(): number {
  const [user = 0, nice = 0, system = 0, , , irq = 0, softIrq = 0] = read('/proc/stat')
    .slice(0, 200)
    .split(/\s+/)
    .slice(1, 8)
    .map(Number)
  return (user + nice + system + irq + softIrq) * tickMs
}

/** The CPU of one process by the names of its threads. */
export function threadsOf(pid: number): CpuTimes {
  const used: CpuTimes = new Map()
  for (const task of list(`/proc/${pid}/task`)) {
    const stat = parseStat(read(`/proc/${pid}/task/${task}/stat`))
    if (!stat) continue
    const name = task === String(pid) ? 'main thread' : stat.name
    used.set(name, (used.get(name) ?? 0) + stat.ownMs)
  }
  return used
}

export function since(before: CpuTimes, after: CpuTimes): CpuTimes {
  return new Map([...after].map(([name, ms]) => [name, ms - (before.get(name) ?? 0)]))
}

function readProcesses() {
  return list('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map((pid) => parseStat(read(`/proc/${pid}/stat`)))
    .filter((stat) => stat !== undefined)
}

function parseStat(text: string) {
  const [, pid, name, rest] = /^(\d+) \((.*)\) (.*)$/s.exec(text) ?? []
  if (!pid || !name || !rest) return undefined
  const fields = rest.split(' ').map(Number)
  const [parent = 0] = fields.slice(1)
  const [user = 0, system = 0, endedUser = 0, endedSystem = 0] = fields.slice(11)
  return {
    pid: Number(pid),
    name,
    parent,
    ownMs: (user + system) * tickMs,
    endedMs: (endedUser + endedSystem) * tickMs,
  }
}

function list(path: string): string[] {
  try {
    return readdirSync(path)
  } catch {
    return [] // not Linux, or it has just ended
  }
}

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return ''
  }
}
