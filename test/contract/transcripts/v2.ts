import { plus, type Words } from './transcript.ts'

/**
 * The objects of assistants=v2: fields and values of the recorded streams, with what the document requires beside them. D1 to
 * D20 are lines of the spec's section 0, `longrun` is ours.
 */
export function v2(lifeS: number): Words {
  const step = {
    object: 'thread.run.step',
    created_at: '@step',
    run_id: 'run_1',
    assistant_id: 'asst_1',
    thread_id: 'thread_1',
    status: 'in_progress',
    cancelled_at: null,
    completed_at: null,
    // Of the recordings only; the deadline of its run, after its end too (D3).
    expires_at: `@asked + ${lifeS}`,
    // Of the document only (D3).
    expired_at: null,
    failed_at: null,
    last_error: null,
    // Of the document only (D3).
    metadata: {},
    usage: null,
    longrun: { model: 'gpt-4o', failed_models: [] },
  }
  return {
    thread: {
      object: 'thread',
      created_at: '@asked',
      metadata: {},
      // Our choice: the original had two forms of nothing (D10).
      tool_resources: {},
    },
    run: {
      object: 'thread.run',
      created_at: '@asked',
      assistant_id: 'asst_1',
      thread_id: 'thread_1',
      status: 'queued',
      started_at: null,
      expires_at: `@asked + ${lifeS}`,
      cancelled_at: null,
      failed_at: null,
      completed_at: null,
      required_action: null,
      last_error: null,
      model: 'gpt-4o',
      // Where the assistant has none (D7).
      instructions: null,
      tools: [],
      // Our choice: the original had two forms of nothing (D5).
      tool_resources: {},
      metadata: {},
      temperature: 1,
      top_p: 1,
      // Of the recordings only (D5).
      reasoning_effort: null,
      max_completion_tokens: null,
      max_prompt_tokens: null,
      truncation_strategy: { type: 'auto', last_messages: null },
      incomplete_details: null,
      usage: null,
      response_format: 'auto',
      tool_choice: 'auto',
      parallel_tool_calls: true,
      longrun: {
        // There is no price for the model.
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
      assistant_id: 'asst_1',
      thread_id: 'thread_1',
      run_id: 'run_1',
      status: 'in_progress',
      incomplete_details: null,
      incomplete_at: null,
      completed_at: null,
      role: 'assistant',
      content: [],
      attachments: [],
      metadata: {},
    },
    // `strict` is filled in (D13).
    lookUp: {
      type: 'function',
      function: {
        name: 'look_up',
        parameters: { type: 'object', properties: {} },
        strict: false,
      },
    },
    // Of the assistant; the recorded streams have it so (D5).
    runsCode: {
      tools: [{ type: 'code_interpreter' }],
      tool_resources: { code_interpreter: { file_ids: [] } },
    },
    // Nobody has said in how much detail it is seen.
    imageFile: (file_id) => ({ file_id, detail: 'auto' }),
    madeFiles: (ids) => ({
      attachments: ids.map((file_id) => ({ file_id, tools: [{ type: 'code_interpreter' }] })),
    }),
    // With the details that were on the live answers, the first in the singular (D4).
    usage: (promptTokens, completionTokens) => ({
      prompt_tokens: promptTokens,
      completion_tokens: completionTokens,
      total_tokens: plus(promptTokens, completionTokens),
      prompt_token_details: { cached_tokens: 0 },
      completion_tokens_details: { reasoning_tokens: 0 },
    }),
    incomplete: 'incomplete',
  }
}
