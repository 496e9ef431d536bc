import { z } from 'zod'
import { MAX_SEARCH_CHARS, MAX_SECONDS } from '../wire/limits.ts'
import { Metadata } from './assistants.schema.ts'
import { page } from './lists.schema.ts'
import { id, parse, parseQuery, queryInteger, text } from './validation.ts'

const seconds = queryInteger(0, MAX_SECONDS)

const ListThreads = z.strictObject({
  ...page,
  assistant_id: id('assistant').optional(),
  q: text(MAX_SEARCH_CHARS).optional(),
  created_after: seconds.optional(),
  created_before: seconds.optional(),
  has_active_run: z
    .enum(['true', 'false'])
    .transform((value) => value === 'true')
    .optional(),
})
const MetadataQuery = z.object({ metadata: Metadata })

export type ListThreadsQuery = z.infer<typeof ListThreads> & z.infer<typeof MetadataQuery>

/** `metadata[key]=value` may stand there several times, and a key may look like anything. */
export function parseListThreads(
  query: Record<string, string | string[] | undefined>,
): ListThreadsQuery {
  const metadata: [string, string | string[] | undefined][] = []
  const rest: [string, string | string[] | undefined][] = []
  for (const [name, value] of Object.entries(query)) {
    const key = /^metadata\[(.+)\]$/s.exec(name)?.[1]
    if (key === undefined) rest.push([name, value])
    else metadata.push([key, value])
  }
  return {
    ...parseQuery(ListThreads, Object.fromEntries(rest)),
    ...parse(MetadataQuery, { metadata: Object.fromEntries(metadata) }),
  }
}
