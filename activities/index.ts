import type { Logger } from '../log.ts'
import type { Models } from '../models.ts'
import type { Store } from '../store/index.ts'
import { createModelTurn } from './model-turn.ts'
import { createRunState } from './run-state.ts'
import { createRunTool } from './run-tool.ts'

export type { RunEnd } from '../store/run-end.ts'
export type { TurnResult } from '../store/rows.ts'

/** What activities need; the worker's main puts it together. */
export interface Deps {
  store: Store
  models: Models
  log: Logger
  /** Milliseconds without a chunk after which a provider counts as gone. */
  modelIdleTimeoutMs: number
}

export type Activities = ReturnType<typeof createActivities>

/** Everything that a run's workflow asks for. Each of them may run twice, and then has happened once. */
export function createActivities(deps: Deps) {
  return {
    modelTurn: createModelTurn(deps),
    runTool: createRunTool(deps),
    ...createRunState(deps),
  }
}
