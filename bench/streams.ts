import { availableParallelism, loadavg } from 'node:os'
import { parseArgs } from 'node:util'

import { nowMs, pause } from './clock.ts'
import { since } from './cpu.ts'
import { startInstallation, type Installation } from './installation.ts'
import type { OnToken } from './load.ts'
import { startModel } from './program.ts'
import { newestRun, stalled } from './stalled.ts'
import { p50, p99, print, printTable } from './table.ts'

/**
 * How long a token takes from the model to the client while many streams are open at once, beside the same streams read from
 * the model itself, in one process and in two; what a stream costs; one run with many watchers; and clients that stop
 * reading. `--only` names some of these parts, with commas between.
 */
export async function streams(args: string[], stop: AbortSignal): Promise<void> {
  const chosen = chosenParts(args)
  await using model = await startModel(stop)
  print(`${availableParallelism()} cores, load ${loadavg()[0]?.toFixed(1)} before the start`)
  const measured: Measured[] = []
  for (const processes of [1, 2] as const) {
    const here = chosen.filter((part) => (part === twoProcesses.name ? 2 : 1) === processes)
    if (here.length === 0) continue
    await using installation = await startInstallation(model.url, processes, stop)
    const bench = { ...installation, stop }
    await many(bench, { name: 'warm-up', count: 4, perSecond: 50, goalP50: 0 })
    for (const of of [...cases, twoProcesses]) {
      if (here.includes(of.name)) measured.push(await many(bench, of))
    }
    if (here.includes('watchers')) await watched(bench)
    if (here.includes('stalled')) await stalled(bench, stop)
  }
  if (measured.length > 0) printDelays(measured)
}

/** Throws where a part is named that there is none of. */
function chosenParts(args: string[]): string[] {
  const { values } = parseArgs({ args, options: { only: { type: 'string' } } })
  const parts = [...cases.map(({ name }) => name), 'watchers', 'stalled', twoProcesses.name]
  const chosen = values.only?.split(',') ?? parts
  const unknown = chosen.find((name) => !parts.includes(name))
  if (unknown !== undefined) throw new Error(`--only ${unknown}: there are ${parts.join(', ')}`)
  return chosen
}

function printDelays(measured: Measured[]): void {
  printTable(
    'From when the model sent a token to when the client had it, ms, once all streams are open',
    [
      'streams',
      'tokens/s of each',
      'direct p50',
      'p99',
      'ours p50',
      'p99',
      'added p50',
      'goal',
      'p99',
      'goal',
      'met',
    ],
    measured.map(({ of, direct, ours }) => {
      const [mid, far] = [
        p50(ours.delays) - p50(direct.delays),
        p99(ours.delays) - p99(direct.delays),
      ]
      const isMet = mid < of.goalP50 && (of.goalP99 === undefined || far < of.goalP99)
      return [
        nameOf(of),
        of.perSecond,
        p50(direct.delays),
        p99(direct.delays),
        p50(ours.delays),
        p99(ours.delays),
        mid,
        `< ${of.goalP50}`,
        far,
        of.goalP99 ? `< ${of.goalP99}` : '',
        isMet ? 'yes' : 'NO',
      ]
    }),
  )
  printTable(
    'What a stream costs, and whether all of it came',
    [
      'streams',
      'tokens/s of all',
      'cores: node',
      'postgres',
      'memory of a stream, kB',
      'tokens lost',
    ],
    measured.map(({ of, ours }) => [
      nameOf(of),
      ours.perSecond,
      ours.cores('node'),
      ours.cores('postgres'),
      (ours.memoryMb / of.count) * 1000,
      ours.lost,
    ]),
  )
}

function nameOf({ name, count }: Case): string {
  return name === twoProcesses.name ? `${count}, two processes` : name
}

interface Bench extends Pick<Installation, 'load' | 'cpu' | 'memoryMb'> {
  stop: AbortSignal
}

type Measured = Awaited<ReturnType<typeof many>>

interface Case {
  name: string
  count: number
  perSecond: number
  /** Milliseconds that we may add. */
  goalP50: number
  goalP99?: number
}

const cases: Case[] = [
  { name: '1', count: 1, perSecond: 50, goalP50: 5 },
  { name: '64', count: 64, perSecond: 50, goalP50: 20 },
  { name: '250', count: 250, perSecond: 50, goalP50: 60, goalP99: 250 },
  { name: '1000', count: 1000, perSecond: 5, goalP50: 60, goalP99: 250 },
]
/** An api and a worker. */
const twoProcesses: Case = { name: 'processes', count: 64, perSecond: 50, goalP50: 20 }

/** How long all streams are looked at together. */
const windowMs = 5000
/** Runs that this machine begins in a second without falling behind. */
const startsPerSecond = 16

async function many(bench: Bench, of: Case) {
  const { load } = bench
  const direct = await observe(
    bench,
    of,
    async (model, onToken) => void (await load.direct(model, onToken)),
  )
  const before = await bench.memoryMb()
  const assistants = new Map<string, Promise<{ id: string }>>()
  const ours = await observe(bench, of, async (model, onToken) => {
    const assistant = assistants.get(model) ?? load.post('/assistants', { model })
    assistants.set(model, assistant)
    const { id: threadId } = await load.post('/threads', {
      messages: [{ role: 'user', content: 'Go.' }],
    })
    await load.run((await assistant).id, threadId, onToken)
  })
  return { of, direct, ours: { ...ours, memoryMb: Math.max(0, ours.memoryMb - before) } }
}

/** Opens the streams one after the other, and looks at their tokens once all of them are at work. */
async function observe(
  { cpu, stop, memoryMb }: Bench,
  { count, perSecond }: Case,
  run: (model: string, onToken: OnToken) => Promise<void>,
) {
  const startMs = (count / startsPerSecond) * 1000
  const tokens = Math.ceil(((1.5 * startMs + windowMs + 4000) / 1000) * perSecond)
  const model = `tokens-${tokens}-every-${Math.round(1000 / perSecond)}`
  const delays: number[] = []
  const allOpen = Promise.withResolvers<void>()
  let [open, seen, isLooking] = [0, 0, false]
  const begun = Array.from({ length: count }, async (_, n) => {
    await pause((n / count) * startMs, stop)
    let isOpen = false
    await run(model, (_at, delayMs) => {
      seen += 1
      if (isLooking) delays.push(delayMs)
      if (isOpen) return
      isOpen = true
      open += 1
      if (open === count) allOpen.resolve()
    })
  })
  const all = Promise.all(begun)
  await Promise.race([allOpen.promise, all])
  isLooking = true
  const [cpuBefore, beganAt] = [cpu(), nowMs()]
  await pause(windowMs, stop)
  isLooking = false
  const tookMs = nowMs() - beganAt
  const used = since(cpuBefore, cpu())
  const memory = await memoryMb()
  await all
  return {
    delays,
    perSecond: (delays.length / tookMs) * 1000,
    lost: count * tokens - seen,
    memoryMb: memory,
    cores: (part: string) => ((used.get(part) ?? 0) / tookMs).toFixed(2),
  }
}

const watchers = 100

/** One run that many look at: the notification comes once, and is told to all of them. */
async function watched({ load, stop }: Bench): Promise<void> {
  const tokens = 500
  const { id: assistantId } = await load.post('/assistants', { model: `tokens-${tokens}-every-20` })
  const { id: threadId } = await load.post('/threads', {
    messages: [{ role: 'user', content: 'Go.' }],
  })
  let there = 0
  let allThereAt = Infinity
  /** Counts all tokens. What the model sent before all were there is not on its way to a watcher, and says nothing. */
  const watcher = () => {
    const seen = { count: 0, delays: [] as number[] }
    const onToken: OnToken = (atMs, delayMs) => {
      seen.count += 1
      if (seen.count === 1) there += 1
      if (there > watchers) allThereAt = Math.min(allThereAt, atMs)
      if (atMs - delayMs >= allThereAt) seen.delays.push(delayMs)
    }
    return { seen, onToken }
  }
  const own = watcher()
  const run = load.run(assistantId, threadId, own.onToken)
  const runId = await newestRun(load, threadId, stop)
  const theirs = Array.from({ length: watchers }, watcher)
  const watching = theirs.map(({ onToken }) => load.watch(threadId, runId, onToken))
  await Promise.all([run, ...watching])
  const row = (name: string, all: { seen: { count: number; delays: number[] } }[]) => {
    const delays = all.flatMap(({ seen }) => seen.delays)
    const lost = all.reduce((sum, { seen }) => sum + tokens - seen.count, 0)
    return [name, delays.length, p50(delays), p99(delays), lost]
  }
  printTable(
    'One run with 50 tokens/s, and its watchers: ms from the model to them, once all are there',
    ['', 'tokens', 'p50', 'p99', 'tokens lost'],
    [row('the client of the run', [own]), row(`${watchers} watchers`, theirs)],
  )
}
