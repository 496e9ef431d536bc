import { z } from 'zod'
import type * as Official from '../wire/openai.ts'
import { Metadata, MetadataChange, ToolResourceIds, ToolResources } from './assistants.schema.ts'
import { CreateMessage } from './messages.schema.ts'
import { id, list } from './validation.ts'
import type { Holds, SameKeys } from './validation.ts'

export const CreateThread = z.strictObject({
  messages: list(CreateMessage, { of: 'objects' }).default([]),
  tool_resources: ToolResources.nullish(),
  metadata: Metadata.nullish(),
})
export type CreateThread = z.infer<typeof CreateThread>

export const ModifyThread = z.strictObject({
  tool_resources: ToolResourceIds.nullish(),
  metadata: MetadataChange.nullish(),
})
export type ModifyThread = z.infer<typeof ModifyThread>

/** Ours. Without a message, everything is taken along. */
export const ForkThread = z.strictObject({
  message_id: id('message').nullish(),
  metadata: MetadataChange.nullish(),
})
export type ForkThread = z.infer<typeof ForkThread>

// --- ties: drift between these schemas and the official package does not compile -------------

export type Ties = [
  Holds<SameKeys<Official.ThreadCreateParams, CreateThread>>,
  Holds<SameKeys<Official.ThreadCreateParams.Message, CreateMessage>>,
  Holds<SameKeys<Official.ThreadCreateParams.ToolResources, ToolResources>>,
  Holds<SameKeys<Official.ThreadUpdateParams, ModifyThread>>,
  Holds<SameKeys<Official.ThreadUpdateParams.ToolResources, ToolResourceIds>>,
]
