import { readFileSync } from 'node:fs'
import { join } from 'node:path'

import type { Container } from './docker-daemon.ts'

/** Counts what the kernel kills in a container: docker itself tells only of its first process. */
export interface OomCounter {
  /** Undefined until `attach`, and where the container's processes are not to be seen from here. */
  readOomKills: () => number | undefined
  /** Once the container runs. False where its processes are not of this machine, or not in this namespace. */
  attach: (container: Container) => boolean
}

export function openOomCounter(): OomCounter {
  let file: string | undefined
  return {
    readOomKills() {
      const count = /^oom_kill (?<count>\d+)$/m.exec(readText(file))?.groups?.['count']
      return count === undefined ? undefined : Number(count)
    },
    attach({ Id, State }) {
      const groups = readText(`/proc/${State.Pid}/cgroup`)
      if (!groups.includes(Id)) return false
      file = eventsFile(groups, readText('/proc/self/mountinfo'))
      return true
    },
  }
}

/** Lines of groups are `number:controllers:path`; version 2 has no controllers there. */
function eventsFile(groups: string, mounts: string): string | undefined {
  const separate = /^\d+:(?:[^:]*,)?memory(?:,[^:]*)?:(?<path>.*)$/m.exec(groups)?.groups?.['path']
  const unified = /^0::(?<path>.*)$/m.exec(groups)?.groups?.['path']
  const [path, type, file] =
    separate === undefined
      ? [unified, 'cgroup2', 'memory.events']
      : [separate, 'cgroup', 'memory.oom_control']
  const at = mounts
    .split('\n')
    .map((line) => line.split(' - '))
    .find(([, after]) => after?.startsWith(`${type} `) && isOfMemory(type, after))?.[0]
    ?.split(' ')[4]
  return at !== undefined && path !== undefined ? join(at, path, file) : undefined
}

/** The options of a mount come last. */
function isOfMemory(type: string, after: string): boolean {
  return type === 'cgroup2' || /[ ,]memory(?:,|$)/.test(after)
}

function readText(path: string | undefined): string {
  try {
    return path === undefined ? '' : readFileSync(path, 'utf8')
  } catch {
    return ''
  }
}
