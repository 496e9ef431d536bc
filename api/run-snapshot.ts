import type { StoredEvent } from '../wire/events.ts'
import { MAX_STEPS } from '../wire/limits.ts'
import { presentMessage } from '../wire/present/message.ts'
import { presentRun } from '../wire/present/run.ts'
import type { RunSnapshot } from '../wire/present/run-snapshot.ts'
import type { ApiDeps } from './app.ts'
import { presentSteps } from './run-steps.ts'

/** All that a run has come to, as the event that stands for those that are gone. Throws where the run itself is gone. */
export async function runSnapshot(
  deps: Pick<ApiDeps, 'store'>,
  { projectId, runId, seq }: { projectId: string; runId: string; seq: number },
): Promise<StoredEvent> {
  const { store } = deps
  const run = await store.runs.get(projectId, runId)
  if (!run) throw new Error(`Run ${runId} was deleted`)
  const all = { limit: mostParts, order: 'asc' } as const
  const steps = await store.steps.list(runId, all)
  const messages = await store.messages.list({ run_id: runId, superseded: false }, all)
  const data: RunSnapshot = {
    object: 'thread.run.snapshot',
    run: presentRun(run),
    steps: await presentSteps(deps, run, steps.rows),
    messages: messages.rows.map(presentMessage),
  }
  return { seq, event: 'snapshot', data: JSON.stringify(data) }
}

/** A turn writes a message and asks for tools: two steps. */
const mostParts = 2 * MAX_STEPS
