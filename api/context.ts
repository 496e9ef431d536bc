import type { ParameterizedContext } from 'koa'

import type { ProjectRow } from '../store/rows.ts'
import { badJson, tooLarge, wrongContentType } from '../wire/errors.ts'
import type { RunStream } from './run-stream.ts'
import { assertId, parse, type NamedId } from './validation.ts'
import type { z } from 'zod'

/** What the middleware knows by the time that a route is reached. */
export interface State {
  requestId: string
  projectId: ProjectRow['id']
  rawBody?: Buffer
  /** Set where the answer is a stream. */
  stream?: RunStream
}

export type Context = ParameterizedContext<State> & { params: Record<string, string> }

const bodyLimitBytes = 32 * 1024 * 1024

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
    return parse(schema, await readJson(ctx))
  } catch (error) {
    await parentExists?.()
    throw error
  }
}

/** The bytes of the body; read once, whoever asks first. */
export async function rawBody(ctx: Context): Promise<Buffer> {
  if (ctx.state.rawBody) return ctx.state.rawBody
  const chunks: Buffer[] = []
  let size = 0
  for await (const chunk of ctx.req as AsyncIterable<Buffer>) {
    size += chunk.length
    if (size > bodyLimitBytes) throw tooLarge(bodyLimitBytes)
    chunks.push(chunk)
  }
  ctx.state.rawBody = Buffer.concat(chunks)
  return ctx.state.rawBody
}

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
