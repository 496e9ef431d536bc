import type { Logger } from '../log.ts'
import type { Models } from '../models.ts'
import type { Store } from '../store/index.ts'
import type { CodeHost } from './code-host.ts'
import { createModelTurn } from './model-turn.ts'
import { createRunState } from './run-state.ts'
import { createRunTool } from './run-tool.ts'

export type { RunEnd } from '../store/run-end.ts'
export type { ServerCall, TurnResult } from '../store/rows.ts'

/** What activities need; the worker's main puts it together. */
export interface Deps {
  store: Store
  models: Models
  log: Logger
  code: CodeDeps
  /** Milliseconds without a chunk after which a provider counts as gone. */
  modelIdleTimeoutMs: number
}

export interface CodeDeps {
  /** This process, where it runs code. */
  host: CodeHost | undefined
  /** Why no code can run where there is no host at all: the end of a sentence. */
  unavailable: string
  /** The longest that a call may take. */
  timeoutMs: number
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
