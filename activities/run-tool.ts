import { setTimeout as sleep } from 'node:timers/promises'

import { Context } from '@temporalio/activity'
import { ApplicationFailure } from '@temporalio/common'

import { SandboxStartError } from '../sandbox/index.ts'
import type { RunRow, ToolCallRow } from '../store/rows.ts'
import type { ToolResult } from '../store/tool-calls.ts'
import { workerLost } from '../wire/failures.ts'
import { createCodeInterpreter } from './code-interpreter.ts'
import { taskQueueOf } from './code-host.ts'
import { heartbeating } from './heartbeat.ts'
import type { Deps } from './index.ts'
import { stopSignal } from './stop-signal.ts'

export interface ToolInput {
  runId: string
  callId: string
  /** Hosts of sandboxes that were lost under this call. */
  avoid: string[]
}

/** `elsewhere`: the host that has the thread's sandbox is to be asked, by its own task queue. */
export type ToolOutcome =
  | { kind: 'done' }
  | { kind: 'elsewhere'; hostId: string; taskQueue: string }

/** Carries out one call of a tool that is ours. Whatever goes wrong with the tool is told to the model, as its output. */
export function createRunTool({ store, code }: Deps) {
  const runCode = code.host && createCodeInterpreter(store, code.host)

  return async function runTool(input: ToolInput): Promise<ToolOutcome> {
    const context = Context.current()
    using _ = heartbeating(context, store.events)
    using stop = stopSignal(context, (act) => store.events.onControl(input.runId, act))
    const claimed = await store.toolCalls.claim(input.callId)
    // A call that is gone went with its thread; one with an output was carried out by an earlier attempt.
    if (!claimed || claimed.call.output !== null) return { kind: 'done' }
    const { call } = claimed
    if (call.type !== 'code_interpreter') {
      await store.toolCalls.finish(call, unavailable(call, 'it is not available on this server'))
      return { kind: 'done' }
    }
    // Awaited here, or what is disposed above would be disposed at once.
    return await codeCall(input.avoid, claimed, stop.signal, context.info.attempt)
  }

  async function codeCall(
    avoid: string[],
    claimed: Claimed,
    signal: AbortSignal,
    attempt: number,
  ): Promise<ToolOutcome> {
    const self = code.host?.id
    const { call, run } = claimed
    // The workflow has it begun anew only where its host went away; a retry goes back to where the code may have run.
    const isLost = attempt === 1 && call.begun !== null && call.begun.host_id !== self
    const lost = isLost && call.begun ? [...avoid, call.begun.host_id] : avoid
    for (;;) {
      if (signal.aborted) throw stopped(String(signal.reason))
      const lease = await store.sandboxes.lease(run.thread_id, { self, avoid: lost })
      if ('none' in lease) {
        if (lease.none.some(({ kind }) => kind === 'building')) {
          await sleep(waitMs, undefined, { signal }).catch(() => {})
          continue
        }
        const reasons = lease.none.flatMap((state) => (state.kind === 'failed' ? [state.why] : []))
        await store.toolCalls.finish(call, unavailable(call, reasons[0] ?? code.unavailable))
        return { kind: 'done' }
      }
      const { hostId } = lease
      if (hostId !== self || !runCode) {
        return { kind: 'elsewhere', hostId, taskQueue: taskQueueOf(hostId) }
      }
      try {
        const outcome = await runCode({ call, run, timeoutMs: code.timeoutMs, signal })
        if (outcome === 'kept') return { kind: 'done' }
        // Whoever has it goes on with it; where nobody has, the workflow begins it anew.
        if (outcome === 'taken') throw stopped('another attempt has it')
      } catch (error) {
        if (signal.aborted) throw stopped(String(signal.reason))
        if (!(error instanceof SandboxStartError) || attempt < mostStarts) throw error
        const why = `its sandbox does not start (${error.message})`
        await store.toolCalls.finish(call, unavailable(call, why))
        return { kind: 'done' }
      }
    }
  }
}

interface Claimed {
  call: ToolCallRow
  run: RunRow
}

/** A machine that is short of memory for a moment may have some in the next. */
const mostStarts = 3
/** A sandbox that is being built for the first time takes minutes. */
const waitMs = 500

function stopped(why: string): ApplicationFailure {
  return ApplicationFailure.nonRetryable(`The tool was stopped: ${why}`, workerLost)
}

function unavailable(call: ToolCallRow, why: string): ToolResult {
  const output = `Error: the tool ${call.name} cannot be used: ${why}. Answer without it.`
  return {
    output,
    outputs: call.type === 'code_interpreter' ? [{ type: 'logs', logs: output }] : [],
  }
}
