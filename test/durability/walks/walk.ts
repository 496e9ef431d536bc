import { Client as Temporal, Connection } from '@temporalio/client'
import { Pool } from 'pg'
import { expect, inject } from 'vitest'

import { isTerminal, type RunStatus } from '../../../wire/run-status.ts'
import { createCaller, type Body } from '../../api/caller.ts'
import { eventually } from '../../local/scratch.ts'
import { lookUp } from '../../support/cluster.ts'
import { terminateWorkflow } from '../../support/own-parts.ts'
import type { TestServer } from '../../support/server.ts'
import { commands, type Caller, type Walker } from './commands.ts'
import { createHistory, type History } from './history.ts'
import { answerAtRandom } from './model.ts'
import { createRandom, type Random } from '../../support/random.ts'
import { checkLog, checkThread, type Ask } from './rules.ts'

export interface WalkOptions {
  seed: number
  clients: number
  threads: number
  /** Of each client. */
  commands: number
  /** How often an operator terminates the workflow of a run, as a share of the commands. */
  terminations?: number
}

export interface Walked {
  commands: number
  /** How many runs came to which end. */
  ends: Record<string, number>
}

/**
 * Clients that ask for whatever comes to their minds, on the same few threads and all at once; after every command the
 * rules of its thread are looked at. In the end every run is brought to its end, and everything is looked at.
 */
export async function walk(server: TestServer, options: WalkOptions): Promise<Walked> {
  await using stack = new AsyncDisposableStack()
  const pool = new Pool({ connectionString: server.databaseUrl, max: 4 })
  stack.defer(() => pool.end())
  const ask: Ask = async (text, values) => (await pool.query(text, values)).rows as never
  const history = createHistory()
  const caller = createCaller(server)
  server.model.respond(answerAtRandom(createRandom(options.seed)))
  const assistant = await caller.make('/assistants', { model: 'gpt-4o', tools: [lookUp] })
  const threads: string[] = []
  for (let n = 0; n < options.threads; n += 1) threads.push(await newThread(caller))
  const world: World = {
    ...options,
    ask,
    history,
    caller,
    threads,
    assistantId: assistant.id,
    ends: {},
  }
  await Promise.all(Array.from({ length: options.clients }, (_, n) => stroll(world, n)))
  for (const threadId of threads) {
    await blaming(world, threadId, () => settle(world, threadId))
    await blaming(world, threadId, () => checkSettled(world, threadId))
  }
  await checkNothingIsLeft(ask, server)
  for (const threadId of threads) await countEnds(world, threadId)
  return { commands: history.length, ends: world.ends }
}

interface World extends Omit<WalkOptions, 'threads'> {
  ask: Ask
  history: History
  caller: Caller
  /** Their ids. */
  threads: string[]
  assistantId: string
  /** Of the threads that are gone. */
  ends: Walked['ends']
}

async function newThread(caller: Caller): Promise<string> {
  const messages = [{ role: 'user', content: 'Where do we go?' }]
  return (await caller.make('/threads', { messages })).id
}

/** One client's way. */
async function stroll(world: World, n: number): Promise<void> {
  const random = createRandom(world.seed + 1 + n)
  for (let step = 0; step < world.commands; step += 1) {
    const threadId = random.pick(world.threads)
    const walker = newWalker(world, random, threadId, `client ${n}`)
    const command = random.weighed(commands)
    await blaming(world, threadId, async () => {
      await command(walker)
      if (random.chance(world.terminations ?? 0)) await terminateSome(world, threadId)
      if (random.chance(replaced)) await replaceThread(world, threadId)
      await checkThread(world.ask, threadId)
      await checkVisible(world, threadId)
    })
  }
}

function newWalker(world: World, random: Random, threadId: string, client: string): Walker {
  const { caller, history, assistantId } = world
  return {
    random,
    caller,
    threadId,
    assistantId,
    async ask(method, path, body, { refusals, isValid }) {
      const signal = AbortSignal.timeout(patienceMs)
      const asked = `${method} ${path.replace(`/threads/${threadId}`, '')} ${JSON.stringify(body) ?? ''}`
      const answer = await caller.send(method, path, body, { signal }).catch((error: unknown) => {
        if (!signal.aborted) throw error
        history.note(threadId, client, `${asked} -> left`)
        return undefined
      })
      // A stream may last as long as a run that waits for others; its client has gone away.
      if (!answer) return { status: 0, headers: new Headers(), body: {} as Body, text: '' }
      const { status } = answer
      const said =
        status === 200 ? JSON.stringify(answer.body['status']) : answer.body.error?.message
      history.note(threadId, client, `${asked} -> ${status} ${said}`)
      if (status === 200) {
        expect(isValid, `${asked} was answered with 200`).toBe(true)
        return answer
      }
      expect([400, 404], `${asked} was answered with ${status} ${answer.text}`).toContain(status)
      const isKnown = refusals.some((one) => one.test(answer.body.error.message))
      expect(isKnown, `${asked} was refused: ${answer.body.error.message}`).toBe(true)
      return answer
    },
  }
}

const patienceMs = 3000

/** How often a client deletes the thread that it has just been at, with all that is under way in it. */
const replaced = 0.015

async function replaceThread(world: World, threadId: string): Promise<void> {
  const { threads, caller, history } = world
  const another = await newThread(caller)
  const at = threads.indexOf(threadId)
  // Another client may have been quicker.
  if (at < 0) return
  threads[at] = another
  await countEnds(world, threadId)
  const { status } = await caller.delete(`/threads/${threadId}`)
  history.note(threadId, 'client', `deletes the thread: ${status}`)
  expect(status).toBe(200)
}

async function countEnds({ ask, ends }: World, threadId: string): Promise<void> {
  const counts = await ask<{ status: RunStatus; n: number }>(
    'SELECT status, count(*)::integer AS n FROM runs WHERE thread_id = $1 GROUP BY status',
    [threadId],
  )
  for (const { status, n } of counts) {
    if (isTerminal(status)) ends[status] = (ends[status] ?? 0) + n
  }
}

/** Adds to whatever goes wrong how it can be done again, and what led to it. */
async function blaming(world: World, threadId: string, act: () => Promise<void>): Promise<void> {
  try {
    await act()
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error)
    throw new Error(
      `WALK_SEED=${world.seed}, thread ${threadId}: ${reason}\n${world.history.of(threadId)}`,
      { cause: error },
    )
  }
}

async function terminateSome({ ask, history }: World, threadId: string): Promise<void> {
  const [run] = await ask<{ id: string }>(
    'SELECT id FROM runs WHERE thread_id = $1 AND holds_lock',
    [threadId],
  )
  if (!run) return
  // There may be none yet, or none any more.
  const wasThere = await terminateWorkflow(run.id, inject('temporalAddress')).then(
    () => true,
    () => false,
  )
  history.note(threadId, 'operator', `terminates ${run.id}: ${wasThere}`)
}

/** What was superseded is in no list. */
async function checkVisible({ ask, caller }: World, threadId: string): Promise<void> {
  const superseded = await ask<{ id: string }>(
    'SELECT id FROM messages WHERE thread_id = $1 AND superseded',
    [threadId],
  )
  const { body, status } = await caller.get(`/threads/${threadId}/messages?limit=100`)
  if (status === 404) return
  const seen = new Set(body.data.map(({ id }) => id))
  expect(superseded.filter(({ id }) => seen.has(id))).toEqual([])
}

/** Hands in what runs wait for, until none is under way any more. */
async function settle({ ask, caller }: World, threadId: string): Promise<void> {
  await eventually(async () => {
    const open = await ask<{ id: string; status: string }>(
      `SELECT id, status FROM runs WHERE thread_id = $1
         AND status IN ('queued', 'in_progress', 'requires_action', 'cancelling')`,
      [threadId],
    )
    for (const { id } of open.filter(({ status }) => status === 'requires_action')) {
      await caller.post(`/threads/${threadId}/runs/${id}/cancel`)
    }
    return open.length === 0
  }, 60_000)
}

async function checkSettled({ ask, caller }: World, threadId: string): Promise<void> {
  await checkThread(ask, threadId)
  const runs = await ask<{ id: string; status: string; last_error: object | null }>(
    'SELECT id, status, last_error FROM runs WHERE thread_id = $1 ORDER BY seq',
    [threadId],
  )
  for (const run of runs) {
    await checkLog(ask, run.id)
    // Every failure has its reason.
    expect(run.last_error === null).toBe(run.status !== 'failed')
    const { body } = await caller.get(`/threads/${threadId}/runs/${run.id}/steps?limit=100`)
    expect(body.data.map(({ status }) => status)).not.toContain('in_progress')
  }
  const held = await ask('SELECT id FROM messages WHERE thread_id = $1 AND held', [threadId])
  expect(held, 'messages are held back for nobody').toEqual([])
  const messages = await caller.get(`/threads/${threadId}/messages?limit=100`)
  expect(messages.body.data.map(({ status }) => status)).not.toContain('in_progress')
}

async function checkNothingIsLeft(ask: Ask, { config }: TestServer): Promise<void> {
  await eventually(async () => (await ask('SELECT 1 FROM outbox')).length === 0)
  const connection = await Connection.connect({ address: inject('temporalAddress') })
  try {
    const temporal = new Temporal({ connection, namespace: config.temporal.namespace })
    const query = `TaskQueue = '${config.temporal.taskQueue}' AND ExecutionStatus = 'Running'`
    await eventually(async () => (await temporal.workflow.count(query)).count === 0, 30_000)
  } finally {
    await connection.close()
  }
}
