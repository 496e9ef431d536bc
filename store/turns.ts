import type { Delta } from '../wire/deltas.ts'
import { runEvent, type RunEvent } from '../wire/events.ts'
import { idFrom } from '../wire/ids.ts'
import { presentMessage } from '../wire/present/message.ts'
import { presentRun } from '../wire/present/run.ts'
import { presentRunStep } from '../wire/present/run-step.ts'
import { isTerminal, type RunStatus } from '../wire/run-status.ts'
import { isConnectionError, type Db, type Tx } from './db.ts'
import { createDeltaWriter, FencedError, type TurnDeltas } from './delta-writer.ts'
import type { EventLog } from './events.ts'
import type {
  ContentPart,
  MessageRow,
  RunFailure,
  RunRow,
  RunStepRow,
  ToolCallRow,
  TurnResult,
  TurnRow,
  Usage,
} from './rows.ts'
import {
  closeOpenWork,
  completeStep,
  endRun,
  lockRun,
  moveRun,
  released,
  usageOf,
  type RunEnd,
} from './runs.ts'
import { insert } from './sql.ts'
import type { Logger } from '../log.ts'

/** One model turn of a run, written so that it may be attempted twice and happens once. */
export interface Turns extends AsyncDisposable {
  /**
   * Takes the turn for this attempt: whoever held it before can write nothing more. A turn that has a result is not
   * attempted again. What an earlier attempt has shown to clients is closed as incomplete, and new ids are used.
   */
  claim(runId: string, turn: number, generationId: string): Promise<Claim>
  /** Hands the run to the client once our own tools of the step are done; nothing where the run is not in progress. */
  askClient(runId: string, stepId: RunStepRow['id']): Promise<void>
}

export type Claim =
  | { kind: 'done'; result: TurnResult }
  | { kind: 'stopped'; status: RunStatus | 'gone' }
  | { kind: 'claimed'; turn: ClaimedTurn }

export interface ClaimedTurn extends Disposable {
  run: RunRow
  /** 0 for the first turn of the run. */
  number: number
  /** Aborts when another attempt has taken over, or the run has ended. */
  lost: AbortSignal
  /** The id of the turn's call at this position. */
  callId(index: number): ToolCallRow['id']
  /** Makes the step and the message that the model has begun to write. */
  openMessage(): Promise<void>
  /** Makes the step that holds the tool calls of this turn. */
  openToolStep(): Promise<void>
  pushText(index: number, type: 'text' | 'refusal', text: string, first: boolean): void
  pushCall(index: number, call: Pick<TurnCall, 'id' | 'type' | 'name'>): void
  pushArguments(index: number, type: TurnCall['type'], text: string): void
  /** Resolves once clients can read all that was pushed: before an attempt that failed leaves its message to the next. */
  written(): Promise<void>
  /** Keeps why this attempt failed: should it be the last, the run's `last_error` says so. */
  keepFailure(failure: RunFailure): Promise<void>
  /** Keeps what the model has said, as its result and for ever; ends the run where nothing is left to do. */
  commit(end: TurnEnd): Promise<TurnResult>
  /** Ends the run in the middle of the turn: cancelled, or past its deadline. Counts what was used so far. */
  stop(how: RunEnd, usage: Usage | undefined): Promise<TurnResult>
}

export interface TurnCall {
  id: ToolCallRow['id']
  type: ToolCallRow['type']
  name: string
  arguments: string
  runsOn: ToolCallRow['runs_on']
  /** Set where the call is wrong in itself: the model is told so and nothing is carried out. */
  output: string | null
}

export interface TurnEnd {
  content: ContentPart[]
  calls: TurnCall[]
  usage: Usage
  /** Set where the model was cut short by a limit: the run ends as incomplete. */
  incomplete?: 'max_prompt_tokens' | 'max_completion_tokens'
}

export function createTurns(db: Db, events: EventLog, log: Logger): Turns {
  const writer = createDeltaWriter(db, events, log)
  return {
    // A claim that is repeated takes the turn from nobody but itself.
    async claim(runId, turn, generationId) {
      const claim = await outlasting(() =>
        db.tx((tx) => claimTurn(tx, events, { runId, turn, generationId })),
      )
      if (claim.kind !== 'claimed') return claim
      const { run, row, lastSeq } = claim
      const deltas = writer.open({ ...row, runId, lastSeq })
      return { kind: 'claimed', turn: claimedTurn({ db, events }, run, row, deltas) }
    },
    askClient: (runId, stepId) =>
      db.tx(async (tx) => {
        const run = await lockRun(tx, runId)
        if (run?.status !== 'in_progress') return
        await events.append(tx, runId, await requireAction(tx, run, stepId))
      }),
    [Symbol.asyncDispose]: () => writer[Symbol.asyncDispose](),
  }
}

/** How long a Postgres that went away is waited for before the turn is given up, to be attempted again later. */
const outageMs = 30_000

interface Parts {
  db: Db
  events: EventLog
}

type ClaimedRow =
  | Exclude<Claim, { kind: 'claimed' }>
  | { kind: 'claimed'; run: RunRow; row: TurnRow; lastSeq: number }

async function claimTurn(
  tx: Tx,
  events: EventLog,
  wanted: { runId: string; turn: number; generationId: string },
): Promise<ClaimedRow> {
  const run = await lockRun(tx, wanted.runId)
  if (!run) return { kind: 'stopped', status: 'gone' }
  const [row] = await tx.sql<TurnRow & { last_seq: number }>(
    `INSERT INTO run_turns (run_id, turn, generation_id) VALUES ($1, $2, $3)
     ON CONFLICT (run_id, turn) DO UPDATE SET fence = run_turns.fence + 1
     RETURNING *, (SELECT last_seq FROM run_streams WHERE run_id = $1)`,
    [wanted.runId, wanted.turn, wanted.generationId],
  )
  if (!row) throw new Error('INSERT INTO run_turns returned no row')
  // First, for a workflow that begins again: its run may have been cancelled while there was none to hear of it.
  if (isTerminal(run.status) || run.status === 'cancelling') {
    return { kind: 'stopped', status: run.status }
  }
  if (row.result) return { kind: 'done', result: await resultNow(tx, row.result) }
  const said: RunEvent[] = []
  if (row.emitted) {
    said.push(
      ...(await closeOpenWork(tx, run, {
        messageReason: 'run_failed',
        stepStatus: 'failed',
        error: {
          code: 'server_error',
          message: 'The worker was replaced; the turn is written anew.',
        },
        superseded: true,
      })),
    )
    await tx.sql(
      `UPDATE run_turns SET emitted = false, generation = generation + 1 WHERE run_id = $1 AND turn = $2`,
      [run.id, wanted.turn],
    )
    row.generation += 1
  }
  said.push(...(await completeEarlierStep(tx, run, wanted.turn)))
  let current = run
  if (run.status === 'queued') {
    const moved = await moveRun(tx, run.id, 'in_progress', { started_at: new Date() })
    if (!moved) throw new Error(`Run ${run.id} may not start from ${run.status}`)
    said.push(runEvent('thread.run.in_progress', presentRun(moved)))
    current = moved
  }
  if (said.length > 0) await events.append(tx, run.id, said)
  return { kind: 'claimed', run: current, row, lastSeq: row.last_seq + said.length }
}

/** A workflow that begins again meets results whose consequences have come about: outputs may be there by now. */
async function resultNow(tx: Tx, result: TurnResult): Promise<TurnResult> {
  if (result.kind === 'ended') return result
  const [step] = await tx.sql<RunStepRow>('SELECT * FROM run_steps WHERE id = $1', [result.stepId])
  return step && step.status !== 'in_progress'
    ? { kind: 'tools', stepId: result.stepId, calls: [], waitsForClient: false }
    : result
}

/** The step of our own tools is completed by the turn that reads their outputs: one activity less for every round. */
async function completeEarlierStep(tx: Tx, run: RunRow, turn: number): Promise<RunEvent[]> {
  if (turn === 0) return []
  const open = await tx.sql<RunStepRow>(
    `SELECT id FROM run_steps WHERE run_id = $1 AND turn < $2 AND type = 'tool_calls' AND status = 'in_progress'`,
    [run.id, turn],
  )
  const events: RunEvent[] = []
  for (const { id } of open) events.push(...(await completeStep(tx, run, id)))
  return events
}

function claimedTurn(parts: Parts, run: RunRow, row: TurnRow, deltas: TurnDeltas): ClaimedTurn {
  // Ids follow from the generation, so that an attempt which nobody has seen is repeated under the same ids.
  const idOf = <Kind extends 'message' | 'step' | 'call'>(kind: Kind, n: number) =>
    idFrom(kind, row.generation_id, row.generation * 1000 + n)
  const messageId = idOf('message', 0)
  const messageStepId = idOf('step', 1)
  const toolStepId = idOf('step', 2)
  const opened = { message: false, tools: false }
  const fenced = { ...parts, run, row, deltas }

  return {
    run,
    number: row.turn,
    lost: deltas.lost,
    callId: (index) => idOf('call', 10 + index),
    async openMessage() {
      opened.message = true
      await structural(fenced, messageStepId, async (tx) => {
        const step = await insertStep(tx, run, row.turn, {
          id: messageStepId,
          type: 'message_creation',
          message_id: messageId,
        })
        const [message] = await insert<MessageRow>(tx.sql, 'messages', [
          {
            id: messageId,
            project_id: run.project_id,
            thread_id: run.thread_id,
            created_at: new Date(),
            role: 'assistant',
            status: 'in_progress',
            content: [],
            attachments: [],
            metadata: {},
            assistant_id: run.assistant_id,
            run_id: run.id,
            turn: row.turn,
          },
        ])
        if (!message) throw new Error('INSERT INTO messages returned no row')
        const object = presentMessage(message)
        return [
          ...stepBegins(run, step),
          runEvent('thread.message.created', object),
          runEvent('thread.message.in_progress', object),
        ]
      })
    },
    async openToolStep() {
      opened.tools = true
      await structural(fenced, toolStepId, async (tx) =>
        stepBegins(
          run,
          await insertStep(tx, run, row.turn, { id: toolStepId, type: 'tool_calls' }),
        ),
      )
    },
    pushText(index, type, text, first) {
      deltas.push({ of: 'message', id: messageId, index, type, text, first } satisfies Delta)
    },
    pushCall(index, { id, type, name }) {
      deltas.push({ of: 'call', stepId: toolStepId, index, opened: { id, type, name } })
    },
    pushArguments(index, type, text) {
      deltas.push({ of: 'arguments', stepId: toolStepId, index, type, text })
    },
    written: () => deltas.written(),
    async keepFailure(failure) {
      await outlasting(() =>
        parts.db.sql(
          'UPDATE run_turns SET failure = $4 WHERE run_id = $1 AND turn = $2 AND fence = $3',
          [run.id, row.turn, row.fence, JSON.stringify(failure)],
        ),
      )
    },
    async commit(end) {
      return ending(fenced, async (tx, current, pending) => {
        await insertUsage(tx, run, row, end.usage)
        const said: RunEvent[] = [...pending]
        const incomplete = end.incomplete ? 'max_tokens' : null
        if (opened.message) {
          said.push(
            await finishMessage(tx, messageId, end.content, incomplete),
            ...(await finishStep(tx, run, messageStepId, end.calls.length > 0 ? null : end.usage)),
          )
        }
        const outcome = opened.tools
          ? await keepCalls(tx, run, row, toolStepId, end)
          : ({ kind: 'ended', status: end.incomplete ? 'incomplete' : 'completed' } as const)
        said.push(...(await settleRun(tx, current, row, outcome, end)))
        await append(fenced, tx, said, { last: outcome.kind === 'ended' })
        return outcome
      })
    },
    async stop(how, usage) {
      return ending(fenced, async (tx, current, pending) => {
        if (usage) await insertUsage(tx, run, row, usage)
        // Before the message is put together from the log.
        if (pending.length > 0) await append(fenced, tx, pending)
        const ended = await endRun(tx, parts.events, current, how)
        const outcome = { kind: 'ended', status: ended.status } as const
        return outcome
      })
    },
    [Symbol.dispose]: () => deltas[Symbol.dispose](),
  }
}

interface FencedTurn extends Parts {
  run: RunRow
  row: TurnRow
  deltas: TurnDeltas
}

/** A change that clients see: from now on a repetition must use new ids. */
async function structural(
  turn: FencedTurn,
  stepId: RunStepRow['id'],
  work: (tx: Tx) => Promise<RunEvent[]>,
): Promise<void> {
  await inTurn(turn, async ({ tx, current, emitted, pending, retried }) => {
    if (isTerminal(current.status)) throw new FencedError(current.id)
    if (retried) {
      const [step] = await tx.sql('SELECT id FROM run_steps WHERE id = $1', [stepId])
      if (step) return
    }
    const events = await work(tx)
    if (!emitted) {
      await tx.sql('UPDATE run_turns SET emitted = true WHERE run_id = $1 AND turn = $2', [
        turn.run.id,
        turn.row.turn,
      ])
    }
    await append(turn, tx, [...pending, ...events])
  })
}

/** Among these may be deltas: the writer must know that they are in the log, should it have to look for its own. */
async function append(
  turn: FencedTurn,
  tx: Tx,
  events: RunEvent[],
  options?: { last: boolean },
): Promise<void> {
  const seq = await turn.events.append(tx, turn.run.id, events, options)
  tx.afterCommit(() => turn.deltas.advance(seq))
}

/** A transaction that gives the turn its result; one whose commit went through unheard is not made again. */
async function ending(
  turn: FencedTurn,
  work: (tx: Tx, current: RunRow, pending: RunEvent[]) => Promise<TurnResult>,
): Promise<TurnResult> {
  return inTurn(turn, async ({ tx, current, result: kept, pending }) => {
    if (kept) return kept
    if (isTerminal(current.status)) throw new FencedError(current.id)
    const result = await work(tx, current, pending)
    await tx.sql('UPDATE run_turns SET result = $3 WHERE run_id = $1 AND turn = $2', [
      current.id,
      turn.row.turn,
      JSON.stringify(result),
    ])
    return result
  })
}

interface TurnTx {
  tx: Tx
  current: RunRow
  emitted: boolean
  result: TurnResult | null
  /** What the writer still held of this turn; it comes before whatever this transaction appends. */
  pending: RunEvent[]
  /** Whether an earlier try lost its connection and may have been committed all the same. */
  retried: boolean
}

/** A transaction of this attempt: with the run's lock, and the fence checked. */
async function inTurn<T>(turn: FencedTurn, work: (given: TurnTx) => Promise<T>): Promise<T> {
  const pending = await turn.deltas.take()
  return outlasting((retried) =>
    turn.db.tx(async (tx) => {
      const [held] = await tx.sql<RunRow & Pick<TurnRow, 'fence' | 'emitted' | 'result'>>(
        `SELECT r.*, t.fence, t.emitted, t.result FROM run_streams s
         JOIN runs r ON r.id = s.run_id JOIN run_turns t ON t.run_id = s.run_id
         WHERE s.run_id = $1 AND t.turn = $2 FOR NO KEY UPDATE OF s, r, t`,
        [turn.run.id, turn.row.turn],
      )
      if (held?.fence !== turn.row.fence) throw new FencedError(turn.run.id)
      const { fence: _, emitted, result, ...current } = held
      return work({ tx, current, emitted, result, pending, retried })
    }),
  )
}

/** Repeats what a restarting Postgres broke. `retried`: an earlier try may have been committed all the same. */
async function outlasting<T>(work: (retried: boolean) => Promise<T>): Promise<T> {
  const deadline = performance.now() + outageMs
  for (let retried = false; ; retried = true) {
    try {
      return await work(retried)
    } catch (error) {
      if (!isConnectionError(error) || performance.now() > deadline) throw error
      await new Promise((resolve) => setTimeout(resolve, 250))
    }
  }
}

async function insertStep(
  tx: Tx,
  run: RunRow,
  turn: number,
  step: Pick<RunStepRow, 'id' | 'type'> & Partial<RunStepRow>,
): Promise<RunStepRow> {
  const [row] = await insert<RunStepRow>(tx.sql, 'run_steps', [
    {
      ...step,
      project_id: run.project_id,
      thread_id: run.thread_id,
      run_id: run.id,
      assistant_id: run.assistant_id,
      turn,
      status: 'in_progress',
      created_at: new Date(),
      expires_at: run.expires_at,
    },
  ])
  if (!row) throw new Error('INSERT INTO run_steps returned no row')
  return row
}

function stepBegins(run: RunRow, step: RunStepRow): RunEvent[] {
  const object = presentRunStep(step, [], run.expires_at)
  return [
    runEvent('thread.run.step.created', object),
    runEvent('thread.run.step.in_progress', object),
  ]
}

async function finishMessage(
  tx: Tx,
  id: string,
  content: ContentPart[],
  incompleteReason: string | null,
): Promise<RunEvent> {
  const [message] = await tx.sql<MessageRow>(
    `UPDATE messages SET content = $2, status = $3, incomplete_reason = $4, completed_at = $5, incomplete_at = $6
     WHERE id = $1 RETURNING *`,
    [
      id,
      JSON.stringify(content),
      incompleteReason ? 'incomplete' : 'completed',
      incompleteReason,
      incompleteReason ? null : new Date(),
      incompleteReason ? new Date() : null,
    ],
  )
  if (!message) throw new Error(`Message ${id} is gone`)
  const event = incompleteReason ? 'thread.message.incomplete' : 'thread.message.completed'
  return runEvent(event, presentMessage(message))
}

async function finishStep(
  tx: Tx,
  run: RunRow,
  id: string,
  usage: Usage | null,
): Promise<RunEvent[]> {
  const [step] = await tx.sql<RunStepRow>(
    `UPDATE run_steps SET status = 'completed', completed_at = $2, usage = $3 WHERE id = $1 RETURNING *`,
    [id, new Date(), usage && JSON.stringify(usage)],
  )
  if (!step) throw new Error(`Step ${id} is gone`)
  return [runEvent('thread.run.step.completed', presentRunStep(step, [], run.expires_at))]
}

/** Keeps the calls that the model asked for, and says who has to act. The step of the calls carries the turn's usage. */
async function keepCalls(
  tx: Tx,
  run: RunRow,
  row: TurnRow,
  stepId: RunStepRow['id'],
  end: TurnEnd,
): Promise<TurnResult> {
  await insert<ToolCallRow>(
    tx.sql,
    'tool_calls',
    end.calls.map((call, idx) => ({
      id: call.id,
      run_id: run.id,
      step_id: stepId,
      turn: row.turn,
      idx,
      type: call.type,
      name: call.name,
      arguments: call.arguments,
      output: call.output,
      runs_on: call.runsOn,
    })),
  )
  await tx.sql('UPDATE run_steps SET usage = $2 WHERE id = $1', [stepId, JSON.stringify(end.usage)])
  if (end.incomplete) return { kind: 'ended', status: 'incomplete' }
  const open = end.calls.filter(({ output }) => output === null)
  const ours = open.filter(({ runsOn }) => runsOn === 'server')
  if (ours.length === 0 && open.length > 0) return { kind: 'requires_action', stepId }
  return {
    kind: 'tools',
    stepId,
    calls: ours.map(({ id, name }) => ({ id, name })),
    waitsForClient: ours.length < open.length,
  }
}

/** Moves the run where the turn's outcome decides it; a cancel that came first wins over everything but the end. */
async function settleRun(
  tx: Tx,
  current: RunRow,
  row: TurnRow,
  outcome: TurnResult,
  end: TurnEnd,
): Promise<RunEvent[]> {
  switch (outcome.kind) {
    case 'tools':
      return []
    case 'requires_action':
      return current.status === 'cancelling' ? [] : requireAction(tx, current, outcome.stepId)
    case 'ended': {
      const status = outcome.status === 'incomplete' ? 'incomplete' : 'completed'
      const steps = end.incomplete
        ? await closeOpenWork(tx, current, {
            messageReason: 'max_tokens',
            stepStatus: 'completed',
            superseded: false,
          })
        : []
      const ended = await moveRun(tx, current.id, status, {
        ...released,
        // Most runs are one call of the model: then it is known what they used.
        usage: row.turn + row.generation === 0 ? end.usage : await usageOf(tx.sql, current.id),
        completed_at: new Date(),
        ...(end.incomplete && { incomplete_reason: end.incomplete }),
      })
      if (!ended)
        throw new Error(`Run ${current.id} may not go from ${current.status} to ${status}`)
      return [...steps, runEvent(`thread.run.${status}`, presentRun(ended))]
    }
    default:
      return outcome satisfies never
  }
}

/** Hands the run to the client: it waits for the outputs of the step's function calls. */
export async function requireAction(
  tx: Tx,
  run: RunRow,
  stepId: RunStepRow['id'],
): Promise<RunEvent[]> {
  const calls = await tx.sql<ToolCallRow>(
    `SELECT * FROM tool_calls WHERE step_id = $1 AND runs_on = 'client' AND output IS NULL ORDER BY idx`,
    [stepId],
  )
  const moved = await moveRun(tx, run.id, 'requires_action', {
    required_action: {
      step_id: stepId,
      tool_calls: calls.map(({ id, name, arguments: args }) => ({
        id,
        type: 'function',
        function: { name, arguments: args },
      })),
    },
  })
  return moved ? [runEvent('thread.run.requires_action', presentRun(moved))] : []
}

async function insertUsage(tx: Tx, run: RunRow, row: TurnRow, usage: Usage): Promise<void> {
  await tx.sql(
    `INSERT INTO usage (run_id, turn, generation, project_id, thread_id, assistant_id, model,
       prompt_tokens, completion_tokens, cached_tokens, reasoning_tokens)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)`,
    [
      run.id,
      row.turn,
      row.generation,
      run.project_id,
      run.thread_id,
      run.assistant_id,
      run.model,
      usage.prompt_tokens,
      usage.completion_tokens,
      usage.prompt_token_details.cached_tokens,
      usage.completion_tokens_details.reasoning_tokens,
    ],
  )
}
