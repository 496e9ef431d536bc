import { z } from 'zod'

import { attachmentsFromV1, toolFromV1 } from '../wire/dialect.ts'
import { MAX_ASSISTANT_FILES, MAX_MESSAGE_FILES, MAX_TOOLS } from '../wire/limits.ts'
import {
  CodeInterpreterTool,
  CreateAssistant as CreateAssistantV2,
  FunctionTool as FunctionToolV2,
  ModifyAssistant as ModifyAssistantV2,
} from './assistants.schema.ts'
import { ContentText, CreateMessage as CreateMessageV2 } from './messages.schema.ts'
import {
  CreateRun as CreateRunV2,
  CreateThreadAndRun as CreateThreadAndRunV2,
  namedToolChoice,
} from './runs.schema.ts'
import { CreateThread as CreateThreadV2, ModifyThread as ModifyThreadV2 } from './threads.schema.ts'
import { id, list } from './validation.ts'

/**
 * The bodies of `assistants=v1`: v2's, with what v1 did not have left out and its own words in place. Each gives what its
 * namesake of v2 gives, so that handlers know one kind of input; only an assistant's `file_ids` come on top.
 */

const FunctionTool = FunctionToolV2.extend({
  function: FunctionToolV2.shape.function.omit({ strict: true }),
})
const Tool = z.discriminatedUnion('type', [
  CodeInterpreterTool,
  FunctionTool,
  z.strictObject({ type: z.literal('retrieval') }),
])
const Tools = list(Tool, { of: 'objects', maximum: MAX_TOOLS }).transform((tools) =>
  tools.map(toolFromV1),
)

/** `none` and `auto` said the same: nothing in particular. */
const ResponseFormat = z
  .union([
    z.enum(['none', 'auto']),
    z.strictObject({ type: z.enum(['text', 'json_object']).default('text') }),
  ])
  .transform((format) => (typeof format === 'string' ? ('auto' as const) : format))

const ToolChoice = z.union([
  z.enum(['none', 'auto']),
  namedToolChoice(['function', 'code_interpreter', 'retrieval']).transform(
    ({ type, ...named }) => ({
      ...named,
      type: type === 'retrieval' ? ('file_search' as const) : type,
    }),
  ),
])

// --- assistants -----------------------------------------------------------------------------

const assistantFiles = list(id('file'), { of: 'strings', maximum: MAX_ASSISTANT_FILES })

export const CreateAssistant = CreateAssistantV2.omit({
  tool_resources: true,
  reasoning_effort: true,
}).extend({
  tools: Tools.default([]),
  file_ids: assistantFiles.default([]),
  response_format: ResponseFormat.nullable().default('auto'),
})

export const ModifyAssistant = ModifyAssistantV2.omit({
  tool_resources: true,
  reasoning_effort: true,
}).extend({
  tools: Tools.optional(),
  file_ids: assistantFiles.optional(),
  response_format: ResponseFormat.nullish(),
})

export const CreateAssistantFile = z.strictObject({ file_id: id('file') })

// --- threads and messages -------------------------------------------------------------------

export const CreateMessage = CreateMessageV2.omit({ attachments: true })
  .extend({
    content: ContentText,
    file_ids: list(id('file'), { of: 'strings', maximum: MAX_MESSAGE_FILES }).default([]),
  })
  .transform(({ file_ids, ...same }) => ({ ...same, attachments: attachmentsFromV1(file_ids) }))

export const CreateThread = CreateThreadV2.omit({ tool_resources: true }).extend({
  messages: list(CreateMessage, { of: 'objects' }).default([]),
})

export const ModifyThread = ModifyThreadV2.omit({ tool_resources: true })

// --- runs -----------------------------------------------------------------------------------

const inV1 = {
  additional_messages: list(CreateMessage, { of: 'objects' }).nullish(),
  tools: Tools.nullish(),
  tool_choice: ToolChoice.nullish().transform((choice) => choice ?? 'auto'),
  response_format: ResponseFormat.nullish(),
}
const absent = { reasoning_effort: true, parallel_tool_calls: true } as const
const parallel = { parallel_tool_calls: true }

export const CreateRun = CreateRunV2.omit(absent)
  .extend(inV1)
  .transform((body) => ({ ...body, ...parallel }))

export const CreateThreadAndRun = CreateThreadAndRunV2.omit({ ...absent, tool_resources: true })
  .extend({ ...inV1, thread: CreateThread.nullish() })
  .transform((body) => ({ ...body, ...parallel }))
