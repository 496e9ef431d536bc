import type { Price } from '../wire/cost.ts'
import type { Id } from '../wire/ids.ts'
import type { RunStatus } from '../wire/run-status.ts'

/**
 * The rows of Postgres, one interface a table, columns named as in SQL. Times are `Date`; `seq` orders a list and is a
 * bigint that `pg` hands over as text. What the wire defines is kept as the client sent it, in jsonb.
 */
export type Metadata = Record<string, string>
export type Json = Record<string, unknown>

export interface ProjectRow {
  id: Id<'project'>
  name: string
  created_at: Date
  /** What a run or a message does that comes while the thread is busy; null rejects it. */
  on_active_run: OnActiveRun | null
  /** Seconds that runs of the project may live; null as the server is configured. */
  run_expires_after_s: number | null
}

/**
 * What is done with a run that is asked for while another holds its thread's lock. `enqueue` waits for its turn,
 * `interrupt` cancels what is before it, `rollback` also deletes the messages of what is before it.
 */
export type OnActiveRun = 'reject' | 'enqueue' | 'interrupt' | 'rollback'

export interface ApiKeyRow {
  id: Id<'key'>
  project_id: Id<'project'>
  /** SHA-256 of the key; the key itself is shown once and kept nowhere. */
  hash: Buffer
  /** The last four characters, so that people can tell their keys apart. */
  tail: string
  name: string
  created_at: Date
  revoked_at: Date | null
}

export type ToolRow =
  | { type: 'code_interpreter' }
  | { type: 'file_search'; file_search?: Json }
  | { type: 'function'; function: FunctionTool }

export interface FunctionTool {
  name: string
  description?: string
  parameters?: Json
  strict?: boolean | null
}

export interface ToolResources {
  code_interpreter?: { file_ids: string[] }
  file_search?: { vector_store_ids: string[] }
}

/** What an assistant and a run, which copies it, have in common. */
interface Settings {
  model: string
  instructions: string | null
  tools: ToolRow[]
  tool_resources: ToolResources
  temperature: number | null
  top_p: number | null
  reasoning_effort: string | null
  response_format: 'auto' | Json
}

export interface AssistantRow extends Settings {
  id: Id<'assistant'>
  project_id: Id<'project'>
  seq: string
  created_at: Date
  name: string | null
  description: string | null
  metadata: Metadata
  on_active_run: OnActiveRun | null
  /** Names of models that are asked, in this order, when the assistant's own does not answer. */
  fallback_models: string[]
}

export interface ThreadRow {
  id: Id<'thread'>
  project_id: Id<'project'>
  seq: string
  created_at: Date
  tool_resources: ToolResources
  metadata: Metadata
}

export interface FileRow {
  id: Id<'file'>
  project_id: Id<'project'>
  seq: string
  created_at: Date
  expires_at: Date | null
  /** bigint, which `pg` hands over as text. */
  bytes: string
  filename: string
  purpose: string
  /** As the client said, if it did. */
  mime_type: string | null
  /** The key of the bytes in the blob store. */
  blob: string
}

export type UploadStatus = 'pending' | 'completed' | 'cancelled' | 'expired'

export interface UploadRow {
  id: Id<'upload'>
  project_id: Id<'project'>
  created_at: Date
  expires_at: Date
  filename: string
  bytes: string
  purpose: string
  mime_type: string
  status: UploadStatus
  /** Seconds that the file will live; null for ever. */
  file_expires_after_s: number | null
  file_id: Id<'file'> | null
  /** What it was completed with; null before. */
  part_ids: string[] | null
  md5: string | null
}

export interface UploadPartRow {
  id: Id<'part'>
  upload_id: Id<'upload'>
  created_at: Date
  bytes: string
  blob: string
}

export interface VectorStoreRow {
  id: Id<'vector_store'>
  project_id: Id<'project'>
  seq: string
  created_at: Date
  name: string | null
  description: string | null
  metadata: Metadata
  /** Days after the last use; null for ever. */
  expires_after_days: number | null
  last_active_at: Date
}

export interface VectorStoreFileRow {
  vector_store_id: Id<'vector_store'>
  file_id: Id<'file'>
  seq: string
  created_at: Date
  status: 'in_progress' | 'completed' | 'cancelled' | 'failed'
  attributes: Json
  chunking_strategy: Json
}

export interface AssistantFileRow {
  assistant_id: Id<'assistant'>
  file_id: Id<'file'>
  seq: string
  created_at: Date
}

export type MessageStatus = 'in_progress' | 'incomplete' | 'completed'

export type ContentPart =
  | { type: 'text'; text: { value: string; annotations: Json[] } }
  | { type: 'refusal'; refusal: string }
  | { type: 'image_file'; image_file: { file_id: string; detail: string } }
  | { type: 'image_url'; image_url: { url: string; detail: string } }

export interface Attachment {
  file_id: string
  tools: { type: 'code_interpreter' | 'file_search' }[]
}

export interface MessageRow {
  id: Id<'message'>
  project_id: Id<'project'>
  thread_id: Id<'thread'>
  seq: string
  created_at: Date
  role: 'user' | 'assistant'
  status: MessageStatus
  content: ContentPart[]
  attachments: Attachment[]
  metadata: Metadata
  assistant_id: Id<'assistant'> | null
  run_id: Id<'run'> | null
  /** The model turn of the run that wrote it; null for messages that a client created. */
  turn: number | null
  completed_at: Date | null
  incomplete_at: Date | null
  incomplete_reason: string | null
  /** Written by an attempt that was cut and begun anew: in no list and no prompt. */
  superseded: boolean
  /** Written while a run was at work: that run does not see it, and it moves to the end of the thread for the next one. */
  held: boolean
  /** The run whose `additional_messages` it was among. */
  came_with: Id<'run'> | null
}

export interface Usage {
  prompt_tokens: number
  completion_tokens: number
  total_tokens: number
  prompt_token_details: { cached_tokens: number }
  completion_tokens_details: { reasoning_tokens: number }
}

export interface RunFailure {
  code: 'server_error' | 'rate_limit_exceeded' | 'invalid_prompt'
  message: string
}

/** Why an attempt at a model turn failed, and what comes of it. */
export interface AttemptFailure extends RunFailure {
  /** Set where this model is not asked again. */
  is_final?: boolean
  /** When it is asked again, in milliseconds since 1970; undefined where nobody has said. */
  retry_at_ms?: number
  /** Set where a filter stopped the answer: the message that was being written says so at its end. */
  is_filtered?: boolean
}

export interface FunctionCall {
  id: Id<'call'>
  type: 'function'
  function: { name: string; arguments: string }
}

export interface RunRow extends Settings {
  id: Id<'run'>
  project_id: Id<'project'>
  thread_id: Id<'thread'>
  assistant_id: Id<'assistant'>
  seq: string
  status: RunStatus
  /**
   * At most one run of a thread holds its lock; the transaction that ends a run hands it to the next. A run that waits for
   * it is `queued`, and its deadline begins when it gets it.
   */
  holds_lock: boolean
  created_at: Date
  started_at: Date | null
  expires_at: Date
  cancelled_at: Date | null
  failed_at: Date | null
  completed_at: Date | null
  required_action: { step_id: Id<'step'>; tool_calls: FunctionCall[] } | null
  last_error: RunFailure | null
  incomplete_reason: string | null
  metadata: Metadata
  usage: Usage | null
  max_prompt_tokens: number | null
  max_completion_tokens: number | null
  /** What `assistants=v1` shows of the assistant's files. */
  file_ids: string[]
  truncation_strategy: { type: 'auto' | 'last_messages'; last_messages: number | null }
  tool_choice: string | Json
  parallel_tool_calls: boolean
  fallback_models: string[]
  /** Model turns; null as the server is configured. */
  max_steps: number | null
  /** The newest message, by `seq`, that the run is to see of those that are held back when it gets the lock; bigint as text. */
  messages_until: string | null
  /** Its messages are deleted when it ends. */
  rolls_back: boolean
  /** What its prompts left out of the thread; null where they left out nothing. */
  context: RunContext | null
  /** US dollars, numeric as text; null until the end, and where no price is known. */
  cost: string | null
  /** Whether some of `usage` was counted here, since the provider never said. */
  usage_estimated: boolean
}

/** What the truncation left out: everything between the head and the tail of the thread. */
export interface RunContext {
  /** Messages of the thread that the model was not shown. */
  dropped_messages: number
  /** Earlier tool calls of the run itself that the model was not shown any more, with their outputs. */
  dropped_tool_calls: number
  /** The head: messages up to this `seq`; null where there is none. */
  head_until: string | null
  /** The tail: messages from this `seq` on. */
  tail_from: string | null
  /** Messages before the tail, those of the head included: later runs go on from this number. */
  messages_before: number
  /** When that was counted, as an ISO time by the clock of the database. */
  counted_at: string
}

export type StepStatus = 'in_progress' | 'completed' | 'failed' | 'cancelled' | 'expired'

export interface RunStepRow {
  id: Id<'step'>
  project_id: Id<'project'>
  thread_id: Id<'thread'>
  run_id: Id<'run'>
  assistant_id: Id<'assistant'>
  seq: string
  turn: number
  type: 'message_creation' | 'tool_calls'
  status: StepStatus
  /** The message of a `message_creation` step. */
  message_id: Id<'message'> | null
  created_at: Date
  expires_at: Date
  expired_at: Date | null
  cancelled_at: Date | null
  failed_at: Date | null
  completed_at: Date | null
  last_error: RunFailure | null
  usage: Usage | null
  superseded: boolean
  /** The model that was asked; null where no model has been. */
  model: string | null
  /** The models that were asked before it and did not answer. */
  failed_models: FailedModel[]
}

export interface FailedModel extends RunFailure {
  model: string
}

export interface ToolCallRow {
  id: Id<'call'>
  run_id: Id<'run'>
  step_id: Id<'step'>
  turn: number
  /** Position among the calls of its step. */
  idx: number
  type: 'code_interpreter' | 'file_search' | 'function'
  name: string
  /** What the model wrote, unparsed. */
  arguments: string
  /** What the model is told; null until the call has been carried out. */
  output: string | null
  /** What a built-in tool shows in the step, e.g. the code interpreter's `outputs`. */
  outputs: Json[]
  /** Who carries it out: this server, or the client by submit_tool_outputs. */
  runs_on: 'server' | 'client'
  fence: number
  /** Where code of this call was begun, the newest time; null before. */
  begun: BegunCode | null
  /** What its code has written to /mnt/data. */
  files: CodeFileRef[]
}

/** The sandbox in which code was begun: the host and the generation of the thread's session. */
export interface BegunCode {
  host_id: string
  generation: number
  /** How often the code has been begun: more than once where a sandbox was lost under it. */
  times: number
}

export interface CodeFileRef {
  /** Under /mnt/data. */
  path: string
  file_id: Id<'file'>
}

/** A process that can run code. */
export interface SandboxHostRow {
  id: string
  /** Sandboxes at once. */
  capacity: number
  state: SandboxHostState
  heartbeat_at: Date
}

/** `why` and `progress` are sentences for people. */
export type SandboxHostState =
  | { kind: 'ready' }
  | { kind: 'building'; progress: string }
  | { kind: 'failed'; why: string }

/** The sandbox of a thread. */
export interface SandboxSessionRow {
  thread_id: Id<'thread'>
  /** Null where it is in none. */
  host_id: string | null
  /** Counts the sandboxes that the thread has had. */
  generation: number
  /** Whether code has run in the newest of them, so that variables are lost with it. */
  has_state: boolean
  last_used_at: Date
}

/** What lies under a path of a thread's /mnt/data. */
export interface SandboxFileRow {
  thread_id: Id<'thread'>
  path: string
  file_id: Id<'file'>
  /** SHA-256 of its bytes. */
  digest: Buffer
}

/** One model turn of a run. `fence` counts attempts: a write that carries an older one changes nothing. */
export interface TurnRow {
  run_id: Id<'run'>
  turn: number
  generation: number
  generation_id: string
  fence: number
  /** Whether a client may have seen something of this generation. */
  emitted: boolean
  result: TurnResult | null
  /** Why the last attempt failed, in full: what a provider says may quote people, so Temporal is told less. */
  failure: AttemptFailure | null
  /** The model call of this generation; null until something of it was shown. */
  call: ModelCall | null
  /** The model that is asked: the run's, or one that it falls back on. Null before the first claim. */
  model: string | null
  /** Those that were asked before it in this turn or in earlier ones, and did not answer. */
  failed_models: FailedModel[]
  /** When the current attempt began; null before the first. */
  begun_at: Date | null
  /** When `failure` came about: later than `begun_at` while the next attempt is waited for. */
  failed_at: Date | null
}

/** What must be known of a model call to say what it cost, should it be cut before the provider tells. */
export interface ModelCall {
  model: string
  prompt_tokens: number
  price: Price | null
}

/** How a model turn ended; kept with the turn, so that no finished model call is ever made twice. */
export type TurnResult =
  | { kind: 'ended'; status: RunStatus | 'gone' }
  | { kind: 'tools'; stepId: Id<'step'>; calls: ServerCall[]; waitsForClient: boolean }
  | { kind: 'requires_action'; stepId: Id<'step'> }

export interface ServerCall {
  id: Id<'call'>
  name: string
}

export interface OutboxRow {
  id: string
  run_id: Id<'run'>
  command: OutboxCommand
  created_at: Date
}

export type OutboxCommand =
  | { kind: 'start' }
  | { kind: 'tool_outputs'; stepId: Id<'step'> }
  | { kind: 'cancel' }
