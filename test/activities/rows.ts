import { defaultQuirks, type ModelRoute } from '../../models.ts'
import type { MessageRow, RunRow, ToolCallRow } from '../../store/rows.ts'

const at = new Date('2026-01-01T00:00:00Z')

export function aRun(given: Partial<RunRow> = {}): RunRow {
  return {
    id: 'run_a',
    project_id: 'proj_a',
    thread_id: 'thread_a',
    assistant_id: 'asst_a',
    seq: '1',
    status: 'in_progress',
    holds_lock: true,
    created_at: at,
    started_at: at,
    expires_at: new Date(at.getTime() + 600_000),
    cancelled_at: null,
    failed_at: null,
    completed_at: null,
    required_action: null,
    last_error: null,
    incomplete_reason: null,
    model: 'm',
    instructions: null,
    tools: [],
    tool_resources: {},
    metadata: {},
    usage: null,
    temperature: 1,
    top_p: 1,
    reasoning_effort: null,
    response_format: 'auto',
    max_prompt_tokens: null,
    max_completion_tokens: null,
    truncation_strategy: { type: 'auto', last_messages: null },
    tool_choice: 'auto',
    parallel_tool_calls: true,
    file_ids: [],
    fallback_models: [],
    max_steps: null,
    messages_until: null,
    rolls_back: false,
    context: null,
    cost: null,
    usage_estimated: false,
    ...given,
  }
}

export function aMessage(text: string, given: Partial<MessageRow> = {}): MessageRow {
  return {
    id: 'msg_a',
    project_id: 'proj_a',
    thread_id: 'thread_a',
    seq: '1',
    created_at: at,
    role: 'user',
    status: 'completed',
    content: [{ type: 'text', text: { value: text, annotations: [] } }],
    attachments: [],
    metadata: {},
    assistant_id: null,
    run_id: null,
    turn: null,
    completed_at: at,
    incomplete_at: null,
    incomplete_reason: null,
    superseded: false,
    held: false,
    came_with: null,
    ...given,
  }
}

export function aCall(given: Partial<ToolCallRow> = {}): ToolCallRow {
  return {
    id: 'call_a',
    run_id: 'run_a',
    step_id: 'step_a',
    turn: 0,
    idx: 0,
    type: 'function',
    name: 'f',
    arguments: '{}',
    output: 'done',
    outputs: [],
    runs_on: 'client',
    fence: 0,
    begun: null,
    files: [],
    ...given,
  }
}

export function aRoute(given: Partial<ModelRoute> = {}): ModelRoute {
  return {
    baseUrl: 'http://127.0.0.1:9/v1',
    apiKey: 'none',
    upstreamName: 'upstream-m',
    contextSize: 128_000,
    price: null,
    quirks: defaultQuirks,
    ...given,
  }
}
