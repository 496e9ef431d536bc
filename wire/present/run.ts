import type { RunRow } from '../../store/rows.ts'
import type { Run } from '../openai.ts'
import { isTerminal } from '../run-status.ts'
import { seconds, secondsOrNull } from '../time.ts'

/** `tool_resources` and `reasoning_effort` were on the live answers and not in the schema (spec D5). */
export type RunObject = Omit<Run, 'instructions' | 'incomplete_details'> & {
  instructions: string | null
  incomplete_details: { reason?: IncompleteReason } | null
  tool_resources: object
  reasoning_effort: string | null
  longrun: LongrunOfRun
}

/** What the original did not have. */
export interface LongrunOfRun {
  /** What the run's model calls cost; null until its end, and where the price of one of them is not known. */
  cost: { amount: number; currency: 'USD' } | null
  /** Whether some of `usage` was counted here: a call that was cut, or whose provider does not tell. */
  usage_estimated: boolean
  /** What did not fit into the prompt; null where all did. */
  context: { dropped_messages: number; dropped_tool_calls: number } | null
  max_steps: number | null
  fallback_models: string[]
}

export function presentRun(row: RunRow): RunObject {
  return {
    id: row.id,
    object: 'thread.run',
    created_at: seconds(row.created_at),
    assistant_id: row.assistant_id,
    thread_id: row.thread_id,
    status: row.status,
    started_at: secondsOrNull(row.started_at),
    // A run has no `expired_at`: an expired one keeps its deadline, every other end clears it.
    expires_at: hasDeadline(row) ? seconds(row.expires_at) : null,
    cancelled_at: secondsOrNull(row.cancelled_at),
    failed_at: secondsOrNull(row.failed_at),
    completed_at: secondsOrNull(row.completed_at),
    required_action: row.required_action && {
      type: 'submit_tool_outputs',
      submit_tool_outputs: { tool_calls: row.required_action.tool_calls },
    },
    last_error: row.last_error,
    model: row.model,
    instructions: row.instructions,
    tools: row.tools,
    tool_resources: row.tool_resources,
    metadata: row.metadata,
    temperature: row.temperature,
    top_p: row.top_p,
    reasoning_effort: row.reasoning_effort,
    max_completion_tokens: row.max_completion_tokens,
    max_prompt_tokens: row.max_prompt_tokens,
    truncation_strategy: row.truncation_strategy,
    incomplete_details: row.incomplete_reason
      ? { reason: row.incomplete_reason as IncompleteReason }
      : null,
    usage: row.usage,
    // Both were checked at the edge, and kept as they came.
    response_format: row.response_format as Run['response_format'],
    tool_choice: row.tool_choice as Run['tool_choice'],
    parallel_tool_calls: row.parallel_tool_calls,
    longrun: {
      cost: row.cost === null ? null : { amount: Number(row.cost), currency: 'USD' },
      usage_estimated: row.usage_estimated,
      context: row.context && {
        dropped_messages: row.context.dropped_messages,
        dropped_tool_calls: row.context.dropped_tool_calls,
      },
      max_steps: row.max_steps,
      fallback_models: row.fallback_models,
    },
  }
}

/** One that waits for its thread has no deadline yet. */
function hasDeadline({ status, holds_lock }: RunRow): boolean {
  return status === 'expired' || (!isTerminal(status) && (holds_lock || status === 'cancelling'))
}

/** `max_steps` is ours. */
type IncompleteReason = NonNullable<Run.IncompleteDetails['reason']> | 'max_steps'
