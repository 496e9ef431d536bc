import { lookUp } from '../../support/cluster.ts'
import { call, say } from '../../support/model.ts'
import type { Transcript } from './transcript.ts'

/** [REC StreamingToolCall] */
export const oneFunction: Transcript = {
  title: 'E, a function',
  answers: () => [
    call(
      { name: 'look_up', arguments: '{"at":"A"}' },
      { usage: { promptTokens: 260, completionTokens: 12 } },
    ),
    say('Rain.', { usage: { promptTokens: 284, completionTokens: 42 } }),
  ],
  tools: [lookUp],
  streams: ({ run, toolStep, messageStep, message, lookUp, usage }) => [
    [
      ['thread.run.created', 'run_1', { ...run, tools: [lookUp] }],
      ['thread.run.queued', 'run_1', {}],
      ['thread.run.in_progress', 'run_1', { status: 'in_progress', started_at: '@started' }],
      ['thread.run.step.created', 'step_1', { ...toolStep, created_at: '@called' }],
      ['thread.run.step.in_progress', 'step_1', {}],
      [
        'thread.run.step.delta',
        'step_1',
        {
          step_details: {
            type: 'tool_calls',
            tool_calls: [
              {
                index: 0,
                id: 'call_1',
                type: 'function',
                function: { name: 'look_up', arguments: '', output: null },
              },
            ],
          },
        },
      ],
      [
        'thread.run.step.delta',
        'step_1',
        {
          step_details: {
            type: 'tool_calls',
            tool_calls: [{ index: 0, type: 'function', function: { arguments: '{"at":"A"}' } }],
          },
        },
      ],
      [
        'thread.run.requires_action',
        'run_1',
        {
          status: 'requires_action',
          required_action: {
            type: 'submit_tool_outputs',
            submit_tool_outputs: {
              tool_calls: [
                {
                  id: 'call_1',
                  type: 'function',
                  function: { name: 'look_up', arguments: '{"at":"A"}' },
                },
              ],
            },
          },
        },
      ],
    ],
    [
      [
        'thread.run.step.completed',
        'step_1',
        {
          status: 'completed',
          completed_at: '@answered',
          step_details: {
            type: 'tool_calls',
            tool_calls: [
              {
                id: 'call_1',
                type: 'function',
                function: { name: 'look_up', arguments: '{"at":"A"}', output: 'rain' },
              },
            ],
          },
          usage: usage(260, 12),
        },
      ],
      // It began, and is shown to have begun, until a worker begins with it anew.
      ['thread.run.queued', 'run_1', { status: 'queued', required_action: null }],
      ['thread.run.in_progress', 'run_1', { status: 'in_progress', started_at: '@resumed' }],
      ['thread.run.step.created', 'step_2', messageStep],
      ['thread.run.step.in_progress', 'step_2', {}],
      ['thread.message.created', 'msg_1', message],
      ['thread.message.in_progress', 'msg_1', {}],
      [
        'thread.message.delta',
        'msg_1',
        { content: [{ index: 0, type: 'text', text: { value: 'Rain.', annotations: [] } }] },
      ],
      [
        'thread.message.completed',
        'msg_1',
        {
          status: 'completed',
          completed_at: '@written',
          content: [{ type: 'text', text: { value: 'Rain.', annotations: [] } }],
        },
      ],
      [
        'thread.run.step.completed',
        'step_2',
        { status: 'completed', completed_at: '@stepped', usage: usage(284, 42) },
      ],
      [
        'thread.run.completed',
        'run_1',
        {
          status: 'completed',
          completed_at: '@ended',
          expires_at: null,
          usage: usage(260 + 284, 12 + 42),
        },
      ],
    ],
  ],
}
