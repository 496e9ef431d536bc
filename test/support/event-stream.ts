import { createLogger } from '../../log.ts'
import { openStore } from '../../store/index.ts'
import { endsStream, type RunEventName } from '../../wire/events.ts'
import { plainAnswer } from '../contract/transcripts/plain-answer.ts'
import { toldBy } from '../contract/transcripts/transcript.ts'
import { v2 } from '../contract/transcripts/v2.ts'

/** One frame of a run's stream, as it came over the wire. */
export interface Frame {
  seq: number
  event: RunEventName | 'error'
  data: string
}

/** A stream that is read to its end, however it ends. */
export interface RawStream {
  frames: Frame[]
  /** Resolves with the first frame of this event, as soon as it is there. */
  saw(event: Frame['event']): Promise<Frame>
  /** Resolves at the end: whether `[DONE]` was the last word, or the connection broke before it. */
  ended: Promise<'done' | 'broken'>
}

/** Posts and reads the stream of events without any client of anybody's. */
export async function postStream(
  url: string,
  body: object,
  dialect: 'v1' | 'v2' = 'v2',
): Promise<RawStream> {
  const response = await fetch(url, {
    method: 'POST',
    headers: {
      authorization: 'Bearer test',
      'content-type': 'application/json',
      'openai-beta': `assistants=${dialect}`,
    },
    body: JSON.stringify({ ...body, stream: true }),
  })
  if (!response.ok || !response.body) {
    throw new Error(`POST ${url} answered ${response.status}: ${await response.text()}`)
  }
  const received = response.body
  return collect((take) => readFrames(received, take))
}

/** Reads the stream of a run from after an event, as `postStream` does. */
export async function getStream(url: string, after: number): Promise<RawStream> {
  const response = await fetch(`${url}?after=${after}`, {
    headers: { authorization: 'Bearer test', 'openai-beta': 'assistants=v2' },
  })
  if (!response.ok || !response.body) {
    throw new Error(`GET ${url} answered ${response.status}: ${await response.text()}`)
  }
  const received = response.body
  return collect((take) => readFrames(received, take))
}

/** Follows a run from after a frame, as an api process does for whoever comes back: to the end of the run. */
export async function followRun(
  databaseUrl: string,
  runId: string,
  after: number,
): Promise<RawStream> {
  const store = await openStore({ databaseUrl, log: createLogger('silent') })
  return collect(async (take) => {
    await using _ = store
    const never = new AbortController()
    for await (const events of store.events.follow(runId, after, { signal: never.signal })) {
      for (const { seq, event, data } of events) take({ seq, event, data })
      if (events.some(({ event }) => endsStream(event))) return 'done'
    }
    return 'broken'
  })
}

function collect(read: (take: (frame: Frame) => void) => Promise<'done' | 'broken'>): RawStream {
  const frames: Frame[] = []
  const waiting = new Set<() => void>()
  const ended = read((frame) => {
    frames.push(frame)
    for (const look of waiting) look()
  })
  return {
    frames,
    ended,
    saw: (event) =>
      new Promise((resolve, reject) => {
        const look = (): void => {
          const frame = frames.find((one) => one.event === event)
          if (frame) resolve(frame)
        }
        waiting.add(look)
        look()
        void ended.then(() => reject(new Error(`The stream ended without ${event}`)))
      }),
  }
}

async function readFrames(
  body: ReadableStream<Uint8Array>,
  take: (frame: Frame) => void,
): Promise<'done' | 'broken'> {
  let rest = ''
  try {
    for await (const chunk of body.pipeThrough(new TextDecoderStream())) {
      const blocks = (rest + chunk).split('\n\n')
      rest = blocks.pop() ?? ''
      for (const block of blocks) {
        const field = (name: string) => new RegExp(`^${name}: (.*)$`, 'm').exec(block)?.[1] ?? ''
        if (field('event') === 'done') return 'done'
        if (field('event') === '') continue
        take({
          seq: Number(field('id')),
          event: field('event') as Frame['event'],
          data: field('data'),
        })
      }
    }
  } catch {
    // The server was killed.
  }
  return 'broken'
}

/** What a stream came to, once it has kept all rules that clients rely on. */
export interface Checked {
  /** The names of the events; a run of equal ones is one. */
  events: string[]
  runStatus: string
  /** Of each message, in the order of their creation. */
  texts: string[]
  stepTypes: string[]
}

interface StreamRules {
  see(event: { event: string; data: unknown }): void
  end(): Checked
}

const rulesUrl = new URL('../contract/programs/stream-rules.mjs', import.meta.url).href

/** Throws with the event that breaks a rule of streams. `continues`: the stream of submitted tool outputs. */
export async function checkEvents(
  events: { event: string; data: unknown }[],
  options: { continues?: boolean } = {},
): Promise<Checked> {
  // A program that Python's tests share; it has no types of its own.
  const { createStreamRules } = (await import(rulesUrl)) as {
    createStreamRules: (options: { continues?: boolean }) => StreamRules
  }
  const rules = createStreamRules(options)
  for (const event of events) rules.see(event)
  return rules.end()
}

export function parsed(frames: Frame[]): { event: string; data: unknown }[] {
  return frames.map(({ event, data }) => ({ event, data: JSON.parse(data) as unknown }))
}

/** The numbers of frames that leave no gap, counted from the first. */
export function gapFree(frames: Frame[]): number[] {
  const first = frames[0]?.seq ?? 1
  return frames.map((_, index) => first + index)
}

/** The run that a stream is about. */
export function runIdOf({ frames }: RawStream): string {
  const frame = frames.find(({ event }) => event === 'thread.run.created')
  if (!frame) throw new Error('The stream has not named its run yet')
  return (JSON.parse(frame.data) as { id: string }).id
}

/** The events of an answer that nothing disturbs, neighbouring deltas as one. */
export const undisturbed = toldBy(plainAnswer, v2).flatMap(({ events }) => events)
