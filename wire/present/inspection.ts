import type { InspectedTurn, Inspection } from '../../store/inspection.ts'
import type { AttemptFailure } from '../../store/rows.ts'
import { isTerminal, type RunStatus } from '../run-status.ts'
import { seconds, secondsOrNull } from '../time.ts'

/** What the read of a single run tells beside the run: where it is, and what it waits for. */
export interface InspectionOfRun {
  /** The model turn it is in, from 1; null before the first was begun. */
  turn: number | null
  /** How often that turn has been begun: 1, unless a provider failed or a worker went away. */
  attempt: number | null
  /** 1 for the run that gets the thread next; null where it does not wait for its thread. */
  queue_position: number | null
  /** Null once the run has ended. */
  activity: ActivityOfRun | null
  /** Why a model did not answer, as long as it has not answered since: also of a run that has ended over it. */
  last_failure: string | null
}

/** `since` in seconds, null where nobody wrote it down; `text` is for people. */
export type ActivityOfRun = { since: number | null; text: string } & (
  | { type: 'waiting_for_thread'; run_id: string | null }
  | { type: 'waiting_for_temporal' }
  | { type: 'waiting_for_worker' }
  | { type: 'asking_model'; model: string; last_failure: string | null }
  /** `retry_at` in seconds, null where the provider did not say: then it is soon. */
  | { type: 'waiting_to_retry'; model: string; last_failure: string; retry_at: number | null }
  | { type: 'running_tools'; tools: string[] }
  | { type: 'waiting_for_tool_outputs'; functions: string[] }
  | { type: 'cancelling' }
)

export function presentInspection(found: Inspection): InspectionOfRun {
  const { turn } = found
  return {
    turn: turn && turn.number + 1,
    attempt: turn && turn.attempt,
    queue_position: found.queuePosition,
    activity: activityOf(found),
    last_failure:
      turn?.failure && isUnanswered(turn, found.run.status) ? turn.failure.message : null,
  }
}

/** Whether the model that was asked in a turn never answered; a run that is ended in the middle has a result as well. */
function isUnanswered({ result }: InspectedTurn, status: RunStatus): boolean {
  const isCutShort = status === 'failed' || status === 'expired' || status === 'cancelled'
  return result === null || (result === 'ended' && isCutShort)
}

function activityOf(found: Inspection): ActivityOfRun | null {
  const { status } = found.run
  if (isTerminal(status)) return null
  switch (status) {
    case 'queued':
      return found.queuePosition === null ? waitingToBegin(found) : waitingForThread(found)
    case 'in_progress':
      return atWork(found)
    case 'requires_action':
      return waitingForOutputs(found)
    case 'cancelling':
      return {
        type: 'cancelling',
        since: secondsOrNull(found.statusSince),
        text: 'It is being cancelled: the worker that has it in hand is to stop and to keep what was written.',
      }
    default:
      return status satisfies never
  }
}

function waitingForThread({ run, queuePosition, before }: Inspection): ActivityOfRun {
  const whom = before ? `run ${before.id}, which is ${before.status}` : 'its turn'
  return {
    type: 'waiting_for_thread',
    run_id: before && before.id,
    since: seconds(run.created_at),
    text: `Number ${queuePosition} in the queue of its thread: it waits for ${whom}.`,
  }
}

/** At the very beginning, and again once tool outputs have been submitted. */
function waitingToBegin({ command, statusSince }: Inspection): ActivityOfRun {
  if (command) {
    return {
      type: 'waiting_for_temporal',
      since: seconds(command.since),
      text: 'Temporal has not taken it over yet.',
    }
  }
  return {
    type: 'waiting_for_worker',
    since: secondsOrNull(statusSince),
    text: 'Temporal has it; no worker has begun with it yet.',
  }
}

function atWork({ turn, openCalls, openCallsSince, sandboxProgress }: Inspection): ActivityOfRun {
  if (turn && turn.result === null) return askingModel(turn)
  if (openCalls.length > 0) {
    const tools = openCalls.map(({ name }) => name)
    const again = openCalls.filter(({ attempt }) => attempt > 1)
    const attempts = again.map(({ name, attempt }) => ` ${name} is at attempt ${attempt}.`)
    return {
      type: 'running_tools',
      tools,
      since: secondsOrNull(openCallsSince),
      text:
        sandboxProgress === null
          ? `Running ${tools.join(', ')}.${attempts.join('')}`
          : `Waiting for the sandbox of the code interpreter, which is being set up: ${sandboxProgress}`,
    }
  }
  return {
    type: 'waiting_for_worker',
    since: null,
    text: 'The next model turn is due; no worker has begun with it yet.',
  }
}

function askingModel(turn: InspectedTurn): ActivityOfRun {
  const { model, attempt, failure, begunAt, failedAt } = turn
  if (failure && failedAt && begunAt && failedAt >= begunAt) return failed(turn, failure, failedAt)
  const state = turn.isWriting ? `${model} is writing` : `${model} has been asked`
  const times = attempt > 1 ? ` (attempt ${attempt})` : ''
  const before = failure ? ` Before that: ${failure.message}` : ''
  return {
    type: 'asking_model',
    model,
    last_failure: failure && failure.message,
    since: secondsOrNull(begunAt),
    text: `${state}${times}.${before}`,
  }
}

function failed(
  { model, attempt }: InspectedTurn,
  failure: AttemptFailure,
  failedAt: Date,
): ActivityOfRun {
  const since = seconds(failedAt)
  if (failure.is_final) {
    return { type: 'waiting_for_worker', since, text: `${failure.message} It is not tried again.` }
  }
  const { retry_at_ms: retryAtMs } = failure
  const at = retryAtMs === undefined ? null : new Date(Math.ceil(retryAtMs / 1000) * 1000)
  const when = at ? ` at ${at.toISOString().replace('.000', '')}` : ''
  return {
    type: 'waiting_to_retry',
    model,
    last_failure: failure.message,
    retry_at: secondsOrNull(at),
    since,
    text: `${failure.message} It is tried again${when} (attempt ${attempt + 1}).`,
  }
}

function waitingForOutputs({ run, statusSince }: Inspection): ActivityOfRun {
  const calls = run.required_action?.tool_calls ?? []
  const functions = calls.map((call) => call.function.name)
  return {
    type: 'waiting_for_tool_outputs',
    functions,
    since: secondsOrNull(statusSince),
    text: `Waiting for the client to submit the outputs of ${functions.join(', ')}.`,
  }
}
