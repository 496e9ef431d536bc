import { Transform } from 'node:stream'
import { callbackify } from 'node:util'

import type { Tokens } from '../../store/passed-usage.ts'
import { createEventCutter, eventValue, type Piece } from './events.ts'
import { jsonIn } from './json.ts'
import { tokensIn, tokensInTail } from './usage.ts'

/** An answer on its way to the client, and what is learnt from it as it passes. */
export interface Reader {
  stream: Transform
  /** The last usage that it told. */
  tokens: Tokens | undefined
  /** The id of the object that it is about. */
  id: string | undefined
}

export interface ReaderOptions {
  /** Awaited before the client sees the id, which it may use at once. Left out where the id does not matter. */
  onId?: ((id: string) => Promise<void>) | undefined
  /** Takes out the chunk that holds nothing but the usage: we asked for it, and the client did not. */
  hidesUsage: boolean
}

/** What is longer goes by unread; of a JSON answer the beginning and the end are looked at. */
const readLimitBytes = 8 * 1024 * 1024
const headBytes = 4 * 1024
const tailBytes = 16 * 1024

/** Reads by the content type: events, JSON, or nothing, as of audio. */
export function createReader(contentType: string, options: ReaderOptions): Reader {
  if (isEventStream(contentType)) return eventReader(options)
  if (/^application\/([\w.-]+\+)?json\b/i.test(contentType)) return jsonReader(options)
  return { stream: passing(async (chunk, push) => push(chunk)), tokens: undefined, id: undefined }
}

export function isEventStream(contentType: string): boolean {
  return /^text\/event-stream\b/i.test(contentType)
}

/** Hands on whole events: no client can do anything with a part of one. */
function eventReader({ onId, hidesUsage }: ReaderOptions): Reader {
  const cutter = createEventCutter(readLimitBytes)

  async function handOn({ kind, bytes }: Piece, push: Push): Promise<void> {
    const isOfInterest = tellsUsage(bytes) || (onId && !reader.id)
    const value = kind === 'event' && isOfInterest ? eventValue(bytes) : undefined
    const tokens = tokensIn(value)
    reader.tokens = tokens ?? reader.tokens
    await learnId(reader, value, onId)
    if (!(hidesUsage && tokens && hasNoChoices(value))) push(bytes)
  }

  const reader: Reader = {
    stream: passing(
      async (chunk, push) => {
        for (const piece of cutter.push(chunk)) await handOn(piece, push)
      },
      async (push) => {
        const rest = cutter.rest()
        if (rest) await handOn(rest, push)
      },
    ),
    tokens: undefined,
    id: undefined,
  }
  return reader
}

/** Keeps a copy up to a limit. Where there is an id to be kept first, the last chunk waits for that. */
function jsonReader({ onId }: ReaderOptions): Reader {
  let copy: Buffer[] = []
  let copyBytes = 0
  let isWhole = true
  let head = ''
  let last: Buffer | undefined

  function remember(chunk: Buffer): void {
    copy.push(chunk)
    copyBytes += chunk.length
    if (copyBytes <= readLimitBytes) return
    if (isWhole) head = Buffer.concat(copy).subarray(0, headBytes).toString('utf8')
    isWhole = false
    copy = [Buffer.from(Buffer.concat(copy).subarray(-tailBytes))]
    copyBytes = tailBytes
  }

  const reader: Reader = {
    stream: passing(
      async (chunk, push) => {
        remember(chunk)
        if (!isWhole) await learnId(reader, { id: idInHead(head) }, onId)
        if (last) push(last)
        last = onId ? chunk : undefined
        if (!onId) push(chunk)
      },
      async (push) => {
        const text = Buffer.concat(copy).toString('utf8')
        const value = isWhole ? jsonIn(text) : undefined
        reader.tokens = isWhole ? tokensIn(value) : tokensInTail(text)
        await learnId(reader, value, onId)
        if (last) push(last)
      },
    ),
    tokens: undefined,
    id: undefined,
  }
  return reader
}

/** Endpoints write the id first. */
function idInHead(text: string): string | undefined {
  return /^\s*\{\s*"id"\s*:\s*"([^"\\]+)"/.exec(text)?.[1]
}

async function learnId(reader: Reader, value: unknown, onId: ReaderOptions['onId']): Promise<void> {
  if (!onId || reader.id !== undefined || !isRecord(value)) return
  const { id } = isRecord(value['response']) ? value['response'] : value
  if (typeof id !== 'string') return
  reader.id = id
  await onId(id)
}

/** Nearly every chunk holds a usage that is null: those need not be parsed. */
function tellsUsage(event: Buffer): boolean {
  return /"usage"\s*:\s*\{/.test(event.toString('latin1'))
}

function hasNoChoices(value: unknown): boolean {
  return isRecord(value) && Array.isArray(value['choices']) && value['choices'].length === 0
}

type Push = (bytes: Buffer) => void

function passing(
  take: (chunk: Buffer, push: Push) => Promise<void>,
  end: (push: Push) => Promise<void> = async () => {},
): Transform {
  const [taking, ending] = [callbackify(take), callbackify(end)]
  const stream = new Transform({
    transform: (chunk: Buffer, _encoding, done) => taking(chunk, push, done),
    flush: (done) => ending(push, done),
  })
  const push: Push = (bytes) => void stream.push(bytes)
  return stream
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
