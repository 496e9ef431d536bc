import { Readable } from 'node:stream'

import { eventInV1, type FileIds } from '../wire/dialect.ts'
import type { ApiDeps } from './app.ts'
import type { Context } from './context.ts'
import { sseFrames, sseHeaders, type EventBatches } from './sse.ts'

/** The place in a run's log from which a client is shown events. */
export interface RunStream {
  runId: string
  after: number
}

/** Answers with the events of a run as SSE. `events` is given where they had to be followed from before the run began. */
export function streamRun(
  deps: Pick<ApiDeps, 'store' | 'draining' | 'inspectUrl' | 'log'>,
  ctx: Context,
  { runId, after }: RunStream,
  events: EventBatches = deps.store.events.follow(runId, after, {
    signal: onClose(ctx).signal,
  }),
): void {
  const inspect = deps.inspectUrl(runId)
  if (inspect) ctx.set('x-run-inspect-url', inspect)
  ctx.set(sseHeaders)
  ctx.state.stream = { runId, after }
  const onError = (error: unknown): void =>
    deps.log[ctx.res.closed ? 'debug' : 'error']({ err: error, run_id: runId }, 'a stream broke')
  const spoken =
    ctx.state.dialect === 'v1'
      ? eventsInV1(events, () => deps.store.assistantFiles.shown([runId]))
      : events
  ctx.body = Readable.from(sseFrames(spoken, deps.draining, onError), { objectMode: false })
}

/** A run's files are those of its beginning, so they are asked for once. */
async function* eventsInV1(
  events: EventBatches,
  fileIdsOfRun: () => Promise<FileIds>,
): EventBatches {
  let fileIds: FileIds | undefined
  try {
    for (;;) {
      const { value, done } = await events.next()
      if (done) return value
      const known = (fileIds ??= await fileIdsOfRun())
      yield value.map((stored) => ({ ...stored, ...eventInV1(stored, known) }))
    }
  } finally {
    await events.return()
  }
}

/** Aborts when the connection of the request is gone. */
export function onClose(ctx: Context): AbortController {
  const closed = new AbortController()
  if (ctx.res.closed || ctx.req.socket.destroyed) closed.abort('closed')
  else ctx.res.once('close', () => closed.abort('closed'))
  return closed
}
