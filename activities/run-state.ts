import type { RunEnd } from '../store/run-end.ts'
import type { RunStepRow } from '../store/rows.ts'
import type { Deps } from './index.ts'

export function createRunState({ store }: Deps) {
  return {
    /** Hands the run to the client, once our own tools of the turn are done. */
    async requireAction(runId: string, stepId: string): Promise<void> {
      await store.turns.askClient(runId, stepId as RunStepRow['id'])
    },
    /** Ends a run that no model turn has ended; returns the status it has in the end, which may be another. */
    async finalizeRun(runId: string, end: RunEnd): Promise<string> {
      return (await store.runs.end(runId, end)) ?? 'gone'
    },
  }
}
