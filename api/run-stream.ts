import { gapIn, type LogEnd } from '../store/follower.ts'
import { patiently } from '../store/patience.ts'
import { eventInV1, type FileIds } from '../wire/dialect.ts'
import type { StoredEvent } from '../wire/events.ts'
import type { ApiDeps } from './app.ts'
import type { Context } from './context.ts'
import { runSnapshot } from './run-snapshot.ts'
import { sseBody, sseHeaders, type EventBatches } from './sse.ts'

/** The place in a run's log from which a client is shown events. */
export interface RunStream {
  runId: string
  after: number
  /** Set for a stream of its own: it ends where the log does, and not where the stream of a request would. */
  isWatched?: boolean
}

/** What is left of a log after that place, and what comes. */
type FollowedLog = AsyncGenerator<StoredEvent[], LogEnd | undefined>

/** Answers with the events of a run as SSE. `followed` is given where it had to be from before the run began. */
export function streamRun(
  deps: Pick<ApiDeps, 'store' | 'inspectUrl' | 'log'>,
  ctx: Context,
  { runId, after, isWatched = false }: RunStream,
  followed?: FollowedLog,
): void {
  const { store } = deps
  const { projectId } = ctx.state
  const { signal } = onClose(ctx)
  const inspect = deps.inspectUrl(runId)
  if (inspect) ctx.set('x-run-inspect-url', inspect)
  ctx.set(sseHeaders)
  ctx.state.stream = { runId, after }

  const log = followed ?? store.events.follow(runId, after, { signal })
  const whole = withSnapshot(log, after, (seq) =>
    patiently(signal, async () =>
      runSnapshot(deps, { projectId, runId, seq: seq ?? (await store.events.tip(runId)) }),
    ),
  )
  const spoken =
    ctx.state.dialect === 'v1'
      ? eventsInV1(whole, () => patiently(signal, () => store.assistantFiles.shown([runId])))
      : whole
  ctx.body = sseBody(spoken, {
    ...(isWatched && {
      goesOn: ({ seq }) => patiently(signal, async () => (await store.events.tip(runId)) > seq),
    }),
    // A run that is parked says nothing for long, and `fetch` waits for the headers.
    onOpen: () => ctx.flushHeaders(),
    onError: (error) =>
      deps.log[ctx.res.closed ? 'debug' : 'error']({ err: error, run_id: runId }, 'a stream broke'),
  })
}

/**
 * Where events have been removed, a snapshot stands for them, once: it tells all that its run has come to. What is left goes
 * on behind it, since the official clients wait for the end of the run, and make nothing of a snapshot. `snapshotAt` is
 * given the number of the last event that is missing, or none where all of the rest is; undefined: its client has left.
 */
async function* withSnapshot(
  log: FollowedLog,
  after: number,
  snapshotAt: (seq?: number) => Promise<StoredEvent | undefined>,
): EventBatches {
  let seen = after
  let isTold = false
  try {
    for (;;) {
      const { value: events, done } = await log.next()
      if (done && events !== 'pruned') return events
      if (done) {
        const snapshot = isTold ? undefined : await snapshotAt()
        if (snapshot) yield [snapshot]
        return 'over'
      }
      const gapAt = gapIn(events, seen)
      const behind = events[gapAt]
      seen = events.at(-1)?.seq ?? seen
      if (!behind || isTold) {
        yield events
        continue
      }
      const snapshot = await snapshotAt(behind.seq - 1)
      if (!snapshot) return undefined
      isTold = true
      yield [...events.slice(0, gapAt), snapshot, ...events.slice(gapAt)]
    }
  } finally {
    await log.return(undefined)
  }
}

/** A run's files are those of its beginning, so they are asked for once; undefined where its client has left. */
async function* eventsInV1(
  events: EventBatches,
  fileIdsOfRun: () => Promise<FileIds | undefined>,
): EventBatches {
  let fileIds: FileIds | undefined
  try {
    for (;;) {
      const { value, done } = await events.next()
      if (done) return value
      const known = (fileIds ??= await fileIdsOfRun())
      if (!known) return undefined
      yield value.map((stored) => ({ ...stored, ...eventInV1(stored, known) }))
    }
  } finally {
    await events.return(undefined)
  }
}

/** Aborts when the connection of the request is gone. */
export function onClose(ctx: Context): AbortController {
  const closed = new AbortController()
  if (ctx.res.closed || ctx.req.socket.destroyed) closed.abort('closed')
  else ctx.res.once('close', () => closed.abort('closed'))
  return closed
}
