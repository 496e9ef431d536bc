import { z } from 'zod'
import { MAX_SECONDS } from '../wire/limits.ts'
import { Metadata } from './assistants.schema.ts'
import { id, integer, list } from './validation.ts'

/**
 * Threads as they are printed, by this server or by the original: what is known is read, and what is not is left out. No
 * text is too long, since models wrote some of them.
 */
const seconds = integer(0, MAX_SECONDS)
const detail = z.enum(['auto', 'low', 'high']).default('auto')
const Json = z.record(z.string(), z.unknown())

/** As printed, or as a client writes it. */
const Text = z.union([
  z.string().transform((value) => ({ value, annotations: [] })),
  z.object({ value: z.string(), annotations: list(Json, { of: 'objects' }).default([]) }),
])

const Part = z.discriminatedUnion('type', [
  z.object({ type: z.literal('text'), text: Text }),
  z.object({ type: z.literal('refusal'), refusal: z.string() }),
  z.object({
    type: z.literal('image_file'),
    image_file: z.object({ file_id: id('file'), detail }),
  }),
  z.object({ type: z.literal('image_url'), image_url: z.object({ url: z.string(), detail }) }),
])

const Content = z.union([
  z.string().transform((value) => [{ type: 'text' as const, text: { value, annotations: [] } }]),
  list(Part, { of: 'objects' }),
])

const Attachment = z.object({
  file_id: id('file'),
  tools: list(z.object({ type: z.enum(['code_interpreter', 'file_search']) }), {
    of: 'objects',
  }).default([]),
})

export const ImportedMessage = z.object({
  id: id('message').nullish(),
  created_at: seconds.nullish(),
  role: z.enum(['user', 'assistant']),
  content: Content,
  attachments: list(Attachment, { of: 'objects' }).nullish(),
  /** As the first version of the API printed it. */
  file_ids: list(id('file'), { of: 'strings' }).nullish(),
  metadata: Metadata.nullish(),
  assistant_id: id('assistant').nullish(),
  run_id: id('run').nullish(),
  status: z.enum(['in_progress', 'incomplete', 'completed']).nullish(),
  completed_at: seconds.nullish(),
  incomplete_at: seconds.nullish(),
  incomplete_details: z.object({ reason: z.string() }).nullish(),
})
export type ImportedMessage = z.infer<typeof ImportedMessage>

const Messages = list(ImportedMessage, { of: 'objects' })
const ids = (kind: 'file' | 'vector_store') => list(id(kind), { of: 'strings' })

export const ImportedThread = z.object({
  id: id('thread').nullish(),
  created_at: seconds.nullish(),
  metadata: Metadata.nullish(),
  tool_resources: z
    .object({
      code_interpreter: z.object({ file_ids: ids('file') }).optional(),
      file_search: z.object({ vector_store_ids: ids('vector_store') }).optional(),
    })
    .nullish(),
  /** Must be there, even if it is empty: a thread alone, as it is retrieved, has lost its messages. */
  messages: Messages,
})
export type ImportedThread = z.infer<typeof ImportedThread>

/** More messages of the thread of the line before. */
export const ImportedMessages = z.object({ thread_id: id('thread'), messages: Messages })
export type ImportedMessages = z.infer<typeof ImportedMessages>

/** Which of them a line is; a thread need not say so. */
export const ImportedLine = z.object({ object: z.string().default('thread') })
