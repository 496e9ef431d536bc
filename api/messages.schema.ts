import { z } from 'zod'
import { emptyContent, invalidUrl } from '../wire/errors.ts'
import { MAX_MESSAGE_TEXT_CHARS } from '../wire/limits.ts'
import type * as Official from '../wire/openai.ts'
import type { MessageCreateParams as CreateParams } from '../wire/openai.ts'
import { CodeInterpreterTool, Metadata, MetadataChange } from './assistants.schema.ts'
import { id, list, refuse, text } from './validation.ts'
import type { Accepts, Holds, SameKeys } from './validation.ts'

const detail = z.enum(['auto', 'low', 'high']).default('auto')

/** A web address, or (ours) the image itself. What is behind an address is the model's business. */
const imageUrl = z.string().check((ctx) => {
  if (/^data:image\/[\w.+-]+;base64,/i.test(ctx.value)) return
  if (/^https?:\/\//i.test(ctx.value) && URL.canParse(ctx.value)) return
  refuse(ctx, invalidUrl)
})

const ImageFile = z.strictObject({ file_id: id('file'), detail })
const ImageUrl = z.strictObject({ url: imageUrl, detail })
const TextPart = z.strictObject({ type: z.literal('text'), text: text(MAX_MESSAGE_TEXT_CHARS) })

export const ContentPart = z.discriminatedUnion('type', [
  TextPart,
  z.strictObject({ type: z.literal('image_file'), image_file: ImageFile }),
  z.strictObject({ type: z.literal('image_url'), image_url: ImageUrl }),
])
export type ContentPart = z.infer<typeof ContentPart>

export const ContentText = text(MAX_MESSAGE_TEXT_CHARS).check((ctx) => {
  if (ctx.value === '') refuse(ctx, emptyContent)
})

/** Kept as the client sent it: a string, or parts. */
export const Content = z.union([ContentText, list(ContentPart, { of: 'objects', minimum: 1 })])
export type Content = z.infer<typeof Content>

/** The schema misplaces its `required`; a file without tools would be dropped in silence, so both are. */
export const Attachment = z.strictObject({
  file_id: id('file'),
  tools: list(
    z.discriminatedUnion('type', [
      CodeInterpreterTool,
      z.strictObject({ type: z.literal('file_search') }),
    ]),
    { of: 'objects' },
  ),
})
export type Attachment = z.infer<typeof Attachment>

export const CreateMessage = z.strictObject({
  role: z.enum(['user', 'assistant']),
  content: Content,
  attachments: list(Attachment, { of: 'objects' }).nullish(),
  metadata: Metadata.nullish(),
})
export type CreateMessage = z.infer<typeof CreateMessage>

export const ModifyMessage = z.strictObject({ metadata: MetadataChange.nullish() })
export type ModifyMessage = z.infer<typeof ModifyMessage>

// --- ties: drift between these schemas and the official package does not compile -------------

/** The package says that an attachment may lack its parts (see above). */
type Complete = Omit<CreateParams, 'attachments'> & {
  attachments?: Required<CreateParams.Attachment>[] | null
}
type PartInput = z.input<typeof ContentPart>
export type Ties = [
  Holds<SameKeys<CreateParams, z.input<typeof CreateMessage>>>,
  Holds<Accepts<Complete, z.input<typeof CreateMessage>>>,
  Holds<SameKeys<CreateParams.Attachment, z.input<typeof Attachment>>>,
  Holds<SameKeys<Omit<Official.MessageUpdateParams, 'thread_id'>, ModifyMessage>>,
  Holds<SameKeys<Official.TextContentBlockParam, z.input<typeof TextPart>>>,
  Holds<SameKeys<Official.ImageFileContentBlock, Extract<PartInput, { type: 'image_file' }>>>,
  Holds<SameKeys<Official.ImageURLContentBlock, Extract<PartInput, { type: 'image_url' }>>>,
  Holds<SameKeys<Official.ImageFile, z.input<typeof ImageFile>>>,
  Holds<SameKeys<Official.ImageURL, z.input<typeof ImageUrl>>>,
]
