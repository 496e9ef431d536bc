import { errorAfter, say, stallAfter, type Step } from '../../support/model.ts'
import type { Transcript } from './transcript.ts'

/**
 * Runs whose answer does not come to its end: of the original there are only reports that such events were sent, so order and
 * fields are the spec's sections 3 and 4.3, and our choice where these are uncertain. What was written is kept in each.
 */

/** The order is our choice: the message, its step, the run. */
export const cancelled: Transcript = {
  title: 'G, cancelled while it writes',
  answers: () => [half()],
  meanwhile: 'cancel',
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
        { content: [{ index: 0, type: 'text', text: { value: 'Half ', annotations: [] } }] },
      ],
      ['thread.run.cancelling', 'run_1', { status: 'cancelling' }],
      [
        'thread.message.incomplete',
        'msg_1',
        {
          status: 'incomplete',
          incomplete_details: { reason: 'run_cancelled' },
          incomplete_at: '@written',
          content: [{ type: 'text', text: { value: 'Half ', annotations: [] } }],
        },
      ],
      [
        'thread.run.step.cancelled',
        'step_1',
        {
          status: 'cancelled',
          cancelled_at: '@stepped',
          // Our choice: nobody tells what a call used that was cut, so it is counted here: `Half` and a blank.
          usage: usage('#prompt', 2),
        },
      ],
      [
        'thread.run.cancelled',
        'run_1',
        {
          status: 'cancelled',
          cancelled_at: '@ended',
          expires_at: null,
          usage: usage('#prompt', 2),
          longrun: {
            cost: null,
            usage_estimated: true,
            context: null,
            max_steps: null,
            fallback_models: [],
          },
        },
      ],
    ],
  ],
}

/** The order is our choice, and so are the words of the error. */
export const failed: Transcript = {
  title: 'H, failed while it writes',
  answers: () => [errorAfter(1, ['Half ', 'of it.'], { message: 'Out of order.' })],
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
        { content: [{ index: 0, type: 'text', text: { value: 'Half ', annotations: [] } }] },
      ],
      [
        'thread.message.incomplete',
        'msg_1',
        {
          status: 'incomplete',
          incomplete_details: { reason: 'run_failed' },
          incomplete_at: '@written',
          content: [{ type: 'text', text: { value: 'Half ', annotations: [] } }],
        },
      ],
      [
        'thread.run.step.failed',
        'step_1',
        {
          status: 'failed',
          failed_at: '@stepped',
          last_error: {
            code: 'server_error',
            message:
              "The model 'gpt-4o' at {model_host} broke off: Out of order. The call was tried once.",
          },
          usage: usage('#prompt', 2),
        },
      ],
      [
        'thread.run.failed',
        'run_1',
        {
          status: 'failed',
          failed_at: '@ended',
          expires_at: null,
          last_error: {
            code: 'server_error',
            message:
              "The model 'gpt-4o' at {model_host} broke off: Out of order. The call was tried once.",
          },
          usage: usage('#prompt', 2),
          longrun: {
            cost: null,
            usage_estimated: true,
            context: null,
            max_steps: null,
            fallback_models: [],
          },
        },
      ],
    ],
  ],
}

/** Our choice: a step has no such status, so it is completed; the run is completed at a time, as it is in v1. */
export const incomplete: Transcript = {
  title: 'I, incomplete',
  answers: () => [
    say('Half ', { finishReason: 'length', usage: { promptTokens: 32, completionTokens: 11 } }),
  ],
  streams: ({ run, messageStep, message, usage, incomplete: status }) => [
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
        { content: [{ index: 0, type: 'text', text: { value: 'Half ', annotations: [] } }] },
      ],
      [
        'thread.message.incomplete',
        'msg_1',
        {
          status: 'incomplete',
          incomplete_details: { reason: 'max_tokens' },
          incomplete_at: '@written',
          content: [{ type: 'text', text: { value: 'Half ', annotations: [] } }],
        },
      ],
      [
        'thread.run.step.completed',
        'step_1',
        { status: 'completed', completed_at: '@stepped', usage: usage(32, 11) },
      ],
      [
        `thread.run.${status}`,
        'run_1',
        {
          status,
          completed_at: '@ended',
          expires_at: null,
          incomplete_details: { reason: 'max_completion_tokens' },
          usage: usage(32, 11),
        },
      ],
    ],
  ],
}

/** The order is our choice, and that the run keeps its deadline, having no `expired_at`. */
export const expired: Transcript = {
  title: 'J, expired while it writes',
  answers: () => [half()],
  body: { expires_after_seconds: 3 },
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
        { content: [{ index: 0, type: 'text', text: { value: 'Half ', annotations: [] } }] },
      ],
      [
        'thread.message.incomplete',
        'msg_1',
        {
          status: 'incomplete',
          incomplete_details: { reason: 'run_expired' },
          incomplete_at: '@written',
          content: [{ type: 'text', text: { value: 'Half ', annotations: [] } }],
        },
      ],
      [
        'thread.run.step.expired',
        'step_1',
        { status: 'expired', expired_at: '@stepped', usage: usage('#prompt', 2) },
      ],
      [
        'thread.run.expired',
        'run_1',
        {
          status: 'expired',
          usage: usage('#prompt', 2),
          longrun: {
            cost: null,
            usage_estimated: true,
            context: null,
            max_steps: null,
            fallback_models: [],
          },
        },
      ],
    ],
  ],
}

export const goneMessage = 'The run is gone: its thread was deleted.'

/** The error twice, since Node's clients read a flat one and Python's look for `error` (D14); its words are our choice. */
export const gone: Transcript = {
  title: 'K, an error of the stream itself',
  answers: () => [half()],
  meanwhile: 'delete the thread',
  streams: ({ run, messageStep, message }) => [
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
        { content: [{ index: 0, type: 'text', text: { value: 'Half ', annotations: [] } }] },
      ],
      [
        'error',
        null,
        {
          message: goneMessage,
          type: 'server_error',
          param: null,
          code: null,
          error: {
            message: goneMessage,
            type: 'server_error',
            param: null,
            code: null,
          },
        },
      ],
    ],
  ],
}

/** A model that is silent after its first words. */
function half(): Step {
  return stallAfter(1, ['Half ', 'of it.'])
}
