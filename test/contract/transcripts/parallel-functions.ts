import { lookUp } from '../../support/cluster.ts'
import { call, say } from '../../support/model.ts'
import type { Fields, Line, Transcript } from './transcript.ts'

/** As one function; all calls are in one step, by their indices (spec 4.3 F). */
export const parallelFunctions: Transcript = {
  title: 'F, functions in parallel',
  answers: () => [
    call(
      ['{"at":"A"}', '{"at":"B"}', '{}'].map((input) => ({ name: 'look_up', arguments: input })),
      { usage: { promptTokens: 300, completionTokens: 20 } },
    ),
    say('Rain.', { usage: { promptTokens: 327, completionTokens: 14 } }),
  ],
  tools: [lookUp],
  streams: ({ run, toolStep, messageStep, message, lookUp, usage }) => [
    [
      ['thread.run.created', 'run_1', { ...run, tools: [lookUp] }],
      ['thread.run.queued', 'run_1', {}],
      ['thread.run.in_progress', 'run_1', { status: 'in_progress', started_at: '@started' }],
      ['thread.run.step.created', 'step_1', { ...toolStep, created_at: '@called' }],
      ['thread.run.step.in_progress', 'step_1', {}],
      begins(0, 'call_1'),
      goesOn(0, '{"at":"A"}'),
      begins(1, 'call_2'),
      goesOn(1, '{"at":"B"}'),
      begins(2, 'call_3'),
      goesOn(2, '{}'),
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
                {
                  id: 'call_2',
                  type: 'function',
                  function: { name: 'look_up', arguments: '{"at":"B"}' },
                },
                { id: 'call_3', type: 'function', function: { name: 'look_up', arguments: '{}' } },
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
              {
                id: 'call_2',
                type: 'function',
                function: { name: 'look_up', arguments: '{"at":"B"}', output: 'rain' },
              },
              {
                id: 'call_3',
                type: 'function',
                function: { name: 'look_up', arguments: '{}', output: 'rain' },
              },
            ],
          },
          usage: usage(300, 20),
        },
      ],
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
        { status: 'completed', completed_at: '@stepped', usage: usage(327, 14) },
      ],
      [
        'thread.run.completed',
        'run_1',
        {
          status: 'completed',
          completed_at: '@ended',
          expires_at: null,
          usage: usage(300 + 327, 20 + 14),
        },
      ],
    ],
  ],
}

/** The first delta of a call has all that is said of it once. */
function begins(index: number, id: string): Line {
  const opened = { name: 'look_up', arguments: '', output: null }
  return delta({ index, id, type: 'function', function: opened })
}

function goesOn(index: number, input: string): Line {
  return delta({ index, type: 'function', function: { arguments: input } })
}

function delta(call: Fields): Line {
  const step_details = { type: 'tool_calls', tool_calls: [call] }
  return ['thread.run.step.delta', 'step_1', { step_details }]
}
