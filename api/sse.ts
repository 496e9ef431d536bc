import { endsStream, type StoredEvent } from '../wire/events.ts'

const pingMs = 15_000

/** The events of a run. Where they end without one that ends the stream, it was `over` already, or is gone. */
export type EventBatches = AsyncGenerator<StoredEvent[], 'over' | 'gone' | void>

/**
 * The frames of an event stream: what `events` brings until the run ends or waits for the client, a comment now and then
 * so that proxies keep the connection, and `[DONE]`. When the server drains it says so and ends without it: the client
 * comes back, and the run goes on.
 */
export async function* sseFrames(
  events: EventBatches,
  draining: AbortSignal,
  onError: (error: unknown) => void,
): AsyncGenerator<string> {
  const wait = waiter(draining)
  let next = events.next()
  try {
    for (;;) {
      const got = await wait.for(next)
      if (got === 'silence') {
        yield comment('ping')
      } else if (got === 'draining') {
        yield comment('draining')
        return
      } else if (got.done && got.value === 'over') {
        yield done
        return
      } else if (got.done) {
        yield failure('The run is gone: its thread was deleted.') + done
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
  } catch (error) {
    onError(error)
    yield (
      failure(
        'The server had an error while streaming; the run goes on. Retrieve it for its state.',
      ) + done
    )
  } finally {
    wait.dispose()
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

/**
 * Without the empty line that a frame has: the Python client takes one as the end of an event where any event before had an
 * `id`, and then fails on the empty data.
 */
function comment(text: string): string {
  return `: ${text}\n`
}

/** Both shapes: Python looks for `error`, the schema is flat (spec D14). */
function failure(message: string): string {
  const detail = { message, type: 'server_error', param: null, code: null }
  return `event: error\ndata: ${JSON.stringify({ error: detail, ...detail })}\n\n`
}

/** Our decoders and theirs ignore `id:`; browsers send it back as Last-Event-ID. */
function frame({ seq, event, data }: StoredEvent): string {
  return `id: ${seq}\nevent: ${event}\ndata: ${data}\n\n`
}

type Next = IteratorResult<StoredEvent[], 'over' | 'gone' | void>

/**
 * Waits for one thing of three, again and again. Not by Promise.race with a promise that lasts: that would keep whatever was
 * raced against it, which is all events of a long stream.
 */
function waiter(draining: AbortSignal) {
  let onDraining = (): void => {}
  const listener = (): void => onDraining()
  draining.addEventListener('abort', listener, { once: true })
  return {
    async for(next: Promise<Next>): Promise<Next | 'silence' | 'draining'> {
      if (draining.aborted) return 'draining'
      let timer: NodeJS.Timeout | undefined
      try {
        return await new Promise((resolve, reject) => {
          timer = setTimeout(resolve, pingMs, 'silence')
          onDraining = () => resolve('draining')
          next.then(resolve, reject)
        })
      } finally {
        clearTimeout(timer)
      }
    },
    dispose: () => draining.removeEventListener('abort', listener),
  }
}
