import type { Router } from '@koa/router'
import { createHash, randomUUID } from 'node:crypto'

import type { Imported, ImportedMessage as MessageToBe } from '../store/thread-import.ts'
import { attachmentsFromV1 } from '../wire/dialect.ts'
import { ApiError, badJson, clientGone, tooLarge } from '../wire/errors.ts'
import { idFrom } from '../wire/ids.ts'
import type { ApiDeps } from './app.ts'
import { discardRest, type Context, type State } from './context.ts'
import { readLines, type Line } from './json-lines.ts'
import {
  ImportedLine,
  ImportedMessages,
  ImportedThread,
  type ImportedMessage,
} from './thread-import.schema.ts'
import { parse } from './validation.ts'

const lineLimitBytes = 32 * 1024 * 1024
/** So many errors are told; the rest are counted. */
const errorsTold = 100

interface ImportAnswer {
  object: 'thread.import'
  imported: number
  /** Threads whose id was there already: of these only messages were written whose ids they lacked. */
  existing: number
  /** Lines of an export that are no threads. */
  ignored: number
  failed: number
  errors: { line: number; id: string | null; error: string }[]
}

/**
 * Ours: `POST /v1/threads/import`. JSON Lines, a whole thread each, with the ids and times that it had elsewhere. A line is
 * written whole or not at all. A thread that is there already gets what it lacks of the messages that have ids, and is left
 * alone otherwise, so that an import that broke off is sent again as it is. With an `Idempotency-Key` the threads that have no id get the same ones again, too.
 */
export function threadImportRoutes(router: Router<State>, { store: { threads } }: ApiDeps): void {
  router.post('/threads/import', async (ctx: Context) => {
    const { projectId } = ctx.state
    const answer: ImportAnswer = {
      object: 'thread.import',
      imported: 0,
      existing: 0,
      ignored: 0,
      failed: 0,
      errors: [],
    }
    /** The thread that the lines before have imported, and that more messages may follow. */
    let current: string | undefined

    for await (const line of readLines(arriving(ctx), lineLimitBytes)) {
      const at: { id: string | null } = { id: null }
      try {
        await importLine(line, at)
      } catch (error) {
        if (!(error instanceof ApiError) || error.status >= 500) {
          discardRest(ctx)
          throw error
        }
        answer.failed += 1
        if (answer.errors.length < errorsTold) {
          answer.errors.push({ line: line.number, id: at.id, error: error.message })
        }
      }
    }
    await threads.importDone(projectId)
    ctx.body = answer

    async function importLine(line: Line, at: { id: string | null }): Promise<void> {
      const value = jsonOf(line)
      const { object } = parse(ImportedLine, value)
      if (object === 'thread.messages') {
        const { thread_id: id, messages } = parse(ImportedMessages, value)
        at.id = id
        if (id !== current && messages.some((message) => !message.id)) throw mayBeThere()
        assertNew(await threads.importMore(projectId, id, messages.map(messageToBe(new Date()))))
        return
      }
      if (object !== 'thread') {
        answer.ignored += 1
        return
      }
      current = undefined
      at.id = idOf(value)
      const { messages, ...given } = parse(ImportedThread, value)
      const created_at = dateOf(given.created_at) ?? new Date()
      const thread = {
        id: (given.id as `thread_${string}` | null) ?? idFrom('thread', uuidOf(ctx, line.number)),
        created_at,
        tool_resources: given.tool_resources ?? {},
        metadata: given.metadata ?? {},
      }
      const rows = messages.map(messageToBe(created_at))
      const outcome = await threads.import(projectId, thread, rows)
      if (outcome === 'thread exists') {
        // Those without an id were written along with the thread.
        const named = rows.filter((_, i) => messages?.[i]?.id)
        if (named.length > 0) assertNew(await threads.importMore(projectId, thread.id, named))
        answer.existing += 1
        return
      }
      assertNew(outcome)
      current = thread.id
      answer.imported += 1
    }
  })
}

/** The body as it comes in. Throws clientGone where it breaks off. */
async function* arriving(ctx: Context): AsyncGenerator<Buffer> {
  const { rawBody } = ctx.state
  if (rawBody) {
    yield rawBody
    return
  }
  try {
    // A request that is destroyed takes the connection with it, and the answer that says why.
    yield* ctx.req.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>
  } catch {
    throw clientGone()
  }
}

function jsonOf({ bytes }: Line): unknown {
  if (!bytes) throw tooLarge(lineLimitBytes)
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes))
  } catch {
    throw badJson()
  }
}

/** For the error, so it may be anything. */
function idOf(value: unknown): string | null {
  const id = typeof value === 'object' && value && 'id' in value ? value.id : null
  return typeof id === 'string' ? id.slice(0, 64).toWellFormed() : null
}

function uuidOf(ctx: Context, line: number): string {
  const key = ctx.get('idempotency-key')
  if (key === '') return randomUUID()
  const name = JSON.stringify([ctx.state.projectId, key, line])
  return createHash('sha256').update(name).digest('hex').slice(0, 32)
}

function assertNew(outcome: Imported): void {
  if (outcome === 'id taken') {
    throw new ApiError(400, 'An id of this thread or of its messages is taken on this server.')
  }
}

function mayBeThere(): ApiError {
  return new ApiError(
    400,
    'Messages without an id can only follow the line of a thread that this import has made: they may be there already.',
  )
}

function messageToBe(createdAt: Date) {
  return (given: ImportedMessage): MessageToBe => {
    const created_at = dateOf(given.created_at) ?? createdAt
    // Nobody will go on writing what was being written elsewhere.
    const isWhole = (given.status ?? 'completed') === 'completed'
    return {
      id: (given.id as `msg_${string}` | null) ?? idFrom('message', randomUUID()),
      created_at,
      role: given.role,
      status: isWhole ? 'completed' : 'incomplete',
      content: given.content as MessageToBe['content'],
      attachments: given.attachments ?? attachmentsFromV1(given.file_ids ?? []),
      metadata: given.metadata ?? {},
      assistant_id: (given.assistant_id ?? null) as MessageToBe['assistant_id'],
      run_id: (given.run_id ?? null) as MessageToBe['run_id'],
      completed_at: isWhole ? (dateOf(given.completed_at) ?? created_at) : null,
      incomplete_at: isWhole ? null : (dateOf(given.incomplete_at) ?? created_at),
      incomplete_reason: isWhole ? null : (given.incomplete_details?.reason ?? 'run_failed'),
    }
  }
}

function dateOf(seconds: number | null | undefined): Date | undefined {
  return seconds === null || seconds === undefined ? undefined : new Date(seconds * 1000)
}
