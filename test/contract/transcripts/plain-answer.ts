import { stallAfter } from '../../support/model.ts'
import type { Transcript } from './transcript.ts'

/** [REC StreamingRunWorks] The second word comes when the first has been seen, so that it has a delta of its own. */
export const plainAnswer: Transcript = {
  title: 'A, a plain answer',
  answers: () => [
    stallAfter(1, ['Hello ', 'there.'], { usage: { promptTokens: 38, completionTokens: 35 } }),
  ],
  meanwhile: 'go on',
  streams: ({ run, messageStep, message, usage }) => [
    [
      ['thread.run.created', 'run_1', run],
      ['thread.run.queued', 'run_1', {}],
      ['thread.run.in_progress', 'run_1', { status: 'in_progress', started_at: '@started' }],
      ['thread.run.step.created', 'step_1', messageStep],
      ['thread.run.step.in_progress', 'step_1', {}],
      ['thread.message.created', 'msg_1', message],
      ['thread.message.in_progress', 'msg_1', {}],
      [
        'thread.message.delta',
        'msg_1',
        { content: [{ index: 0, type: 'text', text: { value: 'Hello ', annotations: [] } }] },
      ],
      [
        'thread.message.delta',
        'msg_1',
        { content: [{ index: 0, type: 'text', text: { value: 'there.' } }] },
      ],
      [
        'thread.message.completed',
        'msg_1',
        {
          status: 'completed',
          completed_at: '@written',
          content: [{ type: 'text', text: { value: 'Hello there.', annotations: [] } }],
        },
      ],
      [
        'thread.run.step.completed',
        'step_1',
        { status: 'completed', completed_at: '@stepped', usage: usage(38, 35) },
      ],
      [
        'thread.run.completed',
        'run_1',
        { status: 'completed', completed_at: '@ended', expires_at: null, usage: usage(38, 35) },
      ],
    ],
  ],
}
