import type { RunStepRow, ToolCallRow } from '../../store/rows.ts'
import type { RunStep, ToolCall } from '../openai.ts'
import { codeOf } from '../streamed-code.ts'
import { seconds, secondsOrNull } from '../time.ts'

/** `expires_at` was on the live answers and not in the schema (spec D3). */
export type RunStepObject = RunStep & { expires_at: number | null; longrun: LongrunOfStep }

/** What the original did not have. */
export interface LongrunOfStep {
  /** The model that was asked. */
  model: string | null
  /** Those that were asked before it and did not answer, and why. */
  failed_models: { model: string; code: string; message: string }[]
}

/**
 * `expiresAt` is the deadline of the run while it goes on, and null in a read after its end. `calls` are the step's tool
 * calls in the order of their positions.
 */
export function presentRunStep(
  row: RunStepRow,
  calls: ToolCallRow[],
  expiresAt: Date | null,
): RunStepObject {
  return {
    id: row.id,
    object: 'thread.run.step',
    created_at: seconds(row.created_at),
    run_id: row.run_id,
    assistant_id: row.assistant_id,
    thread_id: row.thread_id,
    type: row.type,
    status: row.status,
    cancelled_at: secondsOrNull(row.cancelled_at),
    completed_at: secondsOrNull(row.completed_at),
    expires_at: secondsOrNull(expiresAt),
    expired_at: secondsOrNull(row.expired_at),
    failed_at: secondsOrNull(row.failed_at),
    last_error: row.last_error && {
      // A step has fewer codes than its run.
      code: row.last_error.code === 'rate_limit_exceeded' ? 'rate_limit_exceeded' : 'server_error',
      message: row.last_error.message,
    },
    step_details:
      row.type === 'message_creation'
        ? { type: 'message_creation', message_creation: { message_id: row.message_id ?? '' } }
        : { type: 'tool_calls', tool_calls: calls.map(presentToolCall) },
    metadata: {},
    // Kept with the turn that asked for the calls, and shown once they are answered.
    usage: row.status === 'in_progress' ? null : row.usage,
    longrun: { model: row.model, failed_models: row.failed_models },
  }
}

function presentToolCall(row: ToolCallRow): ToolCall {
  switch (row.type) {
    case 'code_interpreter':
      return {
        id: row.id,
        type: 'code_interpreter',
        code_interpreter: {
          input: codeOf(row.arguments),
          // Kept as the wire has them.
          outputs: row.outputs as unknown as Outputs,
        },
      }
    case 'file_search':
      return { id: row.id, type: 'file_search', file_search: {} }
    case 'function':
      return {
        id: row.id,
        type: 'function',
        function: { name: row.name, arguments: row.arguments, output: row.output },
      }
    default:
      return row.type satisfies never
  }
}

type Outputs = Extract<ToolCall, { type: 'code_interpreter' }>['code_interpreter']['outputs']
