import type { Message } from '../openai.ts'
import type { RunObject } from './run.ts'
import type { RunStepObject } from './run-step.ts'

/** Ours: all that a run has come to, for a client that resumes its stream where events have been removed. */
export interface RunSnapshot {
  object: 'thread.run.snapshot'
  run: RunObject
  /** The oldest first. */
  steps: RunStepObject[]
  /** Those that it has written, the oldest first. */
  messages: Message[]
}
