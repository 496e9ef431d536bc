import { call, say, sayAndCall, type ScriptedCall } from '../../support/model.ts'
import type { Fields, Line, Transcript } from './transcript.ts'

/**
 * Runs that execute code: of the original there are the shapes of the deltas (spec 4.2), the order of steps and messages
 * (BasicRunStepFunctionalityWorks) and what its documents say of files. What is said beside is our choice.
 */

const plotAndWrite = [
  'import matplotlib.pyplot as plt',
  'print("Two months")',
  'plt.bar(["Jan", "Feb"], [3, 5])',
  'plt.show()',
  'with open("/mnt/data/sales.csv", "w") as file:',
  '    file.write("month,sales\\n")',
  'print("written")',
].join('\n')

const link = 'sandbox:/mnt/data/sales.csv'

/** The link comes in the middle of pieces; before it is a character that Python counts as one, and JavaScript as two. */
export const figureAndFile: Transcript = {
  title: 'C, code that makes a figure and a file',
  answers: () => [
    call(cell(plotAndWrite), { usage: { promptTokens: 90, completionTokens: 60 } }),
    say(['📈 [sales.csv](sand', 'box:/mnt/data/sal', 'es.csv). ', 'Both months.'], {
      usage: { promptTokens: 190, completionTokens: 15 },
    }),
  ],
  tools: [{ type: 'code_interpreter' }],
  runsCode: true,
  streams: ({ run, runsCode, toolStep, messageStep, message, imageFile, madeFiles, usage }) => [
    [
      ['thread.run.created', 'run_1', { ...run, ...runsCode }],
      ['thread.run.queued', 'run_1', {}],
      ['thread.run.in_progress', 'run_1', { status: 'in_progress', started_at: '@started' }],
      ['thread.run.step.created', 'step_1', { ...toolStep, created_at: '@called' }],
      ['thread.run.step.in_progress', 'step_1', {}],
      stepDelta('step_1', begins('call_1')),
      stepDelta('step_1', { input: plotAndWrite }),
      // Our choice: all outputs in one delta, when the code has ended.
      stepDelta('step_1', {
        outputs: [
          { index: 0, type: 'logs', logs: 'Two months\n' },
          { index: 1, type: 'image', image: { file_id: 'file_1' } },
          { index: 2, type: 'logs', logs: 'written\n' },
        ],
      }),
      [
        'thread.run.step.completed',
        'step_1',
        {
          status: 'completed',
          completed_at: '@executed',
          ...executed('call_1', plotAndWrite, [
            { type: 'logs', logs: 'Two months\n' },
            { type: 'image', image: { file_id: 'file_1' } },
            { type: 'logs', logs: 'written\n' },
          ]),
          usage: usage(90, 60),
        },
      ],
      ['thread.run.step.created', 'step_2', messageStep],
      ['thread.run.step.in_progress', 'step_2', {}],
      // What code has written is with the message from its beginning.
      ['thread.message.created', 'msg_1', { ...message, ...madeFiles(['file_2']) }],
      ['thread.message.in_progress', 'msg_1', {}],
      messageDelta({ index: 0, type: 'image_file', image_file: imageFile('file_1') }),
      messageDelta({ index: 1, type: 'text', text: { value: '📈 [sales.csv](', annotations: [] } }),
      messageDelta({
        index: 1,
        type: 'text',
        text: { value: link, annotations: [{ index: 0, ...linked }] },
      }),
      messageDelta({ index: 1, type: 'text', text: { value: '). Both months.' } }),
      [
        'thread.message.completed',
        'msg_1',
        {
          status: 'completed',
          completed_at: '@written',
          content: [
            { type: 'image_file', image_file: imageFile('file_1') },
            {
              type: 'text',
              text: { value: `📈 [sales.csv](${link}). Both months.`, annotations: [linked] },
            },
          ],
        },
      ],
      [
        'thread.run.step.completed',
        'step_2',
        { status: 'completed', completed_at: '@stepped', usage: usage(190, 15) },
      ],
      [
        'thread.run.completed',
        'run_1',
        {
          status: 'completed',
          completed_at: '@ended',
          expires_at: null,
          usage: usage(90 + 190, 60 + 15),
        },
      ],
    ],
  ],
}

/** After `📈 [sales.csv](`, which are 14 code points. */
const linked = {
  type: 'file_path',
  text: link,
  start_index: 14,
  end_index: 14 + 27,
  file_path: { file_id: 'file_2' },
}

/**
 * [REC BasicRunStepFunctionalityWorks] Steps of messages and of calls take turns, and outputs are empty where there are none.
 * The message ends where the call begins, since clients know one open step at a time; one answer has both here, whose usage is
 * that of the call's step (our choice).
 */
export const betweenWords: Transcript = {
  title: 'C, code between words',
  answers: () => [
    sayAndCall('I try. ', cell('x = 20'), { usage: { promptTokens: 80, completionTokens: 12 } }),
    call(cell('x + 1'), { usage: { promptTokens: 110, completionTokens: 10 } }),
    say('It is 21.', { usage: { promptTokens: 130, completionTokens: 5 } }),
  ],
  tools: [{ type: 'code_interpreter' }],
  runsCode: true,
  streams: ({ run, runsCode, toolStep, messageStep, message, usage }) => [
    [
      ['thread.run.created', 'run_1', { ...run, ...runsCode }],
      ['thread.run.queued', 'run_1', {}],
      ['thread.run.in_progress', 'run_1', { status: 'in_progress', started_at: '@started' }],
      ['thread.run.step.created', 'step_1', messageStep],
      ['thread.run.step.in_progress', 'step_1', {}],
      ['thread.message.created', 'msg_1', message],
      ['thread.message.in_progress', 'msg_1', {}],
      messageDelta({ index: 0, type: 'text', text: { value: 'I try. ', annotations: [] } }),
      [
        'thread.message.completed',
        'msg_1',
        {
          status: 'completed',
          completed_at: '@tried',
          content: [{ type: 'text', text: { value: 'I try. ', annotations: [] } }],
        },
      ],
      [
        'thread.run.step.completed',
        'step_1',
        { status: 'completed', completed_at: '@said', usage: null },
      ],
      ['thread.run.step.created', 'step_2', { ...toolStep, created_at: '@called' }],
      ['thread.run.step.in_progress', 'step_2', {}],
      stepDelta('step_2', begins('call_1')),
      stepDelta('step_2', { input: 'x = 20' }),
      [
        'thread.run.step.completed',
        'step_2',
        {
          status: 'completed',
          completed_at: '@executed',
          ...executed('call_1', 'x = 20', []),
          usage: usage(80, 12),
        },
      ],
      ['thread.run.step.created', 'step_3', { ...toolStep, created_at: '@calledAgain' }],
      ['thread.run.step.in_progress', 'step_3', {}],
      stepDelta('step_3', begins('call_2')),
      stepDelta('step_3', { input: 'x + 1' }),
      stepDelta('step_3', { outputs: [{ index: 0, type: 'logs', logs: '21' }] }),
      [
        'thread.run.step.completed',
        'step_3',
        {
          status: 'completed',
          completed_at: '@executedAgain',
          ...executed('call_2', 'x + 1', [{ type: 'logs', logs: '21' }]),
          usage: usage(110, 10),
        },
      ],
      [
        'thread.run.step.created',
        'step_4',
        {
          ...messageStep,
          created_at: '@step2',
          step_details: { type: 'message_creation', message_creation: { message_id: 'msg_2' } },
        },
      ],
      ['thread.run.step.in_progress', 'step_4', {}],
      ['thread.message.created', 'msg_2', { ...message, created_at: '@message2' }],
      ['thread.message.in_progress', 'msg_2', {}],
      messageDelta(
        { index: 0, type: 'text', text: { value: 'It is 21.', annotations: [] } },
        'msg_2',
      ),
      [
        'thread.message.completed',
        'msg_2',
        {
          status: 'completed',
          completed_at: '@written',
          content: [{ type: 'text', text: { value: 'It is 21.', annotations: [] } }],
        },
      ],
      [
        'thread.run.step.completed',
        'step_4',
        { status: 'completed', completed_at: '@stepped', usage: usage(130, 5) },
      ],
      [
        'thread.run.completed',
        'run_1',
        {
          status: 'completed',
          completed_at: '@ended',
          expires_at: null,
          usage: usage(80 + 110 + 130, 12 + 10 + 5),
        },
      ],
    ],
  ],
}

function cell(code: string): ScriptedCall {
  return { name: 'code_interpreter', arguments: { code } }
}

/** What the first delta of a call says of it, once. */
function begins(id: string): Fields {
  return { id, input: '', outputs: [] }
}

function stepDelta(step: string, { id, ...code_interpreter }: Fields): Line {
  const call = { index: 0, ...(id !== undefined && { id }), type: 'code_interpreter' }
  const tool_calls = [{ ...call, code_interpreter }]
  return ['thread.run.step.delta', step, { step_details: { type: 'tool_calls', tool_calls } }]
}

function executed(id: string, input: string, outputs: Fields[]): Fields {
  const tool_calls = [{ id, type: 'code_interpreter', code_interpreter: { input, outputs } }]
  return { step_details: { type: 'tool_calls', tool_calls } }
}

function messageDelta(part: Fields, message = 'msg_1'): Line {
  return ['thread.message.delta', message, { content: [part] }]
}
