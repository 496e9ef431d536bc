import { jsonIn } from './json.ts'

/**
 * Cuts a stream of bytes into server-sent events, each with the blank line that ends it, without changing a byte. What is
 * longer than `limitBytes` is handed on in parts, unread.
 */
export function createEventCutter(limitBytes: number): EventCutter {
  let held: Buffer[] = []
  let heldBytes = 0
  let isTooLong = false
  let isBlankSoFar = true

  function take(kind: 'event' | 'part'): Piece {
    const bytes = Buffer.concat(held)
    held = []
    heldBytes = 0
    return { kind: isTooLong ? 'part' : kind, bytes }
  }

  function hold(bytes: Buffer): void {
    if (bytes.length > 0) held.push(bytes)
    heldBytes += bytes.length
  }

  return {
    *push(chunk) {
      let eventAt = 0
      let lineAt = 0
      for (;;) {
        const end = chunk.indexOf(newline, lineAt)
        const line = chunk.subarray(lineAt, end < 0 ? chunk.length : end)
        if (line.some((byte) => byte !== carriageReturn)) isBlankSoFar = false
        if (end < 0) break
        lineAt = end + 1
        if (isBlankSoFar) {
          hold(chunk.subarray(eventAt, lineAt))
          eventAt = lineAt
          yield take('event')
          isTooLong = false
        }
        isBlankSoFar = true
      }
      hold(chunk.subarray(eventAt))
      if (heldBytes > limitBytes || (isTooLong && heldBytes > 0)) {
        isTooLong = true
        yield take('part')
      }
    },
    rest: () => (heldBytes > 0 ? take('event') : undefined),
  }
}

export interface EventCutter {
  push(chunk: Buffer): Generator<Piece>
  /** What came after the last blank line. */
  rest(): Piece | undefined
}

export type Piece = { kind: 'event' | 'part'; bytes: Buffer }

/** The JSON that an event carries; undefined where it carries none, as `[DONE]` does. */
export function eventValue(event: Buffer): unknown {
  const data = event
    .toString('utf8')
    .split(/\r?\n/)
    .filter((line) => line.startsWith('data:'))
    .map((line) => line.slice('data:'.length))
  return jsonIn(data.join('\n'))
}

const newline = 0x0a
const carriageReturn = 0x0d
