import { availableParallelism, loadavg } from 'node:os'
import { parseArgs } from 'node:util'

import OpenAI from 'openai'

import { nowMs } from './clock.ts'
import { inFlight } from './flight.ts'
import { actionsPerRun } from './histories.ts'
import { createLoad } from './load.ts'
import { startModel, startProgram, temporaryDataDir } from './program.ts'
import { digits, p50, p95, p99, print, printTable } from './table.ts'

/**
 * Many runs at once by the official client, each with two rounds of functions: whether all of them come to the right end,
 * how long they take and what they cost Temporal; and how long a cancellation takes while the model streams. The limit is
 * the model itself, asked as often by as many at once.
 */
export async function runs(args: string[], stop: AbortSignal): Promise<void> {
  const { runs: total, atOnce } = readOptions(args)
  await using stack = new AsyncDisposableStack()
  const dataDir = stack.use(temporaryDataDir()).path
  const model = stack.use(await startModel(stop))
  const program = stack.use(await startProgram({ dataDir, modelUrl: model.url }, stop))
  const load = stack.use(createLoad(program.baseUrl, model.url, stop))
  const client = new OpenAI({ baseURL: program.baseUrl, apiKey: 'bench', maxRetries: 0 })
  const bench: Bench = { client, stop }
  print(`${availableParallelism()} cores, load ${loadavg()[0]?.toFixed(1)} before the start`)

  const [asksTwice, answers] = [await assistantOf(bench, 2), await assistantOf(bench, 0)]
  await carryOut(bench, asksTwice, 2 * atOnce, atOnce)
  const direct: number[] = []
  const directMs = await timed(() =>
    inFlight(atOnce, total, stop, async () => {
      const began = nowMs()
      for (let call = 0; call < 3; call += 1) await load.direct('tokens-4-every-0')
      direct.push(nowMs() - began)
    }),
  )
  const withFunctions = await carryOut(bench, asksTwice, total, atOnce)
  const texts = await carryOut(bench, answers, total, atOnce)

  printTable(
    `${total} runs, ${atOnce} at a time, by the official client`,
    ['', 'lost', 'wrong', 'runs/s', 'p50 ms', 'p95', 'p99'],
    [
      ['direct: three model calls', '', '', ...rates(total, directMs, direct)],
      ['two rounds of functions', ...fates(withFunctions), ...ratesOf(withFunctions)],
      ['a text answer', ...fates(texts), ...ratesOf(texts)],
    ],
  )
  const ofText = await actionsPerRun(program.temporalAddress, sample(texts.runIds))
  const ofFunctions = await actionsPerRun(program.temporalAddress, sample(withFunctions.runIds))
  const functionsGoal = 6 + 2 * 4
  printTable(
    `Temporal: actions of a run without heartbeats, a sample of ${sampled}`,
    ['', 'actions', 'goal', 'met'],
    [
      ['a text answer', ofText.toFixed(2), '<= 6', ofText <= 6 ? 'yes' : 'NO'],
      [
        'two rounds of functions (6, and 4 for each)',
        ofFunctions.toFixed(2),
        `<= ${functionsGoal}`,
        ofFunctions <= functionsGoal ? 'yes' : 'NO',
      ],
      ['... more than a text answer, per round', ((ofFunctions - ofText) / 2).toFixed(2), '', ''],
    ],
  )
  const tookMs = await measureCancel(bench)
  printTable(
    `Cancelling ${tookMs.length} runs, ${cancelsAtOnce} at a time, while the model streams: from POST to \`cancelled\`, ms`,
    ['', 'p50', 'p95', 'p99', 'goal of p95', 'met'],
    [['', p50(tookMs), p95(tookMs), p99(tookMs), '< 1000', p95(tookMs) < 1000 ? 'yes' : 'NO']],
  )
  if (withFunctions.lost + withFunctions.wrong + texts.lost + texts.wrong > 0) {
    throw new Error('Some runs were lost or answered wrongly')
  }
}

interface Bench {
  client: OpenAI
  stop: AbortSignal
}

function readOptions(args: string[]) {
  const { values } = parseArgs({
    args,
    options: {
      runs: { type: 'string', default: '1000' },
      'at-once': { type: 'string', default: '64' },
    },
  })
  return { runs: Number(values.runs), atOnce: Number(values['at-once']) }
}

async function assistantOf({ client }: Bench, rounds: number): Promise<string> {
  const { id } = await client.beta.assistants.create({
    model: `rounds-${rounds}`,
    tools: [{ type: 'function', function: { name: 'look_up' } }],
  })
  return id
}

interface CarriedOut {
  runIds: string[]
  /** Of each run. */
  tookMs: number[]
  totalMs: number
  /** Runs that did not complete, and those that did with another answer than what they were told. */
  lost: number
  wrong: number
}

async function carryOut(
  bench: Bench,
  assistantId: string,
  total: number,
  atOnce: number,
): Promise<CarriedOut> {
  const { client, stop } = bench
  const threads: string[] = []
  const messages = [{ role: 'user' as const, content: 'What is the answer?' }]
  await inFlight(16, total, stop, async () => {
    threads.push((await client.beta.threads.create({ messages })).id)
  })
  const done: CarriedOut = { runIds: [], tookMs: [], totalMs: 0, lost: 0, wrong: 0 }
  let began = 0
  done.totalMs = await timed(() =>
    inFlight(atOnce, total, stop, async () => {
      const n = began
      began += 1
      const threadId = threads[n] ?? ''
      const beganAt = nowMs()
      const { run, outputs } = await oneRun(bench, threadId, assistantId, n)
      done.tookMs.push(nowMs() - beganAt)
      done.runIds.push(run.id)
      if (run.status !== 'completed') done.lost += 1
      else if ((await answerIn(bench, threadId)) !== `I was told: ${outputs.join(', ')}`) {
        done.wrong += 1
      }
    }),
  )
  return done
}

async function oneRun({ client }: Bench, threadId: string, assistantId: string, n: number) {
  const { runs: api } = client.beta.threads
  const outputs: string[] = []
  let run = await api.createAndPoll(threadId, { assistant_id: assistantId })
  while (run.status === 'requires_action') {
    const output = `output ${outputs.length} of run ${n}`
    outputs.push(output)
    const calls = run.required_action?.submit_tool_outputs.tool_calls ?? []
    run = await api.submitToolOutputsAndPoll(run.id, {
      thread_id: threadId,
      tool_outputs: calls.map(({ id }) => ({ tool_call_id: id, output })),
    })
  }
  return { run, outputs }
}

async function answerIn({ client }: Bench, threadId: string): Promise<string> {
  const { data } = await client.beta.threads.messages.list(threadId, { limit: 1 })
  return (data[0]?.content ?? [])
    .map((part) => (part.type === 'text' ? part.text.value : ''))
    .join('')
}

const cancels = 100
const cancelsAtOnce = 20

async function measureCancel({ client, stop }: Bench): Promise<number[]> {
  const assistant = await client.beta.assistants.create({ model: 'tokens-3000-every-20' })
  const tookMs: number[] = []
  await inFlight(cancelsAtOnce, cancels, stop, async () => {
    const thread = await client.beta.threads.create({
      messages: [{ role: 'user', content: 'Say a lot.' }],
    })
    const events = await client.beta.threads.runs.create(thread.id, {
      assistant_id: assistant.id,
      stream: true,
    })
    let [runId, askedAt, deltas] = ['', 0, 0]
    for await (const { event, data } of events) {
      if (event === 'thread.run.created') runId = data.id
      if (event === 'thread.message.delta') deltas += 1
      if (deltas === 10 && askedAt === 0) {
        askedAt = nowMs()
        await client.beta.threads.runs.cancel(runId, { thread_id: thread.id })
      }
      if (event === 'thread.run.cancelled') tookMs.push(nowMs() - askedAt)
    }
  })
  if (tookMs.length < cancels) throw new Error(`Only ${tookMs.length} of ${cancels} were cancelled`)
  return tookMs
}

const sampled = 50

function sample(runIds: string[]): string[] {
  return runIds.filter((_, index) => index % Math.ceil(runIds.length / sampled) === 0)
}

function fates({ lost, wrong }: CarriedOut): string[] {
  return [String(lost), String(wrong)]
}

function ratesOf({ tookMs, totalMs }: CarriedOut): string[] {
  return rates(tookMs.length, totalMs, tookMs)
}

function rates(total: number, totalMs: number, tookMs: number[]): string[] {
  return [total / (totalMs / 1000), p50(tookMs), p95(tookMs), p99(tookMs)].map(digits)
}

async function timed(act: () => Promise<void>): Promise<number> {
  const began = nowMs()
  await act()
  return nowMs() - began
}
