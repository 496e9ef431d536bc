import { createHmac, timingSafeEqual } from 'node:crypto'

/**
 * Protocol v1: one frame is one line, `~<mac> [seq,message]`, in printable ASCII. The mac is HMAC-SHA256 over the
 * direction and the rest of the line, cut to 128 bits; the direction makes an echo worthless, the number a replay.
 * Whatever else is on the line is noise.
 */
export interface FrameCodec<Received> {
  encode(message: object): string
  /** The frames that are whole by now. */
  decode(chunk: Buffer): Received[]
  /** Bytes that belonged to no frame, newlines left out. */
  readonly noiseBytes: number
  /** Lines that looked like frames and were none: forged, replayed, echoed or cut. */
  readonly badFrames: number
}

export type Direction = 'H' | 'S'

export interface FrameCodecOptions<Received> {
  key: Buffer
  sends: Direction
  receives: Direction
  /** Checks the shape of a message whose mac was right. Throws for what is no message. */
  parse: (message: unknown) => Received
  /** Gets each line that is no frame, cut to a few kilobytes. */
  onNoise?: (line: string) => void
}

const FRAME = /^~(?<mac>[0-9a-f]{32}) (?<body>\[(?<seq>\d{1,15}),.*\])$/
const MAX_LINE_BYTES = 1024 * 1024
const MAX_NOISE_LINE = 4096
const NEWLINE = 10

export function createFrameCodec<Received>(
  options: FrameCodecOptions<Received>,
): FrameCodec<Received> {
  const { key, sends, receives, parse, onNoise } = options
  const lines = createLines(MAX_LINE_BYTES)
  let sent = 0
  let received = 0
  let noiseBytes = 0
  let badFrames = 0

  function noise(line: Buffer): void {
    noiseBytes += line.length
    if (line.length > 0) onNoise?.(line.toString('latin1', 0, MAX_NOISE_LINE))
  }

  function open(line: Buffer): Received | undefined {
    const groups = FRAME.exec(line.toString('latin1'))?.groups
    if (!groups) {
      if (line[0] === 0x7e) badFrames += 1
      noise(line)
      return undefined
    }
    const { mac = '', body = '', seq = '' } = groups
    const isOurs = timingSafeEqual(Buffer.from(mac, 'hex'), macOf(key, receives, body))
    if (!isOurs || Number(seq) <= received) {
      badFrames += 1
      noise(line)
      return undefined
    }
    received = Number(seq)
    return parse((JSON.parse(body) as [number, unknown])[1])
  }

  return {
    encode(message) {
      sent += 1
      const body = toAscii(JSON.stringify([sent, message]))
      return `\n~${macOf(key, sends, body).toString('hex')} ${body}\n`
    },
    decode(chunk) {
      const messages: Received[] = []
      for (const line of lines.push(chunk)) {
        if (line.isCut) noise(line.bytes)
        else {
          const message = open(line.bytes)
          if (message !== undefined) messages.push(message)
        }
      }
      return messages
    },
    get noiseBytes() {
      return noiseBytes
    },
    get badFrames() {
      return badFrames
    },
  }
}

function macOf(key: Buffer, direction: Direction, body: string): Buffer {
  return createHmac('sha256', key).update(direction).update(body, 'latin1').digest().subarray(0, 16)
}

/** Terminals, and docker's client, act on control bytes; and not all of them let eight bits through. */
function toAscii(json: string): string {
  return json.replaceAll(
    /[\u007f-\uffff]/g,
    (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`,
  )
}

type Line = { bytes: Buffer; isCut: boolean }

/** Cuts a stream at its newlines. A line that is too long comes in pieces, so that nobody can fill our memory. */
function createLines(maxBytes: number) {
  let parts: Buffer[] = []
  let size = 0
  let isCut = false

  function take(): Line {
    const line = { bytes: parts.length === 1 ? parts[0]! : Buffer.concat(parts), isCut }
    parts = []
    size = 0
    return line
  }

  return {
    *push(chunk: Buffer): Generator<Line> {
      for (let from = 0; from < chunk.length;) {
        const end = chunk.indexOf(NEWLINE, from)
        const part = chunk.subarray(from, end === -1 ? chunk.length : end)
        parts.push(part)
        size += part.length
        if (end === -1) {
          if (size > maxBytes) {
            isCut = true
            yield take()
          }
          return
        }
        yield take()
        isCut = false
        from = end + 1
      }
    },
  }
}
