import { say } from '../../support/model.ts'
import type { Transcript } from './transcript.ts'

/** [REC StreamingToolCall], and from there on as a plain answer. */
export const ownThread: Transcript = {
  title: 'B, a run that brings its thread',
  answers: () => [say('Hello.', { usage: { promptTokens: 9, completionTokens: 2 } })],
  thread: { messages: [{ role: 'user', content: 'Hi' }] },
  streams: ({ thread, run, messageStep, message, usage }) => [
    [
      ['thread.created', 'thread_1', thread],
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
        { content: [{ index: 0, type: 'text', text: { value: 'Hello.', annotations: [] } }] },
      ],
      [
        'thread.message.completed',
        'msg_1',
        {
          status: 'completed',
          completed_at: '@written',
          content: [{ type: 'text', text: { value: 'Hello.', annotations: [] } }],
        },
      ],
      [
        'thread.run.step.completed',
        'step_1',
        { status: 'completed', completed_at: '@stepped', usage: usage(9, 2) },
      ],
      [
        'thread.run.completed',
        'run_1',
        { status: 'completed', completed_at: '@ended', expires_at: null, usage: usage(9, 2) },
      ],
    ],
  ],
}
