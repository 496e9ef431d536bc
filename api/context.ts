import type { ParameterizedContext } from 'koa'

import type { Work } from '../store/idempotency.ts'
import type { ProjectRow } from '../store/rows.ts'
import type { Dialect } from '../wire/dialect.ts'
import { ApiError, badJson, clientGone, tooLarge, wrongContentType } from '../wire/errors.ts'
import type { RunStream } from './run-stream.ts'
import { assertId, parse, type NamedId } from './validation.ts'
import type { z } from 'zod'

/** What the middleware knows by the time that a route is reached. */
export interface State {
  requestId: string
  projectId: ProjectRow['id']
  /** Which Assistants API the client speaks; undefined where it does not say. */
  dialect?: Dialect | undefined
  rawBody?: Buffer
  /** The body as it was parsed, for errors about what it refers to. */
  body?: unknown
  /** Set where the answer is a stream. */
  stream?: RunStream
  /** This POST as it is remembered: ids derived from it are the same when it is carried out again. */
  work?: Work
}

export type Context = ParameterizedContext<State> & { params: Record<string, string> }

/** A body of JSON. */
export const bodyLimitBytes = 32 * 1024 * 1024

/** An id from the path, once it has the form of one: `pathId(ctx, 'thread_id', 'thread')`. */
export function pathId(ctx: Context, param: string, kind: NamedId): string {
  const value = ctx.params[param] ?? ''
  assertId(param, value, kind)
  return value
}

/**
 * The body, checked against its schema. A bad body for an object that is not there is a 404 (the original's order), so
 * `parentExists`, which throws then, is asked before a validation error is answered; a good body does not pay for it.
 */
export async function readBody<Schema extends z.ZodType>(
  ctx: Context,
  schema: Schema,
  parentExists?: () => Promise<unknown>,
): Promise<z.output<Schema>> {
  try {
    ctx.state.body = await readJson(ctx)
    return parse(schema, ctx.state.body)
  } catch (error) {
    await parentExists?.()
    throw error
  }
}

/** The schema of a body in the dialect of the request. Both give the same, so that a handler knows one kind of input. */
export function bodyOf<Output>(
  ctx: Context,
  schemas: Record<Dialect, z.ZodType<Output>>,
): z.ZodType<Output> {
  return schemas[ctx.state.dialect ?? 'v2']
}

/** The bytes of the body; read once, whoever asks first. */
export async function rawBody(ctx: Context): Promise<Buffer> {
  if (ctx.state.rawBody) return ctx.state.rawBody
  ctx.state.rawBody = await readBytes(ctx, bodyLimitBytes)
  return ctx.state.rawBody
}

/** The bytes of the body, up to a limit. Throws tooLarge, and clientGone where the body breaks off. */
export async function readBytes(ctx: Context, limitBytes: number): Promise<Buffer> {
  if (Number(ctx.get('content-length')) > limitBytes) throw refusedUnread(ctx, limitBytes)
  const chunks: Buffer[] = []
  let size = 0
  try {
    // A request that is destroyed takes the connection with it, and the answer that says why.
    const arriving = ctx.req.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>
    for await (const chunk of arriving) {
      size += chunk.length
      if (size > limitBytes) throw refusedUnread(ctx, limitBytes)
      chunks.push(chunk)
    }
  } catch (error) {
    throw error instanceof ApiError ? error : clientGone()
  }
  return Buffer.concat(chunks)
}

function refusedUnread(ctx: Context, limitBytes: number): Error {
  discardRest(ctx)
  return tooLarge(limitBytes)
}

/**
 * For an answer that comes before the end of the body. A connection that is closed while its client still sends takes the
 * answer with it, so the rest is read and thrown away; not for ever.
 */
export function discardRest({ req }: Context): void {
  const timer = setTimeout(() => req.destroy(), lingerMs)
  req.once('close', () => clearTimeout(timer))
  req.once('end', () => clearTimeout(timer))
  req.resume()
}

const lingerMs = 10_000

async function readJson(ctx: Context): Promise<unknown> {
  const body = await rawBody(ctx)
  if (body.length === 0) return undefined
  if (!ctx.is('json')) throw wrongContentType(ctx.get('content-type'))
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(body))
  } catch {
    throw badJson()
  }
}
