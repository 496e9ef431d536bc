import { execFile } from 'node:child_process'
import { promisify } from 'node:util'

import type OpenAI from 'openai'

import { eventually } from '../local/scratch.ts'
import { lookUp, newThread } from '../support/cluster.ts'
import { followRun } from '../support/event-stream.ts'
import { call, errorAfter, say, stallAfter, type Step } from '../support/model.ts'
import type { TestServer } from '../support/server.ts'
import type { SdkClient } from './clients.ts'

/** What a run sends, from its first event to its last; deltas that follow each other are one entry. */
export interface Sequence {
  title: string
  answer: () => Step
  body?: { expires_after_seconds?: number }
  /** Done to the run once its first words are there. */
  meanwhile?: 'cancel'
  events: string[]
  status: OpenAI.Beta.Threads.RunStatus
  /** Of the messages of the stream. */
  texts: string[]
}

export const begins = ['thread.run.created', 'thread.run.queued', 'thread.run.in_progress']
export const step = ['thread.run.step.created', 'thread.run.step.in_progress']
export const writes = [
  ...step,
  'thread.message.created',
  'thread.message.in_progress',
  'thread.message.delta',
]
export const written = [
  'thread.message.completed',
  'thread.run.step.completed',
  'thread.run.completed',
]
/** A run that asks for functions, up to where its client has to act. */
export const asks = [...begins, ...step, 'thread.run.step.delta', 'thread.run.requires_action']
/** What follows once their outputs are there. */
export const goesOn = [
  'thread.run.step.completed',
  'thread.run.queued',
  'thread.run.in_progress',
  ...writes,
  ...written,
]

export const half = (): Step => stallAfter(1, ['Half ', 'of it.'])

/** Of spec section 4.3, those that a plain answer of the model leads to. */
export const sequences: Sequence[] = [
  {
    title: 'A, a plain answer',
    answer: () => say(['Hello ', 'there.']),
    events: [...begins, ...writes, ...written],
    status: 'completed',
    texts: ['Hello there.'],
  },
  {
    title: 'G, cancelled while it writes',
    answer: half,
    meanwhile: 'cancel',
    events: [
      ...begins,
      ...writes,
      'thread.run.cancelling',
      'thread.message.incomplete',
      'thread.run.step.cancelled',
      'thread.run.cancelled',
    ],
    status: 'cancelled',
    texts: ['Half '],
  },
  {
    title: 'H, failed while it writes',
    answer: () => errorAfter(1, ['Half ', 'of it.'], { message: 'Out of order.' }),
    events: [
      ...begins,
      ...writes,
      'thread.message.incomplete',
      'thread.run.step.failed',
      'thread.run.failed',
    ],
    status: 'failed',
    texts: ['Half '],
  },
  {
    title: 'I, incomplete',
    answer: () => say('Half ', { finishReason: 'length' }),
    events: [
      ...begins,
      ...writes,
      'thread.message.incomplete',
      'thread.run.step.completed',
      'thread.run.incomplete',
    ],
    status: 'incomplete',
    texts: ['Half '],
  },
  {
    title: 'J, expired while it writes',
    answer: half,
    body: { expires_after_seconds: 3 },
    events: [
      ...begins,
      ...writes,
      'thread.message.incomplete',
      'thread.run.step.expired',
      'thread.run.expired',
    ],
    status: 'expired',
    texts: ['Half '],
  },
]

export interface FunctionSequence {
  title: string
  /** The arguments of its calls. */
  inputs: string[]
}

export const functionSequences: FunctionSequence[] = [
  { title: 'E, a function', inputs: ['{"at":"A"}'] },
  { title: 'F, functions in parallel', inputs: ['{"at":"A"}', '{"at":"B"}', '{}'] },
]

export function callsOf(inputs: string[]): Step {
  return call(inputs.map((input) => ({ name: 'look_up', arguments: input })))
}

export function compact(names: string[]): string[] {
  return names.filter((name, at) => !name.endsWith('.delta') || names[at - 1] !== name)
}

/** What the helpers of an official client, in a program of its own, make of a run and of the outputs that it asks for. */
export async function inProgram(
  server: TestServer,
  sdk: SdkClient | undefined,
  how: 'stream' | 'poll',
  {
    body = {},
    meanwhile,
    tools = [],
  }: Pick<Sequence, 'body' | 'meanwhile'> & { tools?: (typeof lookUp)[] },
): Promise<unknown> {
  if (!sdk) throw new Error('There is no such client')
  const { client } = server
  const { threadId, assistantId } = await newThread(client, 'Rain?', tools)
  const [program = '', , packageName] = sdk.command
  const args = packageName === undefined ? ['python_follow.py'] : ['node-follow.mjs', packageName]
  const [file = '', ...more] = args
  const run = promisify(execFile)
  const facts = { BASE_URL: server.baseUrl, API_KEY: 'test', EXTRA: JSON.stringify(body) }
  const running = run(program, [`test/contract/programs/${file}`, ...more, how], {
    env: { ...sdk.env, ...facts, THREAD_ID: threadId, ASSISTANT_ID: assistantId },
  })
  if (meanwhile) {
    const { id } = await eventually(
      async () => (await client.beta.threads.runs.list(threadId)).data[0],
    )
    const log = await followRun(server.databaseUrl, id, 0)
    await log.saw('thread.message.delta')
    await client.beta.threads.runs.cancel(id, { thread_id: threadId })
  }
  return JSON.parse((await running).stdout)
}
