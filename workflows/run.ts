import {
  ActivityFailure,
  ApplicationFailure,
  CancellationScope,
  condition,
  continueAsNew,
  isCancellation,
  setCurrentDetails,
  setHandler,
  sleep,
  TimeoutFailure,
  upsertSearchAttributes,
  uuid4,
  workflowInfo,
} from '@temporalio/workflow'

import type { RunEnd, ServerCall, TurnResult } from '../activities/index.ts'
import { modelFailures, workerLost } from '../wire/failures.ts'
import { modelPolicy, rows, toolPolicy } from './activities.ts'
import { cancelRequested, toolOutputsSubmitted, type RunInput } from './messages.ts'

/**
 * A Run of the Assistants API. It asks the model, carries out the tools that are ours, waits for the client's outputs, and
 * asks again, until nothing is left to do. A run that fails, expires or is cancelled is a workflow that completes: failed
 * workflows are our bugs.
 */
export async function assistantRun(input: RunInput): Promise<string> {
  const submitted = new Set<string>()
  let cancelled = false
  const body = new CancellationScope()
  setHandler(toolOutputsSubmitted, ({ stepId }) => void submitted.add(stepId))
  setHandler(cancelRequested, () => {
    cancelled = true
    body.cancel()
  })

  let end: RunEnd
  try {
    const outcome = await body.run(() => takeTurns(input, submitted))
    if ('ended' in outcome) return finish(outcome.ended)
    end = outcome
  } catch (error) {
    end = cancelled || isCancellation(error) ? { status: 'cancelled' } : endOf(error)
  }
  // Not cancellable: whatever happens, the run gets its end and the thread its lock.
  const status = await CancellationScope.nonCancellable(() => rows.finalizeRun(input.runId, end))
  return finish(status)
}

async function takeTurns(
  given: RunInput,
  submitted: Set<string>,
): Promise<RunEnd | { ended: string }> {
  const outputsOf = patience(given, submitted)
  let input = given
  for (let turn = input.turn ?? 0; ; turn += 1) {
    if (turn >= input.maxSteps) return { status: 'incomplete', incompleteReason: 'max_steps' }
    setCurrentDetails(`Turn ${turn + 1}: the model is writing.`)
    const taken = await takeTurn(input, turn)
    // A model that did not answer is not asked again.
    input = taken.input
    const { result } = taken
    if (result.kind === 'ended') return { ended: result.status }

    if (result.kind === 'tools') {
      await carryOut(input, result)
      if (result.waitsForClient) await rows.requireAction(input.runId, result.stepId)
    }
    if (result.kind === 'requires_action' || result.waitsForClient) {
      setCurrentDetails(`Turn ${turn + 1}: waiting for the client to submit tool outputs.`)
      upsertSearchAttributes({ RunStatus: ['requires_action'] })
      if (!(await outputsOf(result.stepId))) return { status: 'expired' }
      upsertSearchAttributes({ RunStatus: [] })
    }
    if (workflowInfo().continueAsNewSuggested) {
      await continueAsNew<typeof assistantRun>({ ...input, turn: turn + 1 })
    }
  }
}

/**
 * Waits for the outputs of a step; false when the run is past its deadline. All waits of a run share one timer, for each
 * costs as much as an activity. It begins with the first, so that a run without functions has none.
 */
function patience(input: RunInput, submitted: Set<string>): (stepId: string) => Promise<boolean> {
  let overdue = false
  let timer: Promise<void> | undefined
  return async (stepId) => {
    timer ??= sleep(remainingMs(input)).then(
      () => void (overdue = true),
      // A cancel stops it, between two waits too: then nobody is there to hear of it.
      () => {},
    )
    await condition(() => overdue || submitted.has(stepId))
    return submitted.has(stepId)
  }
}

/** A model turn by the first model that answers: the input is the run's from then on. */
async function takeTurn(
  input: RunInput,
  turn: number,
): Promise<{ result: TurnResult; input: RunInput }> {
  try {
    return { result: await askModel(input, turn), input }
  } catch (error) {
    const [model, ...fallbackModels] = input.fallbackModels
    if (model === undefined || !isOfModel(error)) throw error
    return takeTurn({ ...input, model, fallbackModels }, turn)
  }
}

/** Whether the model, or its provider, is why the activity failed: not a cancel, the deadline or a worker. */
function isOfModel(error: unknown): boolean {
  const cause = error instanceof ActivityFailure ? error.cause : undefined
  return cause instanceof ApplicationFailure && modelFailures.includes(cause.type ?? '')
}

/** How many workers may vanish under one turn: a run that takes them down must not do so for ever. */
const maxWorkersLost = 10

/**
 * One model turn, begun again where its worker vanished. Scheduled anew it starts eagerly, on the worker that has just
 * answered; a retry by the server could be handed to one that is frozen and still seems to wait for work.
 */
async function askModel(input: RunInput, turn: number): Promise<TurnResult> {
  const generationId = uuid4()
  for (let lost = 1; ; lost += 1) {
    const model = modelPolicy(remainingMs(input), input.modelAttempts)
    try {
      return await model.modelTurn.executeWithOptions(
        { summary: `turn ${turn + 1} · ${input.model}` },
        [{ runId: input.runId, turn, generationId, model: input.model }],
      )
    } catch (error) {
      if (!isWorkerLost(error) || lost === maxWorkersLost) throw error
    }
  }
}

function isWorkerLost(error: unknown): boolean {
  const cause = error instanceof ActivityFailure ? error.cause : undefined
  return (
    (cause instanceof TimeoutFailure && cause.timeoutType === 'HEARTBEAT') ||
    (cause instanceof ApplicationFailure && cause.type === workerLost)
  )
}

/** The tools that are ours, side by side; where one fails the model is told so, by its output. */
async function carryOut(
  input: RunInput,
  { calls }: Extract<TurnResult, { kind: 'tools' }>,
): Promise<void> {
  if (calls.length === 0) return
  setCurrentDetails(`Carrying out ${calls.map(({ name }) => name).join(', ')}.`)
  const isCode = ({ name }: ServerCall): boolean => name === 'code_interpreter'
  // Code shares its variables, so it runs in the order in which the model asked for it.
  const cells = async (): Promise<void> => {
    for (const call of calls.filter(isCode)) await carryOutCall(input, call)
  }
  const others = calls.filter((call) => !isCode(call))
  await Promise.all([cells(), ...others.map((call) => carryOutCall(input, call))])
}

/** How many hosts may vanish under one call. What its code is told of that is the activity's to say. */
const maxHostsLost = 5

/** Carries out one call, on the host that has the thread's sandbox where it needs one. */
async function carryOutCall(input: RunInput, { id, name }: ServerCall): Promise<void> {
  const avoid: string[] = []
  let taskQueue: string | undefined
  let hostId: string | undefined
  for (let lost = 0; ;) {
    const tools = toolPolicy(remainingMs(input), taskQueue)
    try {
      const outcome = await tools.runTool.executeWithOptions({ summary: name }, [
        { runId: input.runId, callId: id, avoid },
      ])
      if (outcome.kind === 'done') return
      ;({ taskQueue, hostId } = outcome)
    } catch (error) {
      lost += 1
      if (!(isWorkerLost(error) || isNotTaken(error)) || lost > maxHostsLost) throw error
      if (hostId !== undefined) avoid.push(hostId)
      taskQueue = undefined
    }
  }
}

/** Whether nobody took the activity from the queue of a host: it is gone. */
function isNotTaken(error: unknown): boolean {
  const cause = error instanceof ActivityFailure ? error.cause : undefined
  return cause instanceof TimeoutFailure && cause.timeoutType === 'SCHEDULE_TO_START'
}

function finish(status: string): string {
  setCurrentDetails(`The run is ${status}.`)
  // Every write of the index costs the server about a tenth of the whole run; `completed` is what nothing else is said of.
  if (status !== 'completed') upsertSearchAttributes({ RunStatus: [status] })
  return status
}

function remainingMs(input: RunInput): number {
  return Math.max(1, input.expiresAt - Date.now())
}

/** What a failed activity means for the run. */
function endOf(error: unknown): RunEnd {
  if (!(error instanceof ActivityFailure)) throw error
  const { cause } = error
  if (cause instanceof TimeoutFailure && cause.timeoutType === 'SCHEDULE_TO_CLOSE') {
    return { status: 'expired' }
  }
  if (cause instanceof ApplicationFailure) {
    const code =
      cause.type === 'rate_limit_exceeded' || cause.type === 'invalid_prompt'
        ? cause.type
        : 'server_error'
    return { status: 'failed', error: { code, message: cause.message } }
  }
  const message = `The worker stopped in the middle of the run, and so did its replacements (${cause?.message ?? 'no reason given'}).`
  return { status: 'failed', error: { code: 'server_error', message } }
}
