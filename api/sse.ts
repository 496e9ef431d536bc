import { Readable } from 'node:stream'

import { endsStream, type StoredEvent } from '../wire/events.ts'

const pingMs = 15_000

/** The events of a run. Where they end without one that ends the stream, it was `over` already, or is gone. */
export type EventBatches = AsyncGenerator<StoredEvent[], 'over' | 'gone' | undefined>

export interface StreamHooks {
  /**
   * Asked where the stream of a request would end: whether the log goes on behind this event, so that somebody who only
   * watches is shown the rest as well.
   */
  goesOn?: (event: StoredEvent) => Promise<boolean | undefined>
  /** Called once somebody reads: the headers can go out, though there may be no event for a long time. */
  onOpen(): void
  onError(error: unknown): void
}

/**
 * The body of an event stream: what `events` brings until the run ends or waits for the client, a comment now and then so that
 * proxies keep the connection, and `[DONE]`. Asks for no more while the client does not read. Not made of a generator: with
 * Readable.from every frame of every stream would wait for a few promises and a timer of its own.
 */
export function sseBody(events: EventBatches, hooks: StreamHooks): Readable {
  let hasBegun = false
  let isOver = false
  let onRead = (): void => {}
  const body = new Readable({
    highWaterMark: bufferedBytes,
    read() {
      onRead()
      if (!hasBegun) void send()
      hasBegun = true
    },
    destroy(error, destroyed) {
      close()
      onRead()
      destroyed(error)
    },
  })
  let ping: NodeJS.Timeout | undefined

  async function send(): Promise<void> {
    hooks.onOpen()
    ping = setTimeout(sendPing, pingMs)
    try {
      while (!isOver) {
        const { value, done } = await events.next()
        if (isOver) return
        if (done) return end(value === 'over' ? doneFrame : gone + doneFrame)
        const last = await endOf(value)
        if (isOver) return
        if (last >= 0) return end(frames(value.slice(0, last + 1)), doneFrame)
        ping.refresh()
        if (!body.push(frames(value))) await new Promise<void>((resolve) => (onRead = resolve))
      }
    } catch (error) {
      hooks.onError(error)
      end(broken + doneFrame)
    } finally {
      void events.return(undefined)
    }
  }

  /** Where the stream ends in these; -1 where it does not. */
  async function endOf(events: StoredEvent[]): Promise<number> {
    for (const [index, stored] of events.entries()) {
      if (endsStream(stored.event) && !(await hooks.goesOn?.(stored))) return index
    }
    return -1
  }

  function sendPing(): void {
    // Who has not read what is there needs no sign of life.
    if (body.readableLength === 0) body.push(comment('ping'))
    ping?.refresh()
  }

  function end(...last: (Buffer | string)[]): void {
    if (isOver) return
    close()
    for (const one of last) body.push(one)
    body.push(null)
  }

  function close(): void {
    isOver = true
    clearTimeout(ping)
  }

  return body
}

/** What waits here for a client that reads slowly, beside the kernel's buffers. */
const bufferedBytes = 64 * 1024

export const sseHeaders = {
  'content-type': 'text/event-stream; charset=utf-8',
  'cache-control': 'no-cache, no-transform',
  // nginx would hold events back.
  'x-accel-buffering': 'no',
}

const doneFrame = 'event: done\ndata: [DONE]\n\n'

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

const gone = failure('The run is gone: its thread was deleted.')
const broken = failure(
  'The server had an error while streaming; the run goes on. Retrieve it for its state.',
)

function frames(events: StoredEvent[]): Buffer {
  const [first] = events
  return first && events.length === 1 ? frame(first) : Buffer.concat(events.map(frame))
}

/** Many may watch one run: they are handed the same event, and its frame is made once. */
const made = new WeakMap<StoredEvent, Buffer>()

/** Our decoders and theirs ignore `id:`; browsers send it back as Last-Event-ID. */
function frame(stored: StoredEvent): Buffer {
  const known = made.get(stored)
  if (known) return known
  const { seq, event, data } = stored
  const bytes = Buffer.from(`id: ${seq}\nevent: ${event}\ndata: ${data}\n\n`)
  made.set(stored, bytes)
  return bytes
}
