import { endsStream, type StoredEvent } from '../wire/events.ts'

const pingMs = 15_000

/**
 * The frames of an event stream: what `events` brings until the run ends or waits for the client, a comment now and then
 * so that proxies keep the connection, and `[DONE]`. When the server drains it says so and ends without it: the client
 * comes back, and the run goes on.
 */
export async function* sseFrames(
  events: AsyncGenerator<StoredEvent[]>,
  draining: AbortSignal,
): AsyncGenerator<string> {
  const drained = once(draining)
  let next = events.next()
  try {
    for (;;) {
      const timer = timeout(pingMs)
      const got = await Promise.race([next, timer.elapsed, drained.promise])
      timer.clear()
      if (got === 'elapsed') {
        yield ': ping\n\n'
      } else if (got === 'aborted') {
        yield ': draining\n\n'
        return
      } else if (got.done) {
        return
      } else {
        const last = got.value.findIndex(({ event }) => endsStream(event))
        if (last >= 0) {
          yield (
            got.value
              .slice(0, last + 1)
              .map(frame)
              .join('') + done
          )
          return
        }
        next = events.next()
        yield got.value.map(frame).join('')
      }
    }
  } catch {
    yield failure + done
  } finally {
    drained.dispose()
    void events.return(undefined)
  }
}

export const sseHeaders = {
  'content-type': 'text/event-stream; charset=utf-8',
  'cache-control': 'no-cache, no-transform',
  // nginx would hold events back.
  'x-accel-buffering': 'no',
}

const done = 'event: done\ndata: [DONE]\n\n'

const said = 'The server had an error while streaming; the run goes on. Retrieve it for its state.'
const detail = { message: said, type: 'server_error', param: null, code: null }
/** Both shapes: Python looks for `error`, the schema is flat (spec D14). */
const failure = `event: error\ndata: ${JSON.stringify({ error: detail, ...detail })}\n\n`

/** Our decoders and theirs ignore `id:`; browsers send it back as Last-Event-ID. */
function frame({ seq, event, data }: StoredEvent): string {
  return `id: ${seq}\nevent: ${event}\ndata: ${data}\n\n`
}

function timeout(ms: number): { elapsed: Promise<'elapsed'>; clear(): void } {
  let timer: NodeJS.Timeout | undefined
  const elapsed = new Promise<'elapsed'>((resolve) => {
    timer = setTimeout(resolve, ms, 'elapsed')
  })
  return { elapsed, clear: () => clearTimeout(timer) }
}

function once(signal: AbortSignal): { promise: Promise<'aborted'>; dispose(): void } {
  let onAbort = (): void => {}
  const promise = new Promise<'aborted'>((resolve) => {
    onAbort = () => resolve('aborted')
    if (signal.aborted) onAbort()
    else signal.addEventListener('abort', onAbort, { once: true })
  })
  return { promise, dispose: () => signal.removeEventListener('abort', onAbort) }
}
