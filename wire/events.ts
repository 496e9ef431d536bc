import type { AssistantStreamEvent } from './openai.ts'

/** What the event log holds and SSE sends: the name of an event and its object, already as JSON. */
export interface RunEvent {
  event: RunEventName
  data: string
}

/** An event in the log of its run. `seq` starts at 1 and has no gaps: it is the `id:` of the SSE frame. */
export interface StoredEvent extends RunEvent {
  seq: number
}

/** The original's, and `snapshot`: ours, never in a log, for whoever resumes where events have been removed. */
export type RunEventName = Exclude<AssistantStreamEvent['event'], 'error'> | 'snapshot'

export function runEvent(event: RunEventName, object: object): RunEvent {
  return { event, data: JSON.stringify(object) }
}

/** After these the stream of a request ends: nothing more comes until the client acts, if ever. */
export function endsStream(event: RunEventName): boolean {
  return event === 'thread.run.requires_action' || endsRun(event)
}

export function endsRun(event: RunEventName): boolean {
  return ends.has(event)
}

const ends: ReadonlySet<RunEventName> = new Set([
  'thread.run.completed',
  'thread.run.incomplete',
  'thread.run.failed',
  'thread.run.cancelled',
  'thread.run.expired',
])
