import { defineSignal } from '@temporalio/workflow'

/** The names by which others reach a run's workflow: the only values that `engine` takes from this folder. */
export const assistantRunType = 'assistantRun'

/** Ids and numbers only: what people write stays in Postgres, and out of the history that operators read. */
export interface RunInput {
  runId: string
  /** Unix milliseconds. */
  expiresAt: number
  /** How often a model call is attempted before the run fails. */
  modelAttempts: number
  maxSteps: number
  model: string
  /** Asked in this order where the model does not answer. */
  fallbackModels: string[]
  /** Set when a long run continues as new. */
  turn?: number
}

/** The outputs of the step's function calls are in Postgres. Repeated signals are harmless. */
export const toolOutputsSubmitted = defineSignal<[{ stepId: string }]>('toolOutputsSubmitted')
export const cancelRequested = defineSignal('cancelRequested')
