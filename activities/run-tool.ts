import { Context } from '@temporalio/activity'

import type { ToolCallRow } from '../store/rows.ts'
import type { ToolResult } from '../store/tool-calls.ts'
import { heartbeating } from './heartbeat.ts'
import type { Deps } from './index.ts'

/** Carries out one call of a tool that is ours. Whatever goes wrong with the tool is told to the model, as its output. */
export function createRunTool({ store }: Deps) {
  return async function runTool(input: { runId: string; callId: string }): Promise<void> {
    using _ = heartbeating(Context.current(), store.events)
    const call = await store.toolCalls.claim(input.callId)
    // A call that is gone went with its thread; one with an output was carried out by an earlier attempt.
    if (!call || call.output !== null) return
    await store.toolCalls.finish(call, carryOut(call))
  }
}

function carryOut(call: ToolCallRow): ToolResult {
  const output = `Error: the tool ${call.name} is not available on this server. Answer without it.`
  return {
    output,
    outputs: call.type === 'code_interpreter' ? [{ type: 'logs', logs: output }] : [],
  }
}
