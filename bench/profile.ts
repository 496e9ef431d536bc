import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'

import { print, printTable } from './table.ts'

/** What V8 writes for `--cpu-prof`: times are microseconds of the clock that `nowMs` reads too. */
interface CpuProfile {
  nodes: { id: number; callFrame: { functionName: string; url: string; lineNumber: number } }[]
  samples: number[]
  timeDeltas: number[]
  startTime: number
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
    const rowsOf = (by: (node: CpuProfile['nodes'][number]) => string): (string | number)[][] => {
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
    printTable(`Thread ${thread}, self time by package`, heads, rowsOf(packageOf).slice(0, 30))
    printTable(`Thread ${thread}, self time by function`, heads, rowsOf(functionOf).slice(0, 40))
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

function packageOf({ callFrame: { functionName, url } }: CpuProfile['nodes'][number]): string {
  if (url === '')
    return functionName === '(idle)' || functionName.startsWith('(') ? functionName : 'V8'
  if (url.startsWith('node:')) return 'node'
  const [, name] = /.*node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(url) ?? []
  if (name) return name
  return url.split('/').slice(-2, -1).join('')
}

function functionOf(node: CpuProfile['nodes'][number]): string {
  const { functionName, url, lineNumber } = node.callFrame
  const place = url === '' ? '' : ` ${url.split('/').slice(-2).join('/')}:${lineNumber + 1}`
  return `${functionName || '(anonymous)'}${place}`
}
