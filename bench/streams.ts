import { availableParallelism, loadavg } from 'node:os'
import { parseArgs } from 'node:util'

import { nowMs, pause } from './clock.ts'
import { cpuOf, since } from './cpu.ts'
import { liveMemoryMb } from './live-memory.ts'
import { createLoad, type Load, type OnToken } from './load.ts'
import { freePort, startModel, startProgram, temporaryDataDir, type Program } from './program.ts'
import { digits, p50, p99, print, printTable } from './table.ts'

/**
 * How long a token takes from the model to the client while many streams are open at once, beside the same streams read from
 * the model itself; what a stream costs; one run with many watchers; and clients that stop reading.
 */
export async function streams(args: string[], stop: AbortSignal): Promise<void> {
  const { values } = parseArgs({ args, options: { only: { type: 'string' } } })
  await using stack = new AsyncDisposableStack()
  const dataDir = stack.use(temporaryDataDir()).path
  const model = stack.use(await startModel(stop))
  const inspectPort = await freePort()
  const nodeFlags = [`--inspect=127.0.0.1:${inspectPort}`]
  const program = stack.use(await startProgram({ dataDir, modelUrl: model.url, nodeFlags }, stop))
  const load = stack.use(createLoad(program.baseUrl, model.url, stop))
  const bench: Bench = {
    load,
    program,
    stop,
    memoryMb: () => liveMemoryMb(program.pid, inspectPort),
  }
  print(`${availableParallelism()} cores, load ${loadavg()[0]?.toFixed(1)} before the start`)
  await many(bench, { count: 4, perSecond: 50, goalP50: 0 })

  const chosen = cases.filter(({ count }) => !values.only || values.only === String(count))
  const measured = []
  for (const one of chosen) measured.push(await many(bench, one))
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
        String(of.count),
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
      String(of.count),
      ours.perSecond,
      ours.cores('node'),
      ours.cores('postgres'),
      (ours.memoryMb / of.count) * 1000,
      ours.lost,
    ]),
  )
  if (!values.only) {
    await watched(bench)
    await stalled(bench)
  }
}

interface Bench {
  load: Load
  program: Program
  stop: AbortSignal
  memoryMb: () => Promise<number>
}

interface Case {
  count: number
  perSecond: number
  /** Milliseconds that we may add. */
  goalP50: number
  goalP99?: number
}

const cases: Case[] = [
  { count: 1, perSecond: 50, goalP50: 5 },
  { count: 64, perSecond: 50, goalP50: 20 },
  { count: 250, perSecond: 50, goalP50: 60, goalP99: 250 },
  { count: 1000, perSecond: 5, goalP50: 60, goalP99: 250 },
]

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
  { program, stop, memoryMb }: Bench,
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
  const [cpuBefore, beganAt] = [cpuOf(program.pid), nowMs()]
  await pause(windowMs, stop)
  isLooking = false
  const tookMs = nowMs() - beganAt
  const cpu = since(cpuBefore, cpuOf(program.pid))
  const memory = await memoryMb()
  await all
  return {
    delays,
    perSecond: (delays.length / tookMs) * 1000,
    lost: count * tokens - seen,
    memoryMb: memory,
    cores: (part: string) => ((cpu.get(part) ?? 0) / tookMs).toFixed(2),
  }
}

const watchers = 100

/** One run that many look at: the notification comes once, and is told to all of them. */
async function watched({ load, stop }: Bench): Promise<void> {
  const { id: assistantId } = await load.post('/assistants', { model: 'tokens-500-every-20' })
  const { id: threadId } = await load.post('/threads', {
    messages: [{ role: 'user', content: 'Go.' }],
  })
  const [own, theirs]: number[][] = [[], []]
  let count = 0
  const run = load.run(assistantId, threadId, (_, delayMs) => void own?.push(delayMs))
  const runId = await newestRun(load, threadId, stop)
  const watching = Array.from({ length: watchers }, () =>
    load.watch(threadId, runId, (_, delayMs) => {
      count += 1
      // Those that were written before they came say nothing.
      if (delayMs < 1000) theirs?.push(delayMs)
    }),
  )
  await Promise.all([run, ...watching])
  printTable(
    'One run with 50 tokens/s, and its watchers: ms from the model to them',
    ['', 'p50', 'p99', 'tokens lost'],
    [
      ['the client of the run', p50(own ?? []), p99(own ?? []), 500 - (own?.length ?? 0)],
      [`${watchers} watchers`, p50(theirs ?? []), p99(theirs ?? []), 500 * watchers - count],
    ],
  )
}

/** Clients that ask for a long log and do not read it: what the server holds for them. */
async function stalled({ load, memoryMb, stop }: Bench): Promise<void> {
  const { id: assistantId } = await load.post('/assistants', { model: 'tokens-20000-every-0' })
  const { id: threadId } = await load.post('/threads', {
    messages: [{ role: 'user', content: 'Go.' }],
  })
  const before = await memoryMb()
  using open = new DisposableStack()
  const run = load.run(assistantId, threadId)
  const runId = await newestRun(load, threadId, stop)
  for (let n = 0; n < watchers; n += 1) open.use(await load.stall(threadId, runId))
  const { tokenDelays } = await run
  const { id: slowAssistant } = await load.post('/assistants', { model: 'tokens-20000-every-0' })
  await load.run(slowAssistant, threadId)
  const during = await memoryMb()
  print(
    `\n${watchers} clients that do not read a run of ${tokenDelays.length + 1} tokens: ${digits(before)} MB before, ${digits(during)} MB with them`,
  )
}

async function newestRun(load: Load, threadId: string, stop: AbortSignal): Promise<string> {
  for (;;) {
    const [run] = await load.list(`/threads/${threadId}/runs`)
    if (run) return run.id
    await pause(5, stop)
  }
}
