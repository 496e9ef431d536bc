import type OpenAI from 'openai'

import type { Step } from '../../support/model.ts'

/**
 * A golden transcript: what a model says, and every event that clients are then sent, with its whole payload, written by
 * hand from the recordings of the original (StreamingRunWorks, StreamingToolCall), its documents and the spec's section 4.
 * What the original's sources leave open is our choice, and is said to be where it is made.
 *
 * In a payload
 *   run_1, file_1 ...  is an id: the same one wherever it stands, and never another's
 *   @asked, @ended ... is a moment in whole seconds: the same one wherever it stands, and not before those that were named earlier
 *   #prompt            is a number above 0: the same one wherever it stands
 *   @asked + 600       is what it says
 *   {model_host}       is the address of the model, also in the middle of a text
 */
export interface Transcript {
  title: string
  /** What the model says, one answer for each time that it is asked. */
  answers: () => Step[]
  /** Of the assistant. */
  tools?: OpenAI.Beta.AssistantTool[]
  /** The thread that the run brings along; without one it is a run of thread_1. */
  thread?: OpenAI.Beta.ThreadCreateAndRunParams.Thread
  /** It is played where code can be run. */
  runsCode?: true
  /** What its client asks for beside. */
  body?: { expires_after_seconds: number }
  /** Done once the first words of the run are there. */
  meanwhile?: 'go on' | 'cancel' | 'delete the thread'
  /** The events of the run, and those of its tool outputs if it asks for any. `done` follows each. */
  streams: (words: Words) => Line[][]
}

/**
 * An event, the object that it is about, and what is new in that: all fields where it is first mentioned, and of a delta
 * all that it says. An error is about none.
 */
export type Line = [event: string, id: string | null, fields: Fields]

export type Fields = Record<string, unknown>

/** How a dialect says what begins in a transcript, with every field that it has; and what else it says in its own way. */
export interface Words {
  /** thread_1, of the moment that its run is asked for. */
  thread: Fields
  /** A run of asst_1 in thread_1, as it is before anything happens. */
  run: Fields
  /** A step of run_1 that will have tool calls. */
  toolStep: Fields
  /** A step of run_1 that writes msg_1. */
  messageStep: Fields
  /** A message of run_1 before its first word. */
  message: Fields
  lookUp: Fields
  /** What a run has whose assistant runs code, and has no files for it. */
  runsCode: Fields
  /** What a part of a message says of an image. */
  imageFile: (fileId: string) => Fields
  /** What a message says of the files that code has made for it. */
  madeFiles: (fileIds: string[]) => Fields
  usage: (promptTokens: number | string, completionTokens: number) => Fields
  /** The status of a run that met a limit. */
  incomplete: string
}

/** The dialect's words about a run that may last so many seconds. */
export type Dialect = (lifeS: number) => Words

export interface Event {
  event: string
  data: unknown
}

/** Whole payloads, stream by stream: what a line leaves out is as it was, in the stream before too. */
export function eventsOf({ streams, body }: Transcript, dialect: Dialect): Event[][] {
  const objects = new Map<string, Fields>()
  // The original's runs lasted ten minutes (spec section 3).
  const words = dialect(body?.expires_after_seconds ?? 600)
  return streams(words).map((lines) =>
    lines.map(([event, id, fields]) => {
      if (id === null) return { event, data: fields }
      if (event.endsWith('.delta')) return { event, data: { id, object: event, delta: fields } }
      const data = { id, ...objects.get(id), ...fields }
      objects.set(id, data)
      return { event, data }
    }),
  )
}

/** What the helpers of a client make of a stream. */
export interface Told {
  /** Names; deltas that follow each other are one, since how a text is cut is the provider's business. */
  events: string[]
  status: string
  /** Of the messages that ended. */
  texts: string[]
}

/** Each stream of a transcript in short, but for one that ends with an error. */
export function toldBy(transcript: Transcript, dialect: Dialect): Told[] {
  return eventsOf(transcript, dialect)
    .filter((events) => !endsWithError(events))
    .map((events) => ({
      events: compact(events.map(({ event }) => event)),
      status: events.map(({ data }) => (data as { status: string }).status).at(-1) ?? '',
      texts: events
        .filter(({ event }) => /^thread\.message\.(in)?complete/.test(event))
        .map(({ data }) => textOf(data as { content: { text?: { value: string } }[] })),
    }))
}

export function endsWithError(events: Event[]): boolean {
  return events.at(-1)?.event === 'error'
}

/** The sum of a number or of what stands for one, and a number. */
export function plus(a: number | string, b: number): number | string {
  return typeof a === 'number' ? a + b : `${a} + ${b}`
}

/** Names of events, with deltas that follow each other as one. */
export function compact(names: string[]): string[] {
  return names.filter((name, at) => !name.endsWith('.delta') || names[at - 1] !== name)
}

function textOf({ content }: { content: { text?: { value: string } }[] }): string {
  return content.map(({ text }) => text?.value ?? '').join('')
}
