import { z } from 'zod'

import { badPurpose } from '../wire/errors.ts'
import {
  BATCH_FILE_EXPIRES_AFTER_SECONDS,
  MAX_FILE_EXPIRES_AFTER_SECONDS,
  MAX_FILENAME_CHARS,
  MAX_FILES_PAGE_SIZE,
  MAX_ID_CHARS,
  MIN_FILE_EXPIRES_AFTER_SECONDS,
} from '../wire/limits.ts'
import type * as Official from '../wire/openai.ts'
import { integer, queryInteger, refuse, text } from './validation.ts'
import type { Accepts, Holds, SameKeys } from './validation.ts'

/** In the order in which the original lists them. */
export const purposes = [
  'fine-tune',
  'assistants',
  'batch',
  'user_data',
  'vision',
  'evals',
] as const satisfies Official.FilePurpose[]

export const Purpose = z.string().check((ctx) => {
  const value = ctx.value
  if (!purposes.some((one) => one === value)) refuse(ctx, () => badPurpose(value, purposes))
})

export const ExpiresAfter = z.strictObject({
  anchor: z.literal('created_at'),
  seconds: integer(MIN_FILE_EXPIRES_AFTER_SECONDS, MAX_FILE_EXPIRES_AFTER_SECONDS),
})
export type ExpiresAfter = z.infer<typeof ExpiresAfter>

export const Filename = text(MAX_FILENAME_CHARS, 1)

/** The fields of the form, where all is text; `file` is the name of the file. */
export const CreateFile = z.strictObject({
  file: Filename,
  purpose: Purpose,
  expires_after: ExpiresAfter.extend({
    seconds: queryInteger(MIN_FILE_EXPIRES_AFTER_SECONDS, MAX_FILE_EXPIRES_AFTER_SECONDS),
  }).optional(),
})
export type CreateFile = z.infer<typeof CreateFile>

export const ListFilesQuery = z.strictObject({
  purpose: text(MAX_ID_CHARS).optional(),
  limit: queryInteger(1, MAX_FILES_PAGE_SIZE).default(MAX_FILES_PAGE_SIZE),
  order: z.enum(['asc', 'desc']).default('desc'),
  after: text(MAX_ID_CHARS).optional(),
})
export type ListFilesQuery = z.infer<typeof ListFilesQuery>

/** Seconds that a file lives after its creation; null for ever. */
export function lifetimeS(purpose: string, asked: ExpiresAfter | null | undefined): number | null {
  if (asked) return asked.seconds
  return purpose === 'batch' ? BATCH_FILE_EXPIRES_AFTER_SECONDS : null
}

// --- ties: drift between these schemas and the official package does not compile -------------

export type Ties = [
  Holds<SameKeys<Official.FileCreateParams, CreateFile>>,
  Holds<SameKeys<Official.FileCreateParams.ExpiresAfter, ExpiresAfter>>,
  Holds<Accepts<Official.FilePurpose, (typeof purposes)[number]>>,
  Holds<SameKeys<Official.FileListParams, ListFilesQuery>>,
]
