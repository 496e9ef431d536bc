import { closeSync, fdatasyncSync, openSync, writeSync } from 'node:fs'
import { availableParallelism, cpus, loadavg } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'

import { nowMs, pause } from './clock.ts'
import { cpuOf, cpuOfMachine, since, threadsOf, type CpuTimes } from './cpu.ts'
import { openDatabase, type Database } from './database.ts'
import { startEngine, type EngineTimings } from './engine.ts'
import { inFlight } from './flight.ts'
import { actions, countEvents } from './histories.ts'
import { createLoad, type Load, type Timings } from './load.ts'
import { printProfiles } from './profile.ts'
import { startModel, startProgram, temporaryDataDir, type Program } from './program.ts'
import { digits, p50, p99, print, printTable } from './table.ts'

/**
 * What we add to a model's own time, and how many runs we carry. The limit is measured in the same minutes as we are: the
 * same load client asks the model itself, for as many tokens at the same pace and with the same starts.
 */
export async function latency(args: string[], stop: AbortSignal): Promise<void> {
  const options = readOptions(args)
  await using stack = new AsyncDisposableStack()
  const dataDir = stack.use(temporaryDataDir()).path
  const model = stack.use(await startModel(stop))
  const asked = { dataDir, modelUrl: model.url }
  if (options.profile) await prepareStatementCounts(asked, stop)
  const nodeFlags = options.profile ? ['--cpu-prof', `--cpu-prof-dir=${dataDir}/profiles`] : []
  const program = stack.use(await startProgram({ ...asked, nodeFlags }, stop))
  const load = stack.use(createLoad(program.baseUrl, model.url, stop))
  const database = stack.use(await openDatabase(program.databaseUrl))
  const bench: Bench = { program, model, load, database, stop, goals: [], threads: [] }
  printMachine(dataDir)

  await warmUp(bench)
  if (options.phases.includes('engine')) await measureEngine(bench)
  if (options.phases.includes('streams')) await measureStreams(bench)
  if (options.phases.includes('poll')) await measurePolling(bench)
  if (options.phases.includes('throughput')) {
    const window = await measureThroughput(bench, options)
    if (options.profile) {
      // Profiles are written when the process ends.
      await program[Symbol.asyncDispose]()
      printProfiles(join(dataDir, 'profiles'), window)
    }
  }
  printVerdict(bench.goals)
}

interface Bench {
  program: Program
  model: { pid: number }
  load: Load
  database: Database
  stop: AbortSignal
  goals: Goal[]
  /** Each with a message of a user in it and no run yet. */
  threads: string[]
}

interface Goal {
  what: string
  value: number
  limit: number
  unit: string
  atLeast?: boolean
}

const phases = ['engine', 'streams', 'poll', 'throughput'] as const

function readOptions(args: string[]) {
  const { values } = parseArgs({
    args,
    options: {
      /** Only these phases, separated by commas. */
      only: { type: 'string', default: phases.join(',') },
      /** How long the throughput is measured. */
      seconds: { type: 'string', default: '15' },
      /** Says where the CPU and the statements of the throughput phase went; slows everything down. */
      profile: { type: 'boolean', default: false },
    },
  })
  const wanted = values.only.split(',')
  const seconds = Number(values.seconds)
  if (!(seconds > 0)) throw new Error(`--seconds is ${values.seconds}, which is no duration`)
  return {
    phases: phases.filter((phase) => wanted.includes(phase)),
    seconds,
    profile: values.profile,
  }
}

// ------------------------------------------------------------------------------------------------ engine

const engineSeconds = 5

/** What the tables below cannot go under: the same server and machine, and the library alone. */
async function measureEngine({ program, stop }: Bench): Promise<void> {
  await using engine = await startEngine(program.temporalAddress)
  await inFlight(16, 300, stop, async () => void (await engine.run()))
  const rows: (string | number)[][] = []
  for (const { streams, rounds } of [
    { streams: 1, rounds: 40 },
    { streams: 64, rounds: 3 },
  ]) {
    const runs: EngineTimings[] = []
    for (let round = 0; round < rounds; round += 1) {
      runs.push(...(await starts(streams, 0, stop, () => engine.run())))
      await pause(settleMs, stop)
    }
    const began = runs.map(({ activityBegan }) => activityBegan)
    const done = runs.map(({ done: at }) => at)
    const name = streams === 1 ? ['1', 'one by one'] : [String(streams), 'in one instant']
    rows.push([...name, p50(began), p99(began), p50(done), p99(done)])
  }
  let runs = 0
  const until = nowMs() + engineSeconds * 1000
  const countRun = async (): Promise<void> => {
    await engine.run()
    if (nowMs() < until) runs += 1
  }
  await inFlight(inFlightRuns, Infinity, stop, countRun, () => nowMs() > until)
  printTable(
    'The bare engine: a workflow with one empty activity on the same Temporal, ms',
    ['workflows', 'starts', 'activity begins p50', 'p99', 'done p50', 'p99'],
    rows,
  )
  print(`\n${digits(runs / engineSeconds)} of them per second with ${inFlightRuns} in flight`)
}

// ------------------------------------------------------------------------------------------------ streams

interface Scenario {
  streams: number
  /** All streams of a round start within this time, evenly; 0 is one instant. */
  spreadMs: number
  /** Every 20 ms. Streams that start over two seconds must last as long to be there at the same time. */
  tokens: number
  rounds: number
  goals: { firstEvent?: number; firstToken?: number; perToken: number }
}

const tokenMs = 20
const scenarios: Scenario[] = [
  {
    streams: 1,
    spreadMs: 0,
    tokens: 20,
    rounds: 24,
    goals: { firstEvent: 15, firstToken: 25, perToken: 5 },
  },
  { streams: 16, spreadMs: 2000, tokens: 100, rounds: 2, goals: { firstEvent: 15, perToken: 15 } },
  { streams: 16, spreadMs: 0, tokens: 100, rounds: 2, goals: { perToken: 15 } },
  {
    streams: 64,
    spreadMs: 2000,
    tokens: 100,
    rounds: 4,
    goals: { firstEvent: 15, firstToken: 60, perToken: 20 },
  },
  { streams: 64, spreadMs: 0, tokens: 100, rounds: 4, goals: { firstToken: 600, perToken: 20 } },
]

interface Measured {
  scenario: Scenario
  direct: Timings[]
  ours: Timings[]
}

async function measureStreams(bench: Bench): Promise<void> {
  const measured: Measured[] = []
  for (const scenario of scenarios) measured.push(await measure(bench, scenario))
  const rowsOf = (row: (one: Measured) => (string | number)[]) =>
    measured.map((one) => [...nameOf(one.scenario), ...row(one)])

  printTable(
    'Time to the first event of the stream, ms (a model has none before its first token)',
    [...nameHeads, 'p50', 'p99', ...goalHeads],
    rowsOf(({ scenario, ours }) => {
      const times = ours.map(({ firstEvent }) => firstEvent)
      const what = `first event p50, ${nameOf(scenario).join(' ')}`
      return [p50(times), p99(times), ...judge(bench, what, p50(times), scenario.goals.firstEvent)]
    }),
  )
  const compare = (
    title: string,
    what: string,
    of: (timings: Timings) => number | number[],
    goalOf: (scenario: Scenario) => number | undefined,
  ): void =>
    printTable(
      title,
      [...nameHeads, 'direct p50', 'p99', 'ours p50', 'p99', 'added p50', 'p99', ...goalHeads],
      rowsOf(({ scenario, direct, ours }) => {
        const [theirs, mine] = [direct.flatMap(of), ours.flatMap(of)]
        const added = p50(mine) - p50(theirs)
        const name = `${what}, ${nameOf(scenario).join(' ')}`
        const met = judge(bench, name, added, goalOf(scenario))
        const last = p99(mine) - p99(theirs)
        return [p50(theirs), p99(theirs), p50(mine), p99(mine), added, last, ...met]
      }),
    )
  compare(
    'Time to the first token, ms',
    'added time to first token p50',
    ({ firstToken }) => firstToken,
    ({ goals }) => goals.firstToken,
  )
  // Every token carries the time at which the model sent it. Gaps between tokens would say less: where two tokens come in one
  // event a gap is 0, and a stream that is late as a whole has perfect gaps. The first token is in the table above.
  compare(
    'From when the model sent a token to when the client had it, ms (all but the first of a stream)',
    'added per token p50',
    ({ tokenDelays }) => tokenDelays,
    ({ goals }) => goals.perToken,
  )
  compare(
    'Time to completion, ms',
    '',
    ({ done }) => done,
    () => undefined,
  )
}

/** Code is compiled, connections are open, caches are filled: what a server that has run for a minute has. */
async function warmUp(bench: Bench): Promise<void> {
  const { load, stop } = bench
  const assistant = await createAssistant(bench, 18, 0)
  await reserveThreads(bench, 400)
  await inFlight(16, 300, stop, async () => void (await load.run(assistant, takeThread(bench))))
  await starts(64, 0, stop, () => load.run(assistant, takeThread(bench)))
  await starts(64, 0, stop, () => load.direct(modelName(18, 0)))
}

async function measure(bench: Bench, scenario: Scenario): Promise<Measured> {
  const { load, stop } = bench
  const { streams, spreadMs, tokens, rounds } = scenario
  const assistant = await createAssistant(bench, tokens, tokenMs)
  await reserveThreads(bench, streams * rounds)
  const measured: Measured = { scenario, direct: [], ours: [] }
  // By turns, so that whatever else the machine does meets both.
  for (let round = 0; round < rounds; round += 1) {
    const theirs = await starts(streams, spreadMs, stop, () =>
      load.direct(modelName(tokens, tokenMs)),
    )
    measured.direct.push(...theirs)
    await pause(settleMs, stop)
    measured.ours.push(
      ...(await starts(streams, spreadMs, stop, () => load.run(assistant, takeThread(bench)))),
    )
    await pause(settleMs, stop)
  }
  return measured
}

/** What a run leaves behind (its workflow's end, removals) is over. */
const settleMs = 100

const nameHeads = ['streams', 'starts']

function nameOf({ streams, spreadMs }: Scenario): string[] {
  if (streams === 1) return ['1', 'one by one']
  return [String(streams), spreadMs === 0 ? 'in one instant' : `over ${spreadMs / 1000} s`]
}

// ------------------------------------------------------------------------------------------------ polling

async function measurePolling(bench: Bench): Promise<void> {
  const { load, stop } = bench
  const tokens = 20
  const assistant = await createAssistant(bench, tokens, tokenMs)
  const rows: (string | number)[][] = []
  for (const { streams, rounds } of [
    { streams: 1, rounds: 16 },
    { streams: 16, rounds: 4 },
  ]) {
    await reserveThreads(bench, streams * rounds)
    const [direct, ours]: [number[], number[]] = [[], []]
    for (let round = 0; round < rounds; round += 1) {
      const spreadMs = streams === 1 ? 0 : 1000
      const theirs = await starts(streams, spreadMs, stop, () =>
        load.direct(modelName(tokens, tokenMs)),
      )
      direct.push(...theirs.map(({ done }) => done))
      await pause(settleMs, stop)
      ours.push(
        ...(await starts(streams, spreadMs, stop, () => load.poll(assistant, takeThread(bench)))),
      )
      await pause(settleMs, stop)
    }
    const added = p50(ours) - p50(direct)
    const met = judge(bench, `create_and_poll, added p50, ${streams} at once`, added, 60)
    rows.push([String(streams), p50(direct), p50(ours), p99(ours), added, ...met])
  }
  printTable(
    'create_and_poll of the official clients, ms until it returns',
    ['at once', 'direct p50', 'ours p50', 'p99', 'added p50', ...goalHeads],
    rows,
  )
}

// ------------------------------------------------------------------------------------------------ throughput

const inFlightRuns = 64
const answerTokens = 18
const rampMs = 2000
const idleMs = 3000
/** So many threads are made beforehand. */
const fastestPerSecond = 100

async function measureThroughput(
  bench: Bench,
  options: { seconds: number; profile: boolean },
): Promise<{ fromMs: number; toMs: number; runs: number }> {
  const { load, stop, database } = bench
  const assistant = await createAssistant(bench, answerTokens, 0)
  await reserveThreads(bench, Math.ceil((options.seconds + rampMs / 1000) * fastestPerSecond))
  await pause(1000, stop)
  const idleBefore = readCpu(bench)
  await pause(idleMs, stop)
  const idle = since(idleBefore, readCpu(bench))

  const direct: number[] = []
  await inFlight(inFlightRuns, 2000, stop, async () => {
    direct.push((await load.direct(modelName(answerTokens, 0))).done)
  })

  const finished: { at: number; tookMs: number; runId: string }[] = []
  const fromMs = nowMs() + rampMs
  const toMs = fromMs + options.seconds * 1000
  const running = inFlight(
    inFlightRuns,
    Infinity,
    stop,
    async () => {
      const { done, runId } = await load.run(assistant, takeThread(bench))
      finished.push({ at: nowMs(), tookMs: done, runId })
    },
    () => nowMs() > toMs,
  )
  await Promise.race([pause(fromMs - nowMs(), stop), running])
  if (options.profile) await database.resetStatements()
  const before = { cpu: readCpu(bench), threads: threadsOf(bench.program.pid), at: nowMs() }
  const databaseBefore = await database.counters()
  await Promise.race([pause(toMs - nowMs(), stop), running])
  const cpu = since(before.cpu, readCpu(bench))
  const threads = since(before.threads, threadsOf(bench.program.pid))
  const tookS = (nowMs() - before.at) / 1000
  const databaseAfter = await database.counters()
  const statements = options.profile ? await database.statements() : []
  await running

  const counted = finished.filter(({ at }) => at >= fromMs && at < toMs)
  const runs = counted.length
  const perSecond = runs / options.seconds
  const took = counted.map(({ tookMs }) => tookMs)
  const asRate = { unit: '/s', atLeast: true }
  const met = judge(bench, 'complete runs per second', perSecond, 40, asRate)
  printTable(
    `Answers of ${answerTokens} tokens at once, ${inFlightRuns} in flight, ${options.seconds} s`,
    ['', 'runs/s', 'p50 ms', 'p99 ms', ...goalHeads],
    [
      ['direct', '-', p50(direct), p99(direct), '', ''],
      ['ours, durable and streamed', perSecond, p50(took), p99(took), ...met],
    ],
  )
  printCosts({ cpu, idle, tookS, runs })
  print(
    `\nPostgres, per run: ${digits((databaseAfter.commits - databaseBefore.commits) / runs)} transactions, ` +
      `${digits((databaseAfter.walBytes - databaseBefore.walBytes) / runs / 1000)} kB of its log`,
  )
  await printActions(
    bench,
    counted.map(({ runId }) => runId),
  )
  if (options.profile) {
    printTable(
      'Threads of the Node process, CPU ms per run',
      ['thread', 'ms'],
      [...threads]
        .filter(([, ms]) => ms / runs >= 0.1)
        .toSorted(([, a], [, b]) => b - a)
        .map(([name, ms]) => [name, ms / runs]),
    )
    printTable(
      'Statements',
      ['statement', 'per run', 'mean ms', 'ms per run', 'rows'],
      statements
        .slice(0, 40)
        .map(({ text, calls, totalMs, rows }) => [
          text,
          (calls / runs).toFixed(2),
          (totalMs / calls).toFixed(2),
          (totalMs / runs).toFixed(2),
          digits(rows / calls),
        ]),
    )
  }
  return { fromMs: before.at, toMs, runs }
}

const otherPrograms = 'other programs'

function readCpu({ program, model }: Bench): CpuTimes {
  const used = cpuOf(program.pid)
  used.set('the model', cpuOf(model.pid).get('node') ?? 0)
  const { user, system } = process.cpuUsage()
  used.set('the load client', (user + system) / 1000)
  const ours = [...used.values()].reduce((a, b) => a + b, 0)
  used.set(otherPrograms, cpuOfMachine() - ours)
  return used
}

function printCosts(costs: { cpu: CpuTimes; idle: CpuTimes; tookS: number; runs: number }): void {
  const cores = availableParallelism()
  const rowOf = (name: string, ms: number, idle: number, runs: number): (string | number)[] => [
    name,
    ms / runs,
    `${digits(ms / 10 / costs.tookS / cores)} %`,
    idle / (idleMs / 1000),
  ]
  const parts = [...costs.cpu.keys()].filter((name) => name !== otherPrograms)
  const sum = (times: CpuTimes): number =>
    parts.reduce((total, name) => total + (times.get(name) ?? 0), 0)
  const row = (name: string): (string | number)[] =>
    rowOf(name, costs.cpu.get(name) ?? 0, costs.idle.get(name) ?? 0, costs.runs)
  printTable(
    'CPU',
    ['', 'ms per run', `of ${cores} cores`, 'ms per second while idle'],
    [
      ...parts.filter((name) => (costs.cpu.get(name) ?? 0) > 0).map(row),
      rowOf('all of these', sum(costs.cpu), sum(costs.idle), costs.runs),
      ['', '', '', ''],
      rowOf(
        otherPrograms,
        costs.cpu.get(otherPrograms) ?? 0,
        costs.idle.get(otherPrograms) ?? 0,
        NaN,
      ),
    ],
  )
}

const sampled = 50

async function printActions({ program }: Bench, runIds: string[]): Promise<void> {
  const sample = runIds.filter((_, i) => i % Math.ceil(runIds.length / sampled) === 0)
  const counts = await countEvents(program.temporalAddress, sample)
  const perRun = (name: string): number => (counts.get(name) ?? 0) / sample.length
  const total = [...counts.values()].reduce((a, b) => a + b, 0) / sample.length
  printTable(
    'Temporal: events in the history of a run',
    ['event', 'per run', 'action'],
    [
      ...[...counts.keys()].map((name) => [
        name,
        perRun(name).toFixed(2),
        actions.includes(name) ? 'yes' : '',
      ]),
      ['all of these', total, digits(actions.reduce((sum, name) => sum + perRun(name), 0))],
    ],
  )
}

// ------------------------------------------------------------------------------------------------ shared

function modelName(tokens: number, intervalMs: number): string {
  return `tokens-${tokens}-every-${intervalMs}`
}

async function createAssistant({ load }: Bench, tokens: number, ms: number): Promise<string> {
  const body = { model: modelName(tokens, ms), name: 'Bench', instructions: 'Be brief.' }
  return (await load.post('/assistants', body)).id
}

async function reserveThreads({ load, threads, stop }: Bench, count: number): Promise<void> {
  const messages = [{ role: 'user', content: 'What is the answer to life, the universe and all?' }]
  await inFlight(16, Math.max(0, count - threads.length), stop, async () => {
    threads.push((await load.post('/threads', { messages })).id)
  })
}

function takeThread({ threads }: Bench): string {
  const thread = threads.shift()
  if (thread === undefined) throw new Error('Too few threads were made for so fast a server')
  return thread
}

/** Starts `count` calls evenly within `spreadMs` and waits for all of them. */
async function starts<T>(
  count: number,
  spreadMs: number,
  stop: AbortSignal,
  act: () => Promise<T>,
): Promise<T[]> {
  const began = nowMs()
  return Promise.all(
    Array.from({ length: count }, async (_, i) => {
      const waitMs = began + (i * spreadMs) / count - nowMs()
      if (waitMs > 0) await pause(waitMs, stop)
      return act()
    }),
  )
}

const goalHeads = ['goal', 'met']

/** The cells of a goal; remembers it for the end. */
function judge(
  { goals }: Bench,
  what: string,
  value: number,
  limit: number | undefined,
  { unit = ' ms', atLeast = false } = {},
): string[] {
  if (limit === undefined) return ['', '']
  const goal = { what, value, limit, unit, atLeast }
  goals.push(goal)
  return [`${atLeast ? '>=' : '<'} ${limit}`, isMet(goal) ? 'yes' : 'NO']
}

function isMet({ value, limit, atLeast }: Goal): boolean {
  return atLeast ? value >= limit : value < limit
}

function printVerdict(goals: Goal[]): void {
  const missed = goals.filter((goal) => !isMet(goal))
  print(`\n${goals.length - missed.length} of ${goals.length} goals are met.`)
  for (const { what, value, limit, unit, atLeast } of missed) {
    print(`  ${what}: ${digits(value)}${unit}, goal ${atLeast ? '>=' : '<'} ${limit}${unit}`)
  }
}

function printMachine(dataDir: string): void {
  const model = cpus()[0]?.model ?? 'unknown'
  print(
    `${availableParallelism()} cores (${model}), Node ${process.versions.node}, load ${loadavg()[0]?.toFixed(1)}, ` +
      `one fdatasync ${digits(syncMs(dataDir))} ms`,
  )
}

/** How long this disk takes to keep a page, p50: every commit waits for it. */
function syncMs(dataDir: string): number {
  const file = openSync(join(dataDir, 'sync-test'), 'w')
  const page = Buffer.alloc(8192)
  const times = Array.from({ length: 50 }, () => {
    const began = nowMs()
    writeSync(file, page, 0, page.length, 0)
    fdatasyncSync(file)
    return nowMs() - began
  })
  closeSync(file)
  return p50(times)
}

/** Postgres counts statements with a library that it loads at its start: the first start makes the database. */
async function prepareStatementCounts(
  asked: { dataDir: string; modelUrl: string },
  stop: AbortSignal,
): Promise<void> {
  await using program = await startProgram(asked, stop)
  await using database = await openDatabase(program.databaseUrl)
  await database.loadStatementCounts()
}
