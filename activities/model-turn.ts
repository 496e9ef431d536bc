import { Context } from '@temporalio/activity'
import { ApplicationFailure } from '@temporalio/common'

import { UnknownModelError } from '../models.ts'
import { FencedError } from '../store/delta-writer.ts'
import type { RunRow, TurnResult } from '../store/rows.ts'
import type { ClaimedTurn, TurnCall, TurnEnd } from '../store/turns.ts'
import type { CallUsage } from '../store/usage.ts'
import { countTokens } from '../tokens.ts'
import type { RunStatus } from '../wire/run-status.ts'
import { createAnswer, isWholeJson, type Answer } from './answer.ts'
import { metBudget } from './budget.ts'
import { countedCall, type CountedCall } from './counted-call.ts'
import type { ChatCompletionChunk } from '../wire/openai.ts'
import { heartbeating } from './heartbeat.ts'
import type { Deps } from './index.ts'
import { workerLost } from '../wire/failures.ts'
import { prepare } from './prepare.ts'
import { builtInTool, declaresFunction, offeredTools } from './prompt.ts'
import { createProvider } from './provider.ts'
import { failureOf, ProviderError } from './provider-error.ts'
import { mostRefusedTurns, refusedAgain } from './refused-calls.ts'
import { stopSignal, type StopReason, type StopSignal } from './stop-signal.ts'
import { argumentsMisfit, strictSchema } from './tool-arguments.ts'
import { createTurnWriter, type TurnWriter } from './turn-writer.ts'

export interface ModelTurnInput {
  runId: string
  turn: number
  /** A uuid of the workflow's: the ids of everything that the turn makes follow from it. */
  generationId: string
  /** The model to ask. */
  model: string
}

/** Asks the model once, streams what it says, keeps it, and says what is to be done next. */
export function createModelTurn(deps: Deps) {
  const { store, models, log } = deps
  const provider = createProvider(deps.modelIdleTimeoutMs)
  // Loads the tokenizer, which no run should have to wait for.
  void countTokens('')

  return async function modelTurn(input: ModelTurnInput): Promise<TurnResult> {
    const context = Context.current()
    using _beat = heartbeating(context, store.events)
    // From before the claim on, so that a cancel in between is not missed.
    using stop = stopper(context, (act) => store.events.onControl(input.runId, act))

    const claim = await store.turns.claim(input)
    if (claim.kind === 'done') return claim.result
    if (claim.kind === 'stopped') return endStopped(input.runId, claim.status)
    using turn = claim.turn
    stop.watch(turn)

    const answer = createAnswer(turn.run.parallel_tool_calls ? Infinity : 1)
    let call: CountedCall | undefined
    let writer: TurnWriter | undefined
    try {
      const route = await models.resolve(turn.model)
      const prepared = await prepare(deps, turn, route)
      if ('incomplete' in prepared) {
        const end = { status: 'incomplete', incompleteReason: prepared.incomplete } as const
        return await turn.stop(end, undefined)
      }
      const counted = countedCall(turn.model, route, () => prepared.promptTokens())
      call = counted
      // Once the request is on its way, so that the first token does not wait for it.
      setImmediate(() => counted.begin())
      writer = createTurnWriter(turn, counted, prepared.marks, answer)
      await listen(provider.stream(route, prepared.request, stop.signal), answer, writer)
      if (!stop.signal.aborted) {
        endedWell(answer)
        const used = await call.used(answer)
        await prepared.kept
        writer.end()
        return await settle(turn, turnEnd(turn, answer, writer, used))
      }
    } catch (error) {
      writer?.end()
      await turn.written()
      if (error instanceof FencedError) stop.because('replaced')
      const usage = answer.usage()
      const used = usage && call?.told(usage)
      if (!stop.signal.aborted) throw await asFailure(error, turn, context.info, used)
    }
    writer?.end()
    return stopped(turn, stop.signal.reason as TurnStop, () => usedSoFar(answer, call))
  }

  /** Keeps the turn; a run whose model only makes the same mistake again fails here, before all its turns are spent on it. */
  async function settle(turn: ClaimedTurn, end: TurnEnd): Promise<TurnResult> {
    const result = await turn.commit(end)
    const isRefused = result.kind === 'tools' && end.calls.every(({ output }) => output !== null)
    if (!isRefused || turn.number + 1 < mostRefusedTurns) return result
    const { calls } = await store.context.own(turn.run.id)
    const error = refusedAgain(calls, turn.number, turn.model)
    if (!error) return result
    const status = await store.runs.end(turn.run.id, { status: 'failed', error })
    return { kind: 'ended', status: status ?? 'gone' }
  }

  /** The run was being cancelled, or had ended, before the turn began. */
  async function endStopped(runId: string, status: RunStatus | 'gone'): Promise<TurnResult> {
    if (status !== 'cancelling') return { kind: 'ended', status }
    const ended = await store.runs.end(runId, { status: 'cancelled' })
    return { kind: 'ended', status: ended ?? 'gone' }
  }

  /** The turn was stopped in the middle; what the model wrote until then is kept. */
  async function stopped(
    turn: ClaimedTurn,
    reason: TurnStop,
    used: () => Promise<CallUsage | undefined>,
  ): Promise<TurnResult> {
    switch (reason) {
      case 'cancelled':
      case 'expired':
        try {
          return await turn.stop({ status: reason }, await used())
        } catch (error) {
          if (!(error instanceof FencedError)) throw error
          return stopped(turn, 'replaced', used)
        }
      case 'replaced':
        log.info({ run_id: turn.run.id }, 'this attempt was replaced, or its run is over or gone')
        return { kind: 'ended', status: 'gone' }
      case 'shutdown':
        // No fault of the provider's: the workflow schedules the turn anew, on another worker.
        throw ApplicationFailure.nonRetryable('The worker is shutting down', workerLost)
      case 'unwritten':
        throw ApplicationFailure.nonRetryable('What the model said could not be kept', workerLost)
      default:
        return reason satisfies never
    }
  }
}

type TurnStop = StopReason | 'expired' | 'unwritten'

interface Stopper extends StopSignal<TurnStop> {
  watch(turn: ClaimedTurn): void
}

/** Everything that may stop a turn, as one signal. */
function stopper(context: Context, onControl: (act: () => void) => Disposable): Stopper {
  const stop = stopSignal<TurnStop>(context, onControl)
  let deadline: NodeJS.Timeout | undefined
  return {
    ...stop,
    watch({ run, lost }) {
      const remainingMs = run.expires_at.getTime() - Date.now()
      deadline = setLongTimeout(() => stop.because('expired'), remainingMs)
      const onLost = (): void =>
        stop.because(lost.reason instanceof FencedError ? 'replaced' : 'unwritten')
      if (lost.aborted) onLost()
      else lost.addEventListener('abort', onLost)
    },
    [Symbol.dispose]() {
      clearTimeout(deadline)
      stop[Symbol.dispose]()
    },
  }
}

/** Timers of Node hold 24.8 days at most; no turn lasts as long, so a later deadline needs none. */
function setLongTimeout(act: () => void, ms: number): NodeJS.Timeout | undefined {
  return ms < 2 ** 31 ? setTimeout(act, Math.max(0, ms)) : undefined
}

/** What a call used that is stopped; one of which nothing was heard is not counted. */
async function usedSoFar(
  answer: Answer,
  call: CountedCall | undefined,
): Promise<CallUsage | undefined> {
  return answer.usage() || answer.written() !== '' ? call?.used(answer) : undefined
}

async function listen(
  chunks: AsyncIterable<ChatCompletionChunk>,
  answer: Answer,
  writer: TurnWriter,
): Promise<void> {
  for await (const chunk of chunks) {
    for (const addition of answer.read(chunk)) await writer.add(addition)
  }
}

function endedWell(answer: Answer): void {
  if (answer.finishReason() === 'content_filter') throw filtered()
}

/** The turn as it is kept. */
function turnEnd(turn: ClaimedTurn, answer: Answer, writer: TurnWriter, used: CallUsage): TurnEnd {
  const calls = answer.calls().map((call, index): TurnCall => {
    const type = builtInTool(call.name, offeredTools(turn.run)) ?? 'function'
    const wrong = whatIsWrong(call, turn.run)
    return {
      id: turn.callId(index),
      type,
      name: call.name,
      arguments: call.arguments === '' ? '{}' : call.arguments,
      runsOn: type === 'function' && !wrong ? 'client' : 'server',
      output: wrong ?? null,
    }
  })
  const isCut = answer.finishReason() === 'length'
  // Only what would need another model call meets the budget: an answer that is whole stays one.
  const met = calls.length > 0 ? metBudget(turn.run, turn.spent, used.usage) : undefined
  const incomplete = isCut ? 'max_completion_tokens' : met
  return { content: writer.annotated(answer.content()), calls, used, isCut, incomplete }
}

/** A call that cannot be carried out is answered at once: the model sees what was wrong and may mend it. */
function whatIsWrong(call: { name: string; arguments: string }, run: RunRow): string | undefined {
  const tools = offeredTools(run)
  if (run.tools.length > tools.length) return 'Error: no tool may be called now. Answer without.'
  const isKnown = builtInTool(call.name, tools) || declaresFunction(call.name, tools)
  if (!isKnown) return `Error: there is no tool named ${JSON.stringify(call.name)}.`
  if (call.name === 'code_interpreter') return whatIsWrongWithCode(call.arguments)
  const args = call.arguments === '' ? '{}' : call.arguments
  if (!isWholeJson(args)) return 'Error: the arguments of this call are not valid JSON.'
  const schema = strictSchema(call.name, run.tools)
  const misfit = schema && argumentsMisfit(JSON.parse(args), schema)
  return misfit && `Error: the arguments of this call do not fit its schema. ${misfit}`
}

/** Models write bare Python too; but an object without code is a mistake, and no dictionary. */
function whatIsWrongWithCode(args: string): string | undefined {
  if (args !== '' && !isWholeJson(args)) return undefined
  const given: unknown = args === '' ? {} : JSON.parse(args)
  if (typeof given !== 'object' || given === null || Array.isArray(given)) return undefined
  const hasCode = 'code' in given && typeof given.code === 'string'
  return hasCode
    ? undefined
    : 'Error: the argument of code_interpreter is `code`, a string with the Python code to run.'
}

function filtered(): ProviderError {
  return new ProviderError({
    message: "The provider's content filter stopped the answer.",
    code: 'invalid_prompt',
    retryable: false,
    isFiltered: true,
  })
}

/** What Temporal is told: provider errors by their own rules, a wrong model name for good, and the rest again. */
async function asFailure(
  error: unknown,
  turn: ClaimedTurn,
  { attempt, retryPolicy }: Context['info'],
  used: CallUsage | undefined,
): Promise<unknown> {
  if (error instanceof ProviderError) {
    const remainingMs = turn.run.expires_at.getTime() - Date.now()
    const { temporal, told } = failureOf(error, {
      number: attempt,
      most: retryPolicy?.maximumAttempts,
      remainingMs,
    })
    await turn.keepFailure(told, used)
    return temporal
  }
  if (error instanceof UnknownModelError) {
    const { message } = error
    await turn.keepFailure({ code: 'invalid_prompt', message, is_final: true })
    return ApplicationFailure.nonRetryable(error.message, 'invalid_prompt', error)
  }
  return error
}
