import { z } from 'zod'
import { missingParameter } from '../wire/errors.ts'
import {
  MAX_FUNCTION_NAME_CHARS,
  MAX_RUN_EXPIRES_AFTER_SECONDS,
  MAX_STEPS,
  MIN_TOKEN_BUDGET,
} from '../wire/limits.ts'
import type * as Official from '../wire/openai.ts'
import {
  FallbackModels,
  Instructions,
  Metadata,
  MetadataChange,
  Model,
  OnActiveRun,
  ReasoningEffort,
  ResponseFormat,
  Temperature,
  ToolResourceIds,
  Tools,
  TopP,
} from './assistants.schema.ts'
import { CreateMessage } from './messages.schema.ts'
import { CreateThread } from './threads.schema.ts'
import { id, integer, list, refuse, text } from './validation.ts'
import type { Accepts, Holds, SameKeys } from './validation.ts'

const TruncationStrategy = z
  .strictObject({
    type: z.enum(['auto', 'last_messages']),
    last_messages: integer(1).nullable().default(null),
  })
  .check((ctx) => {
    if (ctx.value.type !== 'last_messages' || ctx.value.last_messages !== null) return
    refuse(ctx, missingParameter, ['last_messages'])
  })
export type TruncationStrategy = z.infer<typeof TruncationStrategy>

/** `types` are the tools by the names of a dialect. */
export function namedToolChoice<const Types extends readonly ['function', ...string[]]>(
  types: Types,
) {
  return z
    .strictObject({
      type: z.enum(types),
      function: z.strictObject({ name: text(MAX_FUNCTION_NAME_CHARS, 1) }).optional(),
    })
    .check((ctx) => {
      if (ctx.value.type !== 'function' || ctx.value.function) return
      refuse(ctx, missingParameter, ['function'])
    })
}
const NamedToolChoice = namedToolChoice(['function', 'code_interpreter', 'file_search'])
export const ToolChoice = z.union([z.enum(['none', 'auto', 'required']), NamedToolChoice])
export type ToolChoice = z.infer<typeof ToolChoice>

/** Null or absent: the assistant's own, except for the three that an assistant does not have. */
const fields = {
  assistant_id: id('assistant'),
  model: Model.nullish(),
  reasoning_effort: ReasoningEffort.nullish(),
  instructions: Instructions.nullish(),
  additional_instructions: Instructions.nullish(),
  additional_messages: list(CreateMessage, { of: 'objects' }).nullish(),
  tools: Tools.nullish(),
  metadata: Metadata.nullish(),
  temperature: Temperature.nullish(),
  top_p: TopP.nullish(),
  stream: z.boolean().nullish(),
  max_prompt_tokens: integer(MIN_TOKEN_BUDGET).nullish(),
  max_completion_tokens: integer(MIN_TOKEN_BUDGET).nullish(),
  truncation_strategy: TruncationStrategy.nullish().transform(
    (value) => value ?? { type: 'auto' as const, last_messages: null },
  ),
  tool_choice: ToolChoice.nullish().transform((value) => value ?? 'auto'),
  parallel_tool_calls: z
    .boolean()
    .nullish()
    .transform((value) => value ?? true),
  response_format: ResponseFormat.nullish(),
  /** Ours: how long the run may live, where the original's ten minutes are too few. */
  expires_after_seconds: integer(1, MAX_RUN_EXPIRES_AFTER_SECONDS).nullish(),
  /** Ours: what to do when the thread is busy. The original always rejects. */
  on_active_run: OnActiveRun.nullish(),
  /** Ours: model turns, at most as many as the server allows. */
  max_steps: integer(1, MAX_STEPS).nullish(),
  fallback_models: FallbackModels.nullish(),
}

export const CreateRun = z.strictObject(fields)
export type CreateRun = z.infer<typeof CreateRun>

export const CreateThreadAndRun = z.strictObject({
  ...fields,
  thread: CreateThread.nullish(),
  tool_resources: ToolResourceIds.nullish(),
})
export type CreateThreadAndRun = z.infer<typeof CreateThreadAndRun>

export const ModifyRun = z.strictObject({ metadata: MetadataChange.nullish() })
export type ModifyRun = z.infer<typeof ModifyRun>

const ToolOutput = z.strictObject({ tool_call_id: z.string(), output: z.string().default('') })
export const SubmitToolOutputs = z.strictObject({
  tool_outputs: list(ToolOutput, { of: 'objects' }),
  stream: z.boolean().nullish(),
})
export type SubmitToolOutputs = z.infer<typeof SubmitToolOutputs>

// --- ties: drift between these schemas and the official package does not compile -------------

type Ours = 'expires_after_seconds' | 'on_active_run' | 'max_steps' | 'fallback_models'
/** Accepted on threads/runs too, where the published schema forgot them. */
type Forgotten = 'reasoning_effort' | 'additional_instructions' | 'additional_messages'
/** `include` travels in the query. */
type RunParams = Omit<Official.RunCreateParamsBase, 'include'>
type ThreadAndRunParams = Official.ThreadCreateAndRunParamsBase
type SubmitParams = Omit<Official.RunSubmitToolOutputsParamsBase, 'thread_id'>
/** Without its call id an output answers nothing: we ask for it. */
type Answer = Official.RunSubmitToolOutputsParams.ToolOutput & { tool_call_id: string }
/** See messages.schema.ts about attachments. */
type Loose = 'additional_messages' | 'thread'
export type Ties = [
  Holds<SameKeys<RunParams, z.input<typeof CreateRun>, Ours>>,
  Holds<Accepts<Omit<RunParams, Loose>, z.input<typeof CreateRun>>>,
  Holds<SameKeys<Official.RunCreateParams.AdditionalMessage, CreateMessage>>,
  Holds<SameKeys<Official.RunCreateParams.TruncationStrategy, TruncationStrategy>>,
  Holds<SameKeys<Official.AssistantToolChoice, z.input<typeof NamedToolChoice>>>,
  Holds<SameKeys<ThreadAndRunParams, z.input<typeof CreateThreadAndRun>, Ours | Forgotten>>,
  Holds<Accepts<Omit<ThreadAndRunParams, Loose>, z.input<typeof CreateThreadAndRun>>>,
  Holds<SameKeys<Official.ThreadCreateAndRunParams.Thread, CreateThread>>,
  Holds<SameKeys<Official.ThreadCreateAndRunParams.ToolResources, ToolResourceIds>>,
  Holds<SameKeys<Omit<Official.RunUpdateParams, 'thread_id'>, ModifyRun>>,
  Holds<SameKeys<SubmitParams, SubmitToolOutputs>>,
  Holds<SameKeys<Official.RunSubmitToolOutputsParams.ToolOutput, z.input<typeof ToolOutput>>>,
  Holds<Accepts<Answer, z.input<typeof ToolOutput>>>,
]
