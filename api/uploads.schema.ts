import { z } from 'zod'

import { MAX_MIME_TYPE_CHARS, MAX_UPLOAD_BYTES, MAX_UPLOAD_PARTS } from '../wire/limits.ts'
import type * as Official from '../wire/openai.ts'
import { ExpiresAfter, Filename, Purpose } from './files.schema.ts'
import { baseName } from './multipart.ts'
import { id, integer, list, text } from './validation.ts'
import type { Holds, SameKeys } from './validation.ts'

export const CreateUpload = z.strictObject({
  filename: Filename.transform(baseName).pipe(Filename),
  purpose: Purpose,
  bytes: integer(0, MAX_UPLOAD_BYTES),
  mime_type: text(MAX_MIME_TYPE_CHARS),
  expires_after: ExpiresAfter.nullish(),
})
export type CreateUpload = z.infer<typeof CreateUpload>

export const CompleteUpload = z.strictObject({
  part_ids: list(id('part'), { of: 'strings', maximum: MAX_UPLOAD_PARTS }),
  md5: z
    .string()
    .regex(/^[0-9a-fA-F]{32}$/)
    .nullish(),
})
export type CompleteUpload = z.infer<typeof CompleteUpload>

// --- ties: drift between these schemas and the official package does not compile -------------

export type Ties = [
  Holds<SameKeys<Official.UploadCreateParams, CreateUpload>>,
  Holds<SameKeys<Official.UploadCreateParams.ExpiresAfter, ExpiresAfter>>,
  Holds<SameKeys<Official.UploadCompleteParams, CompleteUpload>>,
]
