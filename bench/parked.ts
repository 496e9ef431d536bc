import { availableParallelism, loadavg } from 'node:os'
import { parseArgs } from 'node:util'

import { Client } from '@temporalio/client'
import { NativeConnection } from '@temporalio/worker'

import { createReconciler } from '../engine/reconcile.ts'
import { createLogger } from '../log.ts'
import { openStore } from '../store/index.ts'
import { installRuntime } from '../worker/index.ts'
import { nowMs, pause } from './clock.ts'
import { inFlight } from './flight.ts'
import { createLoad, type Load } from './load.ts'
import { freePort, startModel, startProgram, temporaryDataDir, type Program } from './program.ts'
import { liveMemoryMb, residentMb } from './live-memory.ts'
import { digits, p50, print, printTable } from './table.ts'

/**
 * Runs that wait for their clients by the thousand: what they cost the worker's memory, how long the reconciler takes to
 * compare all of them with Temporal, and whether they complete once their outputs come.
 */
export async function parked(args: string[], stop: AbortSignal): Promise<void> {
  const total = readOptions(args)
  await using stack = new AsyncDisposableStack()
  const dataDir = stack.use(temporaryDataDir()).path
  const model = stack.use(await startModel(stop))
  const inspectPort = await freePort()
  const nodeFlags = [`--inspect=127.0.0.1:${inspectPort}`]
  const program = stack.use(await startProgram({ dataDir, modelUrl: model.url, nodeFlags }, stop))
  const load = stack.use(createLoad(program.baseUrl, model.url, stop))
  print(`${availableParallelism()} cores, load ${loadavg()[0]?.toFixed(1)} before the start`)
  const reconcile = stack.use(await openReconciler(program))
  const { id: assistantId } = await load.post('/assistants', {
    model: 'rounds-1',
    tools: [{ type: 'function', function: { name: 'look_up' } }],
  })

  const open: OpenRun[] = []
  const measured: Measured[] = []
  for (const count of [cached, total]) {
    const beganAt = nowMs()
    const added = count - open.length
    await inFlight(atOnce, added, stop, async () => void open.push(await park(load, assistantId)))
    const perSecond = (added / (nowMs() - beganAt)) * 1000
    await pause(settleMs, stop)
    const roundsMs: number[] = []
    for (let round = 0; round < 10; round += 1) roundsMs.push(await reconcile.timed())
    measured.push({
      count,
      residentMb: residentMb(program.pid),
      liveMb: await liveMemoryMb(program.pid, inspectPort),
      roundMs: p50(roundsMs),
      longestRoundMs: Math.max(...roundsMs),
      perSecond,
    })
  }
  const [few, many] = measured
  if (!few || !many) throw new Error('Nothing was measured')
  const growth = many.liveMb / few.liveMb
  printTable(
    'Parked runs',
    ['', ...measured.map(({ count }) => `${count} runs`), 'goal', 'met'],
    [
      ['memory of the server with its worker, MB', ...valuesOf(measured, 'residentMb'), '', ''],
      ['... with its garbage collected', ...valuesOf(measured, 'liveMb'), '', ''],
      ['... beside that at the first', '', growth.toFixed(2), '<= 1.25', met(growth <= 1.25)],
      [
        "the reconciler's round, ms",
        ...valuesOf(measured, 'roundMs'),
        '< 1000',
        met(many.roundMs < 1000),
      ],
      ['... the longest of ten', ...valuesOf(measured, 'longestRoundMs'), '', ''],
      ['parked per second meanwhile', ...valuesOf(measured, 'perSecond'), '', ''],
    ],
  )

  const chosen = open.filter((_, index) => index % Math.ceil(open.length / sampled) === 0)
  const queue = chosen.values()
  let completed = 0
  await inFlight(8, chosen.length, stop, async () => {
    const run = queue.next().value
    if (run && (await complete(load, run))) completed += 1
  })
  print(`\n${completed} of ${chosen.length} completed after their outputs were submitted`)
  if (completed < chosen.length) throw new Error('Some parked runs did not complete')
}

/** As many workflows as a worker keeps in its cache (worker/index.ts): beyond them memory has to stay where it is. */
const cached = 500
const atOnce = 32
const sampled = 100
/** Temporal's index, and the memory of the last runs, come to rest. */
const settleMs = 10_000

interface OpenRun {
  threadId: string
  runId: string
}

interface Measured {
  count: number
  residentMb: number
  liveMb: number
  roundMs: number
  longestRoundMs: number
  perSecond: number
}

function readOptions(args: string[]): number {
  const { values } = parseArgs({ args, options: { runs: { type: 'string', default: '10000' } } })
  const total = Number(values.runs)
  if (!(total > cached)) throw new Error(`--runs must be more than ${cached}`)
  return total
}

async function park(load: Load, assistantId: string): Promise<OpenRun> {
  const thread = { messages: [{ role: 'user', content: 'What is the answer?' }] }
  const body = { assistant_id: assistantId, thread, expires_after_seconds: 30 * 86_400 }
  const { id, thread_id } = (await load.post('/threads/runs', body)) as ParkedRun
  const run = { threadId: thread_id, runId: id }
  const { status } = await load.settled(run.threadId, run.runId)
  if (status !== 'requires_action') throw new Error(`The run is ${status}`)
  return run
}

interface ParkedRun {
  id: string
  thread_id: string
  status: string
  required_action: { submit_tool_outputs: { tool_calls: { id: string }[] } } | null
}

async function complete(load: Load, { threadId, runId }: OpenRun): Promise<boolean> {
  // As the server answers it.
  const run = (await load.settled(threadId, runId)) as ParkedRun
  const calls = run.required_action?.submit_tool_outputs.tool_calls ?? []
  await load.post(`/threads/${threadId}/runs/${runId}/submit_tool_outputs`, {
    tool_outputs: calls.map(({ id }) => ({ tool_call_id: id, output: '42' })),
  })
  return (await load.settled(threadId, runId)).status === 'completed'
}

/** The reconciler of the product, beside those of the program, which take turns with it. */
async function openReconciler({ databaseUrl, temporalAddress }: Program) {
  const log = createLogger('warn')
  installRuntime(log)
  await using stack = new AsyncDisposableStack()
  const store = stack.use(await openStore({ databaseUrl, log, maxConnections: 4 }))
  const connection = await NativeConnection.connect({ address: temporalAddress })
  stack.defer(() => connection.close())
  const client = new Client({ connection, namespace: 'longrun' })
  const reconciler = createReconciler({
    store,
    log,
    client: () => client,
    reconcileMs: 1000,
    taskQueue: 'runs',
    delivery: {
      start: (_, run) => Promise.reject(new Error(`${run.id} was taken for lost`)),
    },
  })
  const kept = stack.move()
  return {
    async timed(): Promise<number> {
      const began = nowMs()
      await reconciler.reconcile()
      return nowMs() - began
    },
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  }
}

function valuesOf(measured: Measured[], name: Exclude<keyof Measured, 'count'>): string[] {
  return measured.map((one) => digits(one[name]))
}

function met(isMet: boolean): string {
  return isMet ? 'yes' : 'NO'
}
