import { notFound } from '../wire/errors.ts'
import { runEvent } from '../wire/events.ts'
import { presentRun } from '../wire/present/run.ts'
import { presentThread } from '../wire/present/thread.ts'
import type { Tx } from './db.ts'
import type { EventLog } from './events.ts'
import type { PendingCommand } from './outbox.ts'
import { settleResources, type NamedResources } from './resources.ts'
import type { AssistantRow, OutboxCommand, OutboxRow, RunRow, ThreadRow } from './rows.ts'
import { insert } from './sql.ts'
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
}

export async function createRun(
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
