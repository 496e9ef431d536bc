import {
  DataTypes,
  type Model,
  type ModelAttributes,
  type ModelStatic,
  type Sequelize,
} from 'sequelize'

import type { AssistantRow, FileRow, MessageRow, RunRow, RunStepRow, ThreadRow } from '../rows.ts'

/** Sequelize models of what clients create, read and list; the run engine's own tables are reached by SQL. */
export type TableOf<Row extends object> = ModelStatic<Model<Row, Partial<Row>>>

export interface Models {
  assistants: TableOf<AssistantRow>
  threads: TableOf<ThreadRow>
  files: TableOf<FileRow>
  messages: TableOf<MessageRow>
  runs: TableOf<RunRow>
  runSteps: TableOf<RunStepRow>
}

const text = DataTypes.TEXT
const json = DataTypes.JSONB
const time = DataTypes.DATE
const flag = DataTypes.BOOLEAN
const integer = DataTypes.INTEGER
const number = DataTypes.DOUBLE
const id = { type: text, primaryKey: true }
/** Filled by the database. */
const seq = { type: DataTypes.BIGINT, autoIncrement: true, autoIncrementIdentity: true }

const settings = {
  model: text,
  instructions: text,
  tools: json,
  tool_resources: json,
  temperature: number,
  top_p: number,
  reasoning_effort: text,
  response_format: json,
}

export function defineModels(sequelize: Sequelize): Models {
  const table = <Row extends object>(name: string, columns: Record<keyof Row, unknown>) =>
    sequelize.define<Model<Row, Partial<Row>>>(
      name,
      columns as ModelAttributes<Model<Row, Partial<Row>>, Row>,
      { tableName: name },
    )
  const owned = { id, project_id: text, created_at: time }
  return {
    assistants: table<AssistantRow>('assistants', {
      ...owned,
      ...settings,
      seq,
      name: text,
      description: text,
      metadata: json,
      on_active_run: text,
      fallback_models: json,
    }),
    threads: table<ThreadRow>('threads', { ...owned, seq, tool_resources: json, metadata: json }),
    files: table<FileRow>('files', {
      ...owned,
      seq,
      expires_at: time,
      bytes: DataTypes.BIGINT,
      filename: text,
      purpose: text,
      mime_type: text,
      blob: text,
    }),
    messages: table<MessageRow>('messages', {
      ...owned,
      thread_id: text,
      seq,
      role: text,
      status: text,
      content: json,
      attachments: json,
      metadata: json,
      assistant_id: text,
      run_id: text,
      turn: integer,
      completed_at: time,
      incomplete_at: time,
      incomplete_reason: text,
      superseded: flag,
      held: flag,
      came_with: text,
    }),
    runs: table<RunRow>('runs', {
      ...owned,
      ...settings,
      thread_id: text,
      assistant_id: text,
      seq,
      status: text,
      holds_lock: flag,
      started_at: time,
      expires_at: time,
      cancelled_at: time,
      failed_at: time,
      completed_at: time,
      required_action: json,
      last_error: json,
      incomplete_reason: text,
      metadata: json,
      usage: json,
      max_prompt_tokens: integer,
      max_completion_tokens: integer,
      file_ids: json,
      truncation_strategy: json,
      tool_choice: json,
      parallel_tool_calls: flag,
      fallback_models: json,
      max_steps: integer,
      messages_until: DataTypes.BIGINT,
      rolls_back: flag,
      context: json,
      cost: DataTypes.DECIMAL,
      usage_estimated: flag,
    }),
    runSteps: table<RunStepRow>('run_steps', {
      ...owned,
      thread_id: text,
      run_id: text,
      assistant_id: text,
      seq,
      turn: integer,
      type: text,
      status: text,
      message_id: text,
      expires_at: time,
      expired_at: time,
      cancelled_at: time,
      failed_at: time,
      completed_at: time,
      last_error: json,
      usage: json,
      superseded: flag,
      model: text,
      failed_models: json,
    }),
  }
}
