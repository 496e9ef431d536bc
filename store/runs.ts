import type { Logger } from '../log.ts'
import {
  cannotCancel,
  notFound,
  outputsDoNotMatch,
  outputsNotAccepted,
  threadLockedForRun,
} from '../wire/errors.ts'
import { contentOf } from '../wire/deltas.ts'
import { runEvent, type RunEvent } from '../wire/events.ts'
import { presentMessage } from '../wire/present/message.ts'
import { presentRun } from '../wire/present/run.ts'
import { presentRunStep } from '../wire/present/run-step.ts'
import { presentThread } from '../wire/present/thread.ts'
import { isTerminal, mayBecome, type RunStatus, type TerminalStatus } from '../wire/run-status.ts'
import type { Db, Sql, Tx } from './db.ts'
import type { EventLog } from './events.ts'
import type {
  AssistantRow,
  MessageRow,
  OutboxCommand,
  OutboxRow,
  RunFailure,
  RunRow,
  RunStepRow,
  ThreadRow,
  ToolCallRow,
  TurnRow,
  Usage,
} from './rows.ts'
import type { PendingCommand } from './outbox.ts'
import { settleResources, type NamedResources } from './resources.ts'
import { assignments, insert } from './sql.ts'
import {
  addMessages,
  insertThread,
  lockedThread,
  type NewMessage,
  type NewThread,
} from './thread-rows.ts'

/** What a client asks for; what it leaves out is the assistant's. */
export type NewRun = Pick<
  RunRow,
  | 'id'
  | 'project_id'
  | 'assistant_id'
  | 'metadata'
  | 'created_at'
  | 'expires_at'
  | 'max_prompt_tokens'
  | 'max_completion_tokens'
  | 'truncation_strategy'
  | 'tool_choice'
  | 'parallel_tool_calls'
> & {
  overrides: Partial<
    Pick<
      RunRow,
      | 'model'
      | 'instructions'
      | 'tools'
      | 'temperature'
      | 'top_p'
      | 'reasoning_effort'
      | 'response_format'
    >
  >
  additionalInstructions: string | null
  toolResources?: NamedResources
}

/** How a run ends that no model turn has ended. */
export interface RunEnd {
  status: Exclude<TerminalStatus, 'completed'>
  error?: RunFailure
  incompleteReason?: 'max_prompt_tokens' | 'max_completion_tokens'
}

export interface Runs {
  /**
   * Adds the messages and the run to a thread, which is created first when it is given whole: rows, events and the start
   * command in one transaction; the command is returned, to be delivered at once. Throws notFound(thread | assistant),
   * noSuchFile, vectorStoreNotFound and threadLockedForRun.
   */
  create(
    run: NewRun,
    thread: NewThread | ThreadRow['id'],
    messages: NewMessage[],
  ): Promise<PendingCommand>
  /**
   * Hands in the outputs of the run's pending calls; all of them at once. The events it causes start after `after`. Where the
   * request `isRepeated`, outputs that are there already are no error; the same is true of a run that is cancelled already.
   */
  submitOutputs(
    key: RunKey,
    outputs: ToolOutput[],
    isRepeated: boolean,
  ): Promise<{ run: RunRow; after: number }>
  requestCancel(key: RunKey, isRepeated: boolean): Promise<RunRow>
  /**
   * Ends a run, its open step and its open message; changes nothing when it has ended already. Gives the status that it has
   * then, and nothing when the run is gone.
   */
  end(runId: string, how: RunEnd): Promise<RunStatus | undefined>
  /** Runs that are not terminal although their deadline has passed by `graceMs`. */
  overdue(graceMs: number): Promise<Pick<RunRow, 'id' | 'status'>[]>
  /** The ids of the runs that are not terminal and older than `ageMs`, with nothing on its way to Temporal for them. */
  openIds(ageMs: number): Promise<RunRow['id'][]>
  /** The run, unless it has ended or something is on its way to Temporal for it. */
  openRun(id: string): Promise<RunRow | undefined>
}

export interface RunKey {
  projectId: string
  threadId: string
  runId: string
}

export interface ToolOutput {
  tool_call_id: string
  output: string
}

export function createRuns(db: Db, events: EventLog, log: Logger): Runs {
  return {
    async create(run, thread, messages) {
      try {
        return await db.tx((tx) => createRun(tx, events, run, thread, messages))
      } catch (error) {
        if (typeof thread !== 'string' || !isLockViolation(error)) throw error
        const [active] = await db.sql<RunRow>(
          'SELECT id FROM runs WHERE thread_id = $1 AND holds_lock',
          [thread],
        )
        // It may have ended in between; the answer is about the moment of the request.
        throw threadLockedForRun(thread, active?.id ?? 'which has just ended')
      }
    },
    submitOutputs: (key, outputs, isRepeated) =>
      db.tx(async (tx) => {
        const run = await lockRunOf(tx, key)
        const before = isRepeated ? await submittedBefore(tx, run, outputs) : undefined
        return before ?? submitOutputs(tx, events, run, outputs)
      }),
    requestCancel: (key, isRepeated) =>
      db.tx(async (tx) => {
        const run = await lockRunOf(tx, key)
        if (run.status === 'cancelling' || (isRepeated && run.status === 'cancelled')) return run
        return requestCancel(tx, events, run)
      }),
    async end(runId, how) {
      const ended = await db.tx(async (tx) => {
        const run = await lockRun(tx, runId)
        if (!run || isTerminal(run.status)) return run
        return endRun(tx, events, run, await inFull(tx, runId, how))
      })
      if (ended) log.info({ run_id: runId, status: ended.status }, 'the run has ended')
      return ended?.status
    },
    overdue: (graceMs) =>
      db.sql(
        `SELECT id, status FROM runs WHERE status IN ('queued', 'in_progress', 'requires_action', 'cancelling')
           AND expires_at < now() - $1 * interval '1 millisecond' LIMIT 500`,
        [graceMs],
      ),
    async openIds(ageMs) {
      const rows = await db.sql<Pick<RunRow, 'id'>>(
        `SELECT id FROM runs r WHERE ${isOpen} AND created_at < now() - $1 * interval '1 millisecond'`,
        [ageMs],
      )
      return rows.map(({ id }) => id)
    },
    async openRun(id) {
      const [row] = await db.sql<RunRow>(`SELECT * FROM runs r WHERE ${isOpen} AND id = $1`, [id])
      return row
    },
  }
}

const isOpen = `status IN ('queued', 'in_progress', 'requires_action', 'cancelling') AND holds_lock
  AND NOT EXISTS (SELECT FROM outbox o WHERE o.run_id = r.id)`

/**
 * Takes the run's lock (the row of its stream, then the run): the first statement of every transaction that changes a run.
 * Undefined when the run is gone. Both rows are locked, so both are read as they are after the wait.
 */
export async function lockRun(tx: Tx, runId: string): Promise<RunRow | undefined> {
  const [run] = await tx.sql<RunRow>(
    `SELECT r.* FROM run_streams s JOIN runs r ON r.id = s.run_id
     WHERE s.run_id = $1 FOR NO KEY UPDATE OF s, r`,
    [runId],
  )
  return run
}

/** A guarded change of status; undefined when the run's status does not allow it. The event is the caller's. */
export async function moveRun(
  tx: Tx,
  runId: string,
  status: RunStatus,
  patch: Partial<RunRow> = {},
): Promise<RunRow | undefined> {
  const { set, values } = assignments({ status, ...patch }, 1)
  const from = mayBecome(status)
    .map((s) => `'${s}'`)
    .join(', ')
  const [row] = await tx.sql<RunRow>(
    `UPDATE runs SET ${set} WHERE id = $1 AND status IN (${from}) RETURNING *`,
    [runId, ...values],
  )
  return row
}

/** The patch that every end of a run shares; it gives the thread's lock back. */
export const released = { holds_lock: false, required_action: null } satisfies Partial<RunRow>

/** What the model calls of a run have used so far. */
export async function usageOf(sql: Sql, runId: string): Promise<Usage> {
  const [sum] = await sql<Record<'prompt' | 'completion' | 'cached' | 'reasoning', number>>(
    `SELECT coalesce(sum(prompt_tokens), 0)::int AS prompt, coalesce(sum(completion_tokens), 0)::int AS completion,
       coalesce(sum(cached_tokens), 0)::int AS cached, coalesce(sum(reasoning_tokens), 0)::int AS reasoning
     FROM usage WHERE run_id = $1`,
    [runId],
  )
  const { prompt, completion, cached, reasoning } = sum ?? {
    prompt: 0,
    completion: 0,
    cached: 0,
    reasoning: 0,
  }
  return {
    prompt_tokens: prompt,
    completion_tokens: completion,
    total_tokens: prompt + completion,
    prompt_token_details: { cached_tokens: cached },
    completion_tokens_details: { reasoning_tokens: reasoning },
  }
}

/**
 * Ends a run outside of a model turn, in the order of events that clients expect: message, step, run. The text of a
 * message that was being written is put together from its deltas in the log, since its writer may be gone.
 */
export async function endRun(
  tx: Tx,
  log: EventLog,
  run: RunRow,
  { status, error, incompleteReason }: RunEnd,
): Promise<RunRow> {
  const now = new Date()
  const closing = await closeOpenWork(tx, run, {
    messageReason: {
      cancelled: 'run_cancelled',
      expired: 'run_expired',
      failed: 'run_failed',
      incomplete: 'max_tokens',
    }[status],
    stepStatus: status === 'incomplete' ? 'completed' : status,
    error,
    superseded: false,
  })
  const ended = await moveRun(tx, run.id, status, {
    ...released,
    usage: await usageOf(tx.sql, run.id),
    ...(status === 'cancelled' && { cancelled_at: now }),
    ...(status === 'failed' && { failed_at: now }),
    ...(status === 'incomplete' && { completed_at: now }),
    ...(error && { last_error: error }),
    ...(incompleteReason && { incomplete_reason: incompleteReason }),
  })
  if (!ended) throw new Error(`Run ${run.id} may not go from ${run.status} to ${status}`)
  const events = [...closing, runEvent(`thread.run.${status}`, presentRun(ended))]
  await log.append(tx, run.id, events, { last: true })
  return ended
}

/** Temporal's history holds no more of a failure than its kind; the whole of it is kept with the turn. */
async function inFull(tx: Tx, runId: string, how: RunEnd): Promise<RunEnd> {
  if (how.status !== 'failed') return how
  const [turn] = await tx.sql<Pick<TurnRow, 'failure'>>(
    'SELECT failure FROM run_turns WHERE run_id = $1 ORDER BY turn DESC LIMIT 1',
    [runId],
  )
  return turn?.failure && turn.failure.code === how.error?.code
    ? { ...how, error: turn.failure }
    : how
}

/** Closes the message and the steps that are in progress, and returns the events that say so. */
export async function closeOpenWork(
  tx: Tx,
  run: RunRow,
  how: {
    messageReason: string
    stepStatus: Exclude<RunStepRow['status'], 'in_progress'>
    error?: RunFailure
    superseded: boolean
  },
): Promise<RunEvent[]> {
  const now = new Date()
  const events: RunEvent[] = []
  const messages = await tx.sql<MessageRow>(
    `SELECT * FROM messages WHERE run_id = $1 AND status = 'in_progress'`,
    [run.id],
  )
  for (const message of messages) {
    const deltas = await tx.sql<{ data: string }>(
      `SELECT data FROM run_events WHERE run_id = $1 AND event = 'thread.message.delta'
         AND seq > (SELECT max(seq) FROM run_events WHERE run_id = $1 AND event = 'thread.message.created')
       ORDER BY seq`,
      [run.id],
    )
    const [closed] = await tx.sql<MessageRow>(
      `UPDATE messages SET status = 'incomplete', content = $2, incomplete_at = $3, incomplete_reason = $4,
         superseded = $5 WHERE id = $1 RETURNING *`,
      [message.id, JSON.stringify(contentOf(deltas)), now, how.messageReason, how.superseded],
    )
    if (closed) events.push(runEvent('thread.message.incomplete', presentMessage(closed)))
  }
  const steps = await tx.sql<RunStepRow>(
    `UPDATE run_steps SET status = $2, superseded = $3, last_error = $4,
       completed_at = CASE WHEN $2 = 'completed' THEN $5::timestamptz END,
       cancelled_at = CASE WHEN $2 = 'cancelled' THEN $5::timestamptz END,
       failed_at = CASE WHEN $2 = 'failed' THEN $5::timestamptz END,
       expired_at = CASE WHEN $2 = 'expired' THEN $5::timestamptz END
     WHERE run_id = $1 AND status = 'in_progress' RETURNING *`,
    [run.id, how.stepStatus, how.superseded, stepError(how), now],
  )
  for (const step of steps) {
    const calls = await callsOf(tx.sql, step)
    events.push(
      runEvent(`thread.run.step.${how.stepStatus}`, presentRunStep(step, calls, run.expires_at)),
    )
  }
  return events
}

/** The tool calls of a step, in order; none for the step of a message. */
export async function callsOf(sql: Sql, step: RunStepRow): Promise<ToolCallRow[]> {
  if (step.type !== 'tool_calls') return []
  return sql<ToolCallRow>('SELECT * FROM tool_calls WHERE step_id = $1 ORDER BY idx', [step.id])
}

export async function enqueue(tx: Tx, runId: string, command: OutboxCommand): Promise<void> {
  await tx.sql('INSERT INTO outbox (run_id, command) VALUES ($1, $2)', [
    runId,
    JSON.stringify(command),
  ])
}

async function createRun(
  tx: Tx,
  log: EventLog,
  run: NewRun,
  target: NewThread | ThreadRow['id'],
  messages: NewMessage[],
): Promise<PendingCommand> {
  const isNew = typeof target !== 'string'
  const thread = isNew
    ? await insertThread(tx, run.project_id, target, messages)
    : await lockedThread(tx, run.project_id, target, messages)
  const [assistant] = await tx.sql<AssistantRow & Pick<RunRow, 'file_ids'>>(
    `SELECT *, (SELECT coalesce(jsonb_agg(file_id ORDER BY seq), '[]') FROM assistant_files
       WHERE assistant_id = a.id) AS file_ids FROM assistants a WHERE id = $1 AND project_id = $2`,
    [run.assistant_id, run.project_id],
  )
  if (!assistant) throw notFound('assistant', run.assistant_id)

  const row = await insertRun(tx, run, thread.id, assistant)
  if (!isNew) await addMessages(tx, thread, messages)
  const command: OutboxCommand = { kind: 'start' }
  const [entry] = await tx.sql<OutboxRow>(
    `WITH s AS (INSERT INTO run_streams (run_id) VALUES ($1))
     INSERT INTO outbox (run_id, command) VALUES ($1, $2) RETURNING id`,
    [run.id, JSON.stringify(command)],
  )
  if (!entry) throw new Error('INSERT INTO outbox returned no row')
  const object = presentRun(row)
  await log.append(tx, run.id, [
    ...(isNew ? [runEvent('thread.created', presentThread(thread))] : []),
    runEvent('thread.run.created', object),
    runEvent('thread.run.queued', object),
  ])
  return { id: entry.id, command, run: row, assistantName: assistant.name }
}

async function insertRun(
  tx: Tx,
  run: NewRun,
  threadId: ThreadRow['id'],
  assistant: AssistantRow & Pick<RunRow, 'file_ids'>,
): Promise<RunRow> {
  const { overrides, additionalInstructions, toolResources, ...rest } = run
  const resources = toolResources && (await settleResources(tx, run.project_id, toolResources))
  const instructions = [overrides.instructions ?? assistant.instructions, additionalInstructions]
  const [row] = await insert<RunRow>(tx.sql, 'runs', [
    {
      ...rest,
      thread_id: threadId,
      status: 'queued',
      holds_lock: true,
      model: overrides.model ?? assistant.model,
      // Joined with one space, as the original echoes it.
      instructions: instructions.filter((text) => text !== null && text !== '').join(' ') || null,
      tools: overrides.tools ?? assistant.tools,
      tool_resources: resources ?? assistant.tool_resources,
      temperature: overrides.temperature ?? assistant.temperature,
      top_p: overrides.top_p ?? assistant.top_p,
      reasoning_effort: overrides.reasoning_effort ?? assistant.reasoning_effort,
      response_format: overrides.response_format ?? assistant.response_format,
      file_ids: assistant.file_ids,
    },
  ])
  if (!row) throw new Error('INSERT INTO runs returned no row')
  return row
}

/** Whether these outputs were handed in by a request whose answer was lost; its events begin with the end of their step. */
async function submittedBefore(
  tx: Tx,
  run: RunRow,
  outputs: ToolOutput[],
): Promise<{ run: RunRow; after: number } | undefined> {
  const [known] = await tx.sql<{ n: number; step_id: string }>(
    `SELECT count(*)::integer AS n, min(t.step_id) AS step_id FROM tool_calls t
     JOIN unnest($2::text[], $3::text[]) AS o (id, output) ON o.id = t.id AND o.output = t.output
     WHERE t.run_id = $1`,
    [run.id, outputs.map((one) => one.tool_call_id), outputs.map(({ output }) => output)],
  )
  if (!known || known.n === 0 || known.n < outputs.length) return undefined
  const [ended] = await tx.sql<{ seq: number }>(
    `SELECT seq FROM run_events WHERE run_id = $1 AND event = 'thread.run.step.completed'
       AND data::jsonb ->> 'id' = $2`,
    [run.id, known.step_id],
  )
  return ended && { run, after: ended.seq - 1 }
}

async function submitOutputs(
  tx: Tx,
  log: EventLog,
  run: RunRow,
  outputs: ToolOutput[],
): Promise<{ run: RunRow; after: number }> {
  const pending = run.required_action
  if (run.status !== 'requires_action' || !pending) throw outputsNotAccepted(run.status)
  const expected = pending.tool_calls.map(({ id }) => id as string)
  const got = outputs.map(({ tool_call_id }) => tool_call_id)
  if (JSON.stringify(expected.toSorted()) !== JSON.stringify(got.toSorted())) {
    throw outputsDoNotMatch(expected, got)
  }

  await tx.sql(
    `UPDATE tool_calls t SET output = o.output FROM unnest($2::text[], $3::text[]) AS o (id, output)
     WHERE t.step_id = $1 AND t.id = o.id`,
    [pending.step_id, got, outputs.map(({ output }) => output)],
  )
  const [stream] = await tx.sql<{ last_seq: number }>(
    'SELECT last_seq FROM run_streams WHERE run_id = $1',
    [run.id],
  )
  const completed = await completeStep(tx, run, pending.step_id)
  const moved = await moveRun(tx, run.id, 'queued', { required_action: null })
  if (!moved) throw outputsNotAccepted(run.status)
  await log.append(tx, run.id, [...completed, runEvent('thread.run.queued', presentRun(moved))])
  await enqueue(tx, run.id, { kind: 'tool_outputs', stepId: pending.step_id })
  return { run: moved, after: stream?.last_seq ?? 0 }
}

/** Completes a step of tool calls, if it is in progress, and returns the event that says so. */
export async function completeStep(tx: Tx, run: RunRow, stepId: string): Promise<RunEvent[]> {
  const [step] = await tx.sql<RunStepRow>(
    `UPDATE run_steps SET status = 'completed', completed_at = $2
     WHERE id = $1 AND status = 'in_progress' RETURNING *`,
    [stepId, new Date()],
  )
  if (!step) return []
  const calls = await callsOf(tx.sql, step)
  return [runEvent('thread.run.step.completed', presentRunStep(step, calls, run.expires_at))]
}

async function requestCancel(tx: Tx, log: EventLog, run: RunRow): Promise<RunRow> {
  const moved = await moveRun(tx, run.id, 'cancelling', { required_action: null })
  if (!moved) throw cannotCancel(run.status)
  await log.append(tx, run.id, [runEvent('thread.run.cancelling', presentRun(moved))])
  // A run that no worker has in hand is over at once, and needs none to be so.
  if (run.status !== 'in_progress') await endRun(tx, log, moved, { status: 'cancelled' })
  await enqueue(tx, run.id, { kind: 'cancel' })
  await log.tellControl(tx, run.id)
  return moved
}

async function lockRunOf(tx: Tx, { projectId, threadId, runId }: RunKey): Promise<RunRow> {
  const run = await lockRun(tx, runId)
  if (!run || run.project_id !== projectId || run.thread_id !== threadId)
    throw notFound('run', runId)
  return run
}

function isLockViolation(error: unknown): boolean {
  return error instanceof Error && 'constraint' in error && error.constraint === lockIndex
}

/** The unique index that lets one run of a thread hold its lock. */
const lockIndex = 'one_run_holds_the_lock'

function stepError(how: { stepStatus: string; error?: RunFailure }): string | null {
  if (how.stepStatus !== 'failed' || !how.error) return null
  return JSON.stringify(how.error)
}
