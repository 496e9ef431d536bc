import type OpenAI from 'openai'
import type { AssistantStream } from 'openai/lib/AssistantStream'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'

import { newThread } from '../support/cluster.ts'
import {
  checkEvents,
  parsed,
  postStream,
  runIdOf,
  type RawStream,
} from '../support/event-stream.ts'
import { call, say } from '../support/model.ts'
import { startServer, type TestServer } from '../support/server.ts'
import { act, question, serverOfTranscripts, skipped, transcripts } from './sequences.ts'
import { bind, merged } from './transcripts/binder.ts'
import { gone, goneMessage } from './transcripts/cut-short.ts'
import { plainAnswer } from './transcripts/plain-answer.ts'
import {
  compact,
  endsWithError,
  eventsOf,
  toldBy,
  type Event,
  type Transcript,
} from './transcripts/transcript.ts'
import { v1 } from './transcripts/v1.ts'
import { v2 } from './transcripts/v2.ts'

/**
 * The streams of runs against their transcripts: each payload without any client, in both dialects, and what the helpers of
 * the newest npm client make of them; all other clients are in sequences.full.test.ts.
 */

let server: TestServer
let client: OpenAI
beforeAll(async () => {
  server = await startServer(serverOfTranscripts)
  ;({ client } = server)
})
afterAll(() => server[Symbol.asyncDispose]())

describe.each([...transcripts, gone].map(titled))('%s', (_, transcript) => {
  test.skipIf(skipped(transcript)).each([
    ['v2', v2],
    ['v1', v1],
  ] as const)('as frames of %s', async (name, dialect) => {
    const { streams, ...facts } = await streamsOf(transcript, name)
    const seen = streams.map(merged)
    const told = eventsOf(transcript, dialect).map(merged)
    expect(seen).toEqual(bind(told, seen, facts))

    const whole = streams.filter((events) => !endsWithError(events))
    const checked = await Promise.all(
      whole.map((events, index) => checkEvents(events, { continues: index > 0 })),
    )
    expect(checked).toMatchObject(
      toldBy(transcript, dialect).map(({ status, texts }) => ({ runStatus: status, texts })),
    )
  })
})

describe.each(transcripts.map(titled))('%s', (_, transcript) => {
  const { answers, tools, thread, body, meanwhile } = transcript

  test.skipIf(skipped(transcript))('as the helpers for streams follow it', async () => {
    const [told, toldOfRest] = toldBy(transcript, v2)
    const stream = await followedBy(transcript)
    expect(await followed(stream)).toEqual(told)

    if (!toldOfRest) return
    const waiting = await stream.finalRun()
    const made = (await stream.finalRunSteps()).flatMap(({ step_details: details }) =>
      details.type === 'tool_calls' ? details.tool_calls : [],
    )
    // What it put together from deltas is what the run asks for.
    expect(made).toMatchObject(waiting.required_action?.submit_tool_outputs.tool_calls ?? [])
    const rest = client.beta.threads.runs.submitToolOutputsStream(waiting.id, {
      thread_id: waiting.thread_id,
      tool_outputs: outputsFor(waiting),
    })
    expect(await followed(rest)).toEqual(toldOfRest)
  })

  test.skipIf(skipped(transcript))('as the helpers that poll end with it', async () => {
    const [told, toldOfRest] = toldBy(transcript, v2)
    server.model.script(...answers())
    const { threadId, assistantId } = await newThread(client, question, tools)
    const { runs } = client.beta.threads
    const before = server.model.calls
    const request = { assistant_id: assistantId, ...body }
    const polled = thread
      ? client.beta.threads.createAndRunPoll({ ...request, thread })
      : runs.createAndPoll(threadId, request)
    if (meanwhile) {
      await server.model.tokensOut(await server.model.called(before + 1), 1)
      const [run] = (await runs.list(threadId)).data
      await act(server, transcript, { runId: run?.id ?? '', threadId })
    }
    const waiting = await polled
    expect(waiting.status).toBe(told?.status)

    if (!toldOfRest) return
    const over = await runs.submitToolOutputsAndPoll(waiting.id, {
      thread_id: threadId,
      tool_outputs: outputsFor(waiting),
    })
    expect(over.status).toBe(toldOfRest.status)
  })
})

test(`sequence ${gone.title}, as the helpers for streams report it`, async () => {
  const stream = await followedBy(gone)
  await expect(stream.finalRun()).rejects.toThrow(goneMessage)
})

describe('a stream', () => {
  const told = eventsOf(plainAnswer, v2).map(merged)
  const ids = { run_1: id('run', 'a'), step_1: id('step', 'a'), msg_1: id('msg', 'a') }
  const known = { asst_1: id('asst', 'a'), thread_1: id('thread', 'a') }
  const delta = 'thread.message.delta'

  test('is as its transcript says', () => {
    const { seen, expected } = compared(() => {})
    expect(seen).toEqual(expected)
  })

  test('is so however its text is cut', () => {
    const { seen, expected } = compared((events) => {
      const pieces = [{ value: 'Hel', annotations: [] }, { value: 'lo ' }, { value: 'there.' }]
      events.splice(indexOf(events, delta), 1, ...pieces.map(piece))
    })
    expect(seen).toEqual(expected)
  })

  test.each<[string, (events: Seen[]) => void]>([
    ['with an event less', (events) => events.splice(1, 1)],
    ['with an event twice', (events) => events.push(...events.slice(-1))],
    ['in another order', (events) => events.push(...events.splice(-2, 1))],
    ['with a field less', (events) => delete of(events, 'thread.run.queued')['metadata']],
    ['with a field more', (events) => (of(events, 'thread.run.queued')['more'] = null)],
    [
      'with another text',
      (events) =>
        events.splice(indexOf(events, delta), 1, piece({ value: 'Hello ', annotations: [] })),
    ],
    [
      'with annotations in a later piece',
      (events) => {
        const pieces = ['Hello ', 'there.'].map((value) => piece({ value, annotations: [] }))
        events.splice(indexOf(events, delta), 1, ...pieces)
      },
    ],
    ['under another id', (events) => (of(events, 'thread.run.queued')['id'] = id('run', 'b'))],
    ['with one id for two', (events) => replace(events, ids.msg_1, known.thread_1)],
    ['with an id of another form', (events) => replace(events, ids.msg_1, 'msg_1')],
    [
      'at a moment that is none',
      (events) => (of(events, 'thread.run.completed')['completed_at'] = 1.5),
    ],
    ['at a moment before', (events) => (of(events, 'thread.run.completed')['completed_at'] = 1)],
    [
      'at a moment to come',
      (events) => (of(events, 'thread.run.completed')['completed_at'] = 1e10),
    ],
    ['with another deadline', (events) => (of(events, 'thread.run.queued')['expires_at'] = 1)],
  ])('is not %s', (_, change) => {
    const { seen, expected } = compared(change)
    expect(seen).not.toEqual(expected)
  })

  type Fields = Record<string, unknown>
  interface Seen {
    event: string
    data: Fields
  }

  /** A stream as it should be, with all moments the same, but for a change. */
  function compared(change: (events: Seen[]) => void) {
    const since = new Date()
    const now = Math.floor(since.getTime() / 1000)
    const text = Object.entries({ ...ids, ...known })
      .reduce((all, [name, own]) => all.replaceAll(`"${name}"`, `"${own}"`), JSON.stringify(told))
      .replaceAll('"@asked + 600"', String(now + 600))
      .replaceAll(/"@\w+"/g, String(now))
    const streams = JSON.parse(text) as Seen[][]
    for (const events of streams) change(events)
    const seen = streams.map(merged)
    return { seen, expected: bind(told, seen, { known, since }) }
  }

  function id(kind: string, letter: string): string {
    return `${kind}_${letter.repeat(24)}`
  }

  function indexOf(events: Seen[], event: string): number {
    return events.findIndex((one) => one.event === event)
  }

  function of(events: Seen[], event: string): Fields {
    return events[indexOf(events, event)]?.data ?? {}
  }

  function piece(text: object): Seen {
    const content = [{ index: 0, type: 'text', text }]
    return { event: delta, data: { id: ids.msg_1, object: delta, delta: { content } } }
  }

  function replace(events: Seen[], from: string, to: string): void {
    const text = JSON.stringify(events).replaceAll(from, to)
    events.splice(0, events.length, ...(JSON.parse(text) as Seen[]))
  }
})

test('sequence D, file search', async ({ skip }) => {
  skip('needs file_search, which comes later')
  server.model.script(call({ name: 'file_search', arguments: {} }), say('Done.'))
  const { threadId, assistantId } = await newThread(client, 'Look.', [{ type: 'file_search' }])
  const url = `${server.baseUrl}/threads/${threadId}/runs`
  const stream = await postStream(url, { assistant_id: assistantId })
  // A step of its own, before those of a plain answer.
  const [answer] = toldBy(plainAnswer, v2)
  const own = ['created', 'in_progress', 'delta', 'completed'].map((of) => `thread.run.step.${of}`)
  const events = answer?.events.toSpliced(answer.events.indexOf(own[0] ?? ''), 0, ...own)
  expect(compact((await eventsIn(stream)).map(({ event }) => event))).toEqual(events)
})

function titled(transcript: Transcript): [title: string, Transcript] {
  return [`sequence ${transcript.title}${skipped(transcript)}`, transcript]
}

/** The events of a run and of its outputs, as they came; and what was known of it before. */
async function streamsOf(transcript: Transcript, dialect: 'v1' | 'v2') {
  const since = new Date()
  const { answers, tools, thread, body, meanwhile } = transcript
  server.model.script(...answers())
  const { threadId, assistantId } = await newThread(client, question, tools)
  const known = {
    asst_1: assistantId,
    ...(!thread && { thread_1: threadId }),
    '{model_host}': new URL(server.model.url).host,
  }
  const runs = `${server.baseUrl}/threads/${thread ? '' : `${threadId}/`}runs`
  const stream = await postStream(runs, { assistant_id: assistantId, thread, ...body }, dialect)
  if (meanwhile) {
    await stream.saw('thread.message.delta')
    await act(server, transcript, { runId: runIdOf(stream), threadId })
  }
  const streams = [await eventsIn(stream)]
  // The last event is about the run, unless it is an error.
  const run = streams[0]?.at(-1)?.data as OpenAI.Beta.Threads.Run
  if (run.required_action) {
    const outputs = { tool_outputs: outputsFor(run) }
    const rest = await postStream(`${runs}/${run.id}/submit_tool_outputs`, outputs, dialect)
    streams.push(await eventsIn(rest))
  }
  return { streams, known, since }
}

/** A run that a helper of the client streams. */
async function followedBy(transcript: Transcript): Promise<AssistantStream> {
  const { answers, tools, thread, body, meanwhile } = transcript
  server.model.script(...answers())
  const { threadId, assistantId } = await newThread(client, question, tools)
  const request = { assistant_id: assistantId, ...body }
  const stream = thread
    ? client.beta.threads.createAndRunStream({ ...request, thread })
    : client.beta.threads.runs.stream(threadId, request)
  if (meanwhile) {
    stream.once('textDelta', () => {
      void act(server, transcript, { runId: stream.currentRun()?.id ?? '', threadId })
    })
  }
  return stream
}

/** All events of a stream that ends with `done`. */
async function eventsIn(stream: RawStream): Promise<Event[]> {
  expect(await stream.ended).toBe('done')
  return parsed(stream.frames)
}

/** What the accumulator of the client made of a stream. */
async function followed(stream: AssistantStream) {
  const names: string[] = []
  stream.on('event', ({ event }) => void names.push(event))
  const run = await stream.finalRun()
  const messages = await stream.finalMessages()
  const texts = messages.map(({ content }) =>
    content.map((part) => (part.type === 'text' ? part.text.value : '')).join(''),
  )
  return { events: compact(names), status: run.status, texts }
}

function outputsFor({ required_action: action }: OpenAI.Beta.Threads.Run) {
  const asked = action?.submit_tool_outputs.tool_calls ?? []
  return asked.map(({ id }) => ({ tool_call_id: id, output: 'rain' }))
}
