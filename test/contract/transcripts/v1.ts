import { plus, type Words } from './transcript.ts'

/**
 * The objects of assistants=v1: the fields that its document requires (commit 83b881d) and, of those that it knows beside
 * them, all that there are; what the live service added in later years is not there (spec section 8). `longrun` is ours.
 */
export function v1(lifeS: number): Words {
  const step = {
    object: 'thread.run.step',
    created_at: '@step',
    assistant_id: 'asst_1',
    thread_id: 'thread_1',
    run_id: 'run_1',
    status: 'in_progress',
    last_error: null,
    expired_at: null,
    cancelled_at: null,
    failed_at: null,
    completed_at: null,
    metadata: {},
    usage: null,
    longrun: { model: 'gpt-4o', failed_models: [] },
  }
  return {
    thread: { object: 'thread', created_at: '@asked', metadata: {} },
    run: {
      object: 'thread.run',
      created_at: '@asked',
      thread_id: 'thread_1',
      assistant_id: 'asst_1',
      status: 'queued',
      required_action: null,
      last_error: null,
      expires_at: `@asked + ${lifeS}`,
      started_at: null,
      cancelled_at: null,
      failed_at: null,
      completed_at: null,
      incomplete_details: null,
      model: 'gpt-4o',
      // Our choice, as in v2: the document has no null for "none".
      instructions: null,
      tools: [],
      // Of the assistant, in place of tool_resources.
      file_ids: [],
      metadata: {},
      usage: null,
      temperature: 1,
      top_p: 1,
      max_prompt_tokens: null,
      max_completion_tokens: null,
      truncation_strategy: { type: 'auto', last_messages: null },
      tool_choice: 'auto',
      response_format: 'auto',
      longrun: {
        cost: null,
        usage_estimated: false,
        context: null,
        max_steps: null,
        fallback_models: [],
      },
    },
    toolStep: {
      ...step,
      type: 'tool_calls',
      step_details: { type: 'tool_calls', tool_calls: [] },
    },
    messageStep: {
      ...step,
      type: 'message_creation',
      step_details: { type: 'message_creation', message_creation: { message_id: 'msg_1' } },
    },
    message: {
      object: 'thread.message',
      created_at: '@message',
      thread_id: 'thread_1',
      status: 'in_progress',
      incomplete_details: null,
      completed_at: null,
      incomplete_at: null,
      role: 'assistant',
      content: [],
      assistant_id: 'asst_1',
      run_id: 'run_1',
      // In place of attachments.
      file_ids: [],
      metadata: {},
    },
    // v1 knows no `strict`.
    lookUp: {
      type: 'function',
      function: { name: 'look_up', parameters: { type: 'object', properties: {} } },
    },
    runsCode: { tools: [{ type: 'code_interpreter' }] },
    // v1 knows no `detail`.
    imageFile: (file_id) => ({ file_id }),
    madeFiles: (file_ids) => ({ file_ids }),
    usage: (promptTokens, completionTokens) => ({
      prompt_tokens: promptTokens,
      completion_tokens: completionTokens,
      total_tokens: plus(promptTokens, completionTokens),
    }),
    // v1 has no such status, nor such an event: its document says that the run is complete, for which see incomplete_details.
    incomplete: 'completed',
  }
}
