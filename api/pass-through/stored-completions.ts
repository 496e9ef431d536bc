import type { Readable } from 'node:stream'
import { text as textIn } from 'node:stream/consumers'

import { z } from 'zod'

import type { Endpoint } from '../../models.ts'
import type { PassedObjectRow } from '../../store/passed-objects.ts'
import { brokenUpstream, filterTooNarrow, invalidParameter } from '../../wire/errors.ts'
import { DEFAULT_PAGE_SIZE, MAX_MODEL_CHARS, MAX_PAGE_SIZE } from '../../wire/limits.ts'
import { page } from '../../wire/page.ts'
import type { ApiDeps } from '../app.ts'
import type { Context } from '../context.ts'
import { onClose } from '../run-stream.ts'
import { parseQuery, queryInteger, text } from '../validation.ts'
import { sentHeaders } from './headers.ts'
import { jsonIn } from './json.ts'
import { askUpstream } from './upstream.ts'

/**
 * The list of a project's stored chat completions. Endpoints know our key and not our projects, so the list is ours, and
 * each completion on it is asked for where it was made. One that its endpoint has no more is left out, and forgotten.
 */
export function storedCompletions(
  { store }: Pick<ApiDeps, 'store'>,
  endpointOf: (row: PassedObjectRow) => Promise<Endpoint | undefined>,
) {
  return async (ctx: Context): Promise<void> => {
    const { limit, order, after, model, ...others } = parseQuery(ListCompletions, ctx.query)
    const wanted = metadataOf(others)
    const { signal } = onClose(ctx)
    const found: Completion[] = []
    let cursor = after === undefined ? undefined : await placeOf(ctx, after)
    let hasMoreRows = true
    let looked = 0
    while (hasMoreRows && found.length <= limit && looked < mostLooked) {
      const rows = await store.passedObjects.list(ctx.state.projectId, 'chat.completion', {
        limit: limit + 1,
        order,
        after: cursor,
        model,
      })
      const answers = await Promise.all(rows.map((row) => read(ctx, row, signal)))
      const completions = answers.filter((one) => one !== undefined)
      found.push(...completions.filter(isTagged(wanted)))
      looked += completions.length
      cursor = rows.at(-1)?.seq
      hasMoreRows = rows.length > limit
    }
    // Clients go on after the last object of a page, so one that is empty would be their last.
    if (hasMoreRows && found.length === 0) throw filterTooNarrow(looked)
    ctx.body = page(found.slice(0, limit), hasMoreRows || found.length > limit)
  }

  async function placeOf(ctx: Context, id: string): Promise<PassedObjectRow['seq']> {
    const row = await store.passedObjects.find(ctx.state.projectId, 'chat.completion', id)
    if (!row) throw invalidParameter('after', `no object with id '${id}' is in this list`)
    return row.seq
  }

  async function read(
    ctx: Context,
    row: PassedObjectRow,
    signal: AbortSignal,
  ): Promise<Completion | undefined> {
    const endpoint = await endpointOf(row)
    if (!endpoint) return undefined
    const path = `chat/completions/${encodeURIComponent(row.id)}`
    const headers = sentHeaders({ accept: 'application/json' }, { projectId: ctx.state.projectId })
    const request = { method: 'GET', path, headers, body: undefined }
    const answer = await askUpstream(endpoint, request, signal)
    if (answer.status === 200) return completionIn(answer.body)
    answer.body.destroy()
    if (answer.status !== 404) throw brokenUpstream(`answered with the status ${answer.status}`)
    await store.passedObjects.forget(ctx.state.projectId, row.id)
    return undefined
  }
}

/** How many completions one request asks endpoints for before it answers with what it has. */
const mostLooked = 500

/** Oldest first, other than all lists of the Assistants API. */
const ListCompletions = z.looseObject({
  limit: queryInteger(1, MAX_PAGE_SIZE).default(DEFAULT_PAGE_SIZE),
  order: z.enum(['asc', 'desc']).default('asc'),
  after: text(512).optional(),
  model: text(MAX_MODEL_CHARS).optional(),
})

const Completion = z.looseObject({
  id: z.string(),
  metadata: z.record(z.string(), z.unknown()).nullish(),
})
type Completion = z.infer<typeof Completion>

/** Without the cause of what is no JSON: it quotes what was written. */
async function completionIn(body: Readable): Promise<Completion> {
  const source = await textIn(body).catch(() => '')
  const { data } = Completion.safeParse(jsonIn(source))
  if (!data) throw brokenUpstream('did not answer with a chat completion')
  return data
}

/** `metadata[key]=value` */
function metadataOf(query: Record<string, unknown>): [string, unknown][] {
  return Object.entries(query).flatMap(([name, value]) => {
    const key = /^metadata\[(.+)\]$/.exec(name)?.[1]
    return key === undefined ? [] : [[key, value]]
  })
}

function isTagged(wanted: [string, unknown][]) {
  return ({ metadata }: Completion) => wanted.every(([key, value]) => metadata?.[key] === value)
}
