import { z } from 'zod'

import { badJson, badMultipart, missingModel, wrongContentType } from '../../wire/errors.ts'
import { MAX_MODEL_CHARS } from '../../wire/limits.ts'
import { bodyLimitBytes, readBytes, type Context } from '../context.ts'
import { parse, text } from '../validation.ts'
import { multipartBytes } from './multipart.ts'

/** A body that is passed on: what we look at, and how it is sent. */
export interface PassedBody extends z.infer<typeof Fields> {
  /** The body with these changes and no others; where there are none, the very bytes that came. */
  withChanges(changes: Changes): Promise<SentBody>
}

export interface Changes {
  /** The model's name at the endpoint. */
  model: string | undefined
  /** Asks for the usage at the end of a stream. */
  includesUsage: boolean
}

export interface SentBody {
  bytes: Buffer
  contentType: string
}

/** Sound and images; the original takes 25 MB of sound. */
const multipartLimitBytes = 64 * 1024 * 1024

/** Reads a body of JSON or form data. Throws the refusals of the original, and a 413 above the limit. */
export async function readPassedBody(ctx: Context): Promise<PassedBody> {
  if (ctx.is('multipart/form-data')) return formBody(ctx)
  const bytes = await readBytes(ctx, bodyLimitBytes)
  if (bytes.length > 0 && !ctx.is('json')) throw wrongContentType(ctx.get('content-type'))
  return jsonBody(bytes, ctx.get('content-type'))
}

/** A body of which nothing needs to be known. */
export async function readUnchanged(ctx: Context): Promise<SentBody> {
  return { bytes: await readBytes(ctx, bodyLimitBytes), contentType: ctx.get('content-type') }
}

/** Everything else in a body is the endpoint's business. */
const Fields = z.object({
  model: text(MAX_MODEL_CHARS).nullish(),
  previous_response_id: z.string().nullish(),
  stream: z.unknown().optional(),
  stream_options: z.unknown().optional(),
  store: z.unknown().optional(),
  prompt: z.unknown().optional(),
})

function jsonBody(bytes: Buffer, contentType: string): PassedBody {
  const source = decoded(bytes)
  const body = bytes.length > 0 ? jsonOf(() => JSON.parse(source) as unknown) : undefined
  return {
    ...parse(Fields, looked(body)),
    async withChanges({ model, includesUsage }) {
      if ((model === undefined || model === (body as Json)['model']) && !includesUsage) {
        return { bytes, contentType }
      }
      const changed = jsonOf(() => JSON.parse(source, asWritten) as Json)
      if (model !== undefined) changed['model'] = model
      if (includesUsage) {
        changed['stream_options'] = {
          ...(changed['stream_options'] as Json | undefined),
          include_usage: true,
        }
      }
      return { bytes: Buffer.from(JSON.stringify(changed)), contentType: 'application/json' }
    },
  }
}

async function formBody(ctx: Context): Promise<PassedBody> {
  const contentType = ctx.get('content-type')
  const bytes = await readBytes(ctx, multipartLimitBytes)
  const form = await new Response(new Uint8Array(bytes), {
    headers: { 'content-type': contentType },
  })
    .formData()
    .catch(() => {
      throw badMultipart()
    })
  const given = form.get('model') ?? undefined
  if (given instanceof File) throw missingModel()
  return {
    ...parse(Fields, { model: given }),
    async withChanges({ model }) {
      if (model === undefined || model === given) return { bytes, contentType }
      form.set('model', model)
      return multipartBytes(form)
    },
  }
}

type Json = Record<string, unknown>

/** Only what the schema looks at: the rest may hold what it would refuse. */
function looked(body: unknown): unknown {
  if (typeof body !== 'object' || body === null || Array.isArray(body)) return body
  return Object.fromEntries(
    Object.keys(Fields.shape).map((name) => [name, Reflect.get(body, name) as unknown]),
  )
}

/** Numbers keep their digits: a seed may be longer than a double holds. */
function asWritten(_key: string, value: unknown, context?: { source?: string }): unknown {
  if (typeof value !== 'number' || context?.source === undefined) return value
  return String(value) === context.source ? value : rawJson(context.source)
}

/** In Node since 22; not yet in the compiler's library. */
const { rawJSON: rawJson } = JSON as unknown as { rawJSON: (this: void, source: string) => unknown }

function decoded(bytes: Buffer): string {
  return jsonOf(() => new TextDecoder('utf-8', { fatal: true }).decode(bytes))
}

function jsonOf<T>(read: () => T): T {
  try {
    return read()
  } catch {
    throw badJson()
  }
}
