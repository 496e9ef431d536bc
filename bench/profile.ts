import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'

import { print, printTable } from './table.ts'

/** What V8 writes for `--cpu-prof`: times are microseconds of the clock that `nowMs` reads too. */
interface CpuProfile {
  nodes: ProfileNode[]
  samples: number[]
  timeDeltas: number[]
  startTime: number
}

interface ProfileNode {
  id: number
  callFrame: { functionName: string; url: string; lineNumber: number }
  children?: number[]
}

/** Prints where the JavaScript of a process spent its time within the window, thread by thread. */
export function printProfiles(
  folder: string,
  window: { fromMs: number; toMs: number; runs: number },
): void {
  const files = readdirSync(folder).filter((name) => name.endsWith('.cpuprofile'))
  if (files.length === 0) print(`\nNo profile was written to ${folder}`)
  for (const file of files) {
    const profile = JSON.parse(readFileSync(join(folder, file), 'utf8')) as CpuProfile
    const selfMs = selfTimes(profile, window)
    const total = [...selfMs.values()].reduce((a, b) => a + b, 0)
    if (total < 100) continue
    const thread = file.split('.').at(-3) ?? ''
    const rowsOf = (by: (node: ProfileNode) => string): (string | number)[][] => {
      const sums = new Map<string, number>()
      for (const node of profile.nodes) {
        const name = by(node)
        sums.set(name, (sums.get(name) ?? 0) + (selfMs.get(node.id) ?? 0))
      }
      return [...sums]
        .filter(([name, ms]) => ms > 0 && name !== '(idle)')
        .toSorted(([, a], [, b]) => b - a)
        .map(([name, ms]) => [
          name,
          (ms / window.runs).toFixed(2),
          `${((ms / total) * 100).toFixed(1)} %`,
        ])
    }
    const heads = ['', 'ms per run', 'of the time']
    const title = `Thread ${thread}, self time`
    printTable(
      `${title} by package, Node's own with whoever called it`,
      heads,
      rowsOf(callerOf(profile)).slice(0, 30),
    )
    printTable(`${title} by function`, heads, rowsOf(functionOf).slice(0, 40))
  }
}

function selfTimes(
  { samples, timeDeltas, startTime }: CpuProfile,
  { fromMs, toMs }: { fromMs: number; toMs: number },
): Map<number, number> {
  const selfMs = new Map<number, number>()
  let at = startTime / 1000
  for (const [i, id] of samples.entries()) {
    const ms = (timeDeltas[i + 1] ?? 0) / 1000
    at += (timeDeltas[i] ?? 0) / 1000
    if (at >= fromMs && at < toMs) selfMs.set(id, (selfMs.get(id) ?? 0) + ms)
  }
  return selfMs
}

/** Writing to a socket is Node's work and a database client's doing. */
function callerOf({ nodes }: CpuProfile): (node: ProfileNode) => string {
  const parents = new Map<number, ProfileNode>()
  for (const node of nodes) for (const child of node.children ?? []) parents.set(child, node)
  return (node) => {
    let caller: ProfileNode | undefined = node
    while (caller && packageOf(caller) === undefined) caller = parents.get(caller.id)
    if (caller) return packageOf(caller) ?? ''
    const { functionName, url } = node.callFrame
    return url === '' && functionName.startsWith('(') ? functionName : 'node'
  }
}

/** A package, or a folder of ours; undefined for what Node brings along. */
function packageOf({ callFrame: { url } }: ProfileNode): string | undefined {
  if (url === '' || url.startsWith('node:')) return undefined
  const [, name] = /.*node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(url) ?? []
  if (name) return name
  return url.includes('/') ? `our ${url.split('/').slice(-2, -1).join('')}` : url
}

function functionOf(node: ProfileNode): string {
  const { functionName, url, lineNumber } = node.callFrame
  const place = url === '' ? '' : ` ${url.split('/').slice(-2).join('/')}:${lineNumber + 1}`
  return `${functionName.slice(0, 40) || '(anonymous)'}${place}`
}
