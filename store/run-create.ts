import { notFound } from '../wire/errors.ts'
import { runEvent } from '../wire/events.ts'
import { presentRun } from '../wire/present/run.ts'
import { presentThread } from '../wire/present/thread.ts'
import type { Tx } from './db.ts'
import type { EventLog } from './events.ts'
import type { PendingCommand } from './outbox.ts'
import { settleResources, type NamedResources } from './resources.ts'
import type {
  AssistantRow,
  OnActiveRun,
  OutboxCommand,
  OutboxRow,
  ProjectRow,
  RunRow,
  ThreadRow,
} from './rows.ts'
import { joinQueue } from './run-queue.ts'
import { insert } from './sql.ts'
import {
  addMessages,
  insertThread,
  lockedThread,
  type NewMessage,
  type NewThread,
} from './thread-rows.ts'
import { assertToolChoice } from './tool-choice.ts'

/** What a client asks for; what it leaves out is the assistant's. */
export type NewRun = Pick<
  RunRow,
  | 'id'
  | 'project_id'
  | 'assistant_id'
  | 'metadata'
  | 'created_at'
  | 'max_prompt_tokens'
  | 'max_completion_tokens'
  | 'truncation_strategy'
  | 'tool_choice'
  | 'parallel_tool_calls'
  | 'max_steps'
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
      | 'fallback_models'
    >
  >
  additionalInstructions: string | null
  toolResources?: NamedResources
  /** What to do where the thread is busy; null as the assistant or the project says. */
  onActiveRun: OnActiveRun | null
  /** Seconds that it may live; null as the project says, or else `defaultExpiresAfterS`. */
  expiresAfterS: number | null
  defaultExpiresAfterS: number
}

export interface CreatedRun {
  run: RunRow
  /** To be delivered to Temporal; nothing for a run that waits for its thread. */
  commands: PendingCommand[]
}

export async function createRun(
  tx: Tx,
  log: EventLog,
  run: NewRun,
  target: NewThread | ThreadRow['id'],
  messages: NewMessage[],
): Promise<CreatedRun> {
  const isNew = typeof target !== 'string'
  const thread = isNew
    ? await insertThread(tx, run.project_id, { ...target, created_at: run.created_at }, messages)
    : await lockedThread(tx, run.project_id, target, messages)
  const assistant = await assistantFor(tx, run)
  const mode = run.onActiveRun ?? assistant.on_active_run ?? assistant.project_on_active_run
  const waits =
    !isNew && mode !== null && mode !== 'reject' && (await joinQueue(tx, log, thread.id, mode))

  const row = await insertRun(tx, run, thread.id, { assistant, waits })
  if (!isNew) await addMessages(tx, thread, messages, { held: waits, came_with: run.id })
  const start = await openStream(tx, run.id, waits)
  const object = presentRun(row)
  await log.append(tx, run.id, [
    ...(isNew ? [runEvent('thread.created', presentThread(thread))] : []),
    runEvent('thread.run.created', object),
    runEvent('thread.run.queued', object),
  ])
  const commands = start ? [{ ...start, run: row, assistantName: assistant.name }] : []
  return { run: row, commands }
}

type FoundAssistant = AssistantRow &
  Pick<RunRow, 'file_ids'> & {
    project_on_active_run: ProjectRow['on_active_run']
    project_expires_after_s: number | null
  }

/** The assistant, with what its project says of runs. */
async function assistantFor(tx: Tx, run: NewRun): Promise<FoundAssistant> {
  const [assistant] = await tx.sql<FoundAssistant>(
    `SELECT a.*, p.on_active_run AS project_on_active_run, p.run_expires_after_s AS project_expires_after_s,
       (SELECT coalesce(jsonb_agg(file_id ORDER BY seq), '[]') FROM assistant_files
        WHERE assistant_id = a.id) AS file_ids
     FROM assistants a JOIN projects p ON p.id = a.project_id WHERE a.id = $1 AND a.project_id = $2`,
    [run.assistant_id, run.project_id],
  )
  if (!assistant) throw notFound('assistant', run.assistant_id)
  return assistant
}

/** The stream of a run, and the command that starts it unless it has to wait; then, which messages it is to see. */
async function openStream(
  tx: Tx,
  runId: string,
  waits: boolean,
): Promise<Pick<PendingCommand, 'id' | 'command'> | undefined> {
  if (waits) {
    await tx.sql(
      `WITH s AS (INSERT INTO run_streams (run_id) VALUES ($1))
       UPDATE runs r SET messages_until = (SELECT max(seq) FROM messages m WHERE m.thread_id = r.thread_id)
       WHERE id = $1`,
      [runId],
    )
    return undefined
  }
  const command: OutboxCommand = { kind: 'start' }
  const [entry] = await tx.sql<OutboxRow>(
    `WITH s AS (INSERT INTO run_streams (run_id) VALUES ($1))
     INSERT INTO outbox (run_id, command) VALUES ($1, $2) RETURNING id`,
    [runId, JSON.stringify(command)],
  )
  if (!entry) throw new Error('INSERT INTO outbox returned no row')
  return { id: entry.id, command }
}

async function insertRun(
  tx: Tx,
  run: NewRun,
  threadId: ThreadRow['id'],
  { assistant, waits }: { assistant: FoundAssistant; waits: boolean },
): Promise<RunRow> {
  const {
    overrides,
    additionalInstructions,
    toolResources,
    onActiveRun: _,
    expiresAfterS,
    defaultExpiresAfterS,
    ...rest
  } = run
  const lifeS = expiresAfterS ?? assistant.project_expires_after_s ?? defaultExpiresAfterS
  const resources = toolResources && (await settleResources(tx, run.project_id, toolResources))
  const instructions = [overrides.instructions ?? assistant.instructions, additionalInstructions]
  const tools = overrides.tools ?? assistant.tools
  assertToolChoice({ tool_choice: run.tool_choice, tools })
  const [row] = await insert<RunRow>(tx.sql, 'runs', [
    {
      ...rest,
      thread_id: threadId,
      status: 'queued',
      holds_lock: !waits,
      expires_at: new Date(run.created_at.getTime() + lifeS * 1000),
      model: overrides.model ?? assistant.model,
      // Joined with one space, as the original echoes it.
      instructions: instructions.filter((text) => text !== null && text !== '').join(' ') || null,
      tools,
      tool_resources: resources ?? assistant.tool_resources,
      temperature: overrides.temperature ?? assistant.temperature,
      top_p: overrides.top_p ?? assistant.top_p,
      reasoning_effort: overrides.reasoning_effort ?? assistant.reasoning_effort,
      response_format: overrides.response_format ?? assistant.response_format,
      fallback_models: overrides.fallback_models ?? assistant.fallback_models,
      file_ids: assistant.file_ids,
    },
  ])
  if (!row) throw new Error('INSERT INTO runs returned no row')
  return row
}

export function isLockViolation(error: unknown): boolean {
  return error instanceof Error && 'constraint' in error && error.constraint === lockIndex
}

/** The unique index that lets one run of a thread hold its lock. */
const lockIndex = 'one_run_holds_the_lock'
