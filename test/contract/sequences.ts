import { execFile } from 'node:child_process'
import { promisify } from 'node:util'

import { eventually } from '../local/scratch.ts'
import { newThread } from '../support/cluster.ts'
import { followRun } from '../support/event-stream.ts'
import { codeEnv, noCode } from '../support/sandboxes.ts'
import type { TestServer } from '../support/server.ts'
import type { SdkClient } from './clients.ts'
import { betweenWords, figureAndFile } from './transcripts/code.ts'
import { cancelled, expired, failed, incomplete } from './transcripts/cut-short.ts'
import { oneFunction } from './transcripts/one-function.ts'
import { ownThread } from './transcripts/own-thread.ts'
import { parallelFunctions } from './transcripts/parallel-functions.ts'
import { plainAnswer } from './transcripts/plain-answer.ts'
import type { Transcript } from './transcripts/transcript.ts'

/** Of spec section 4.3, all that end with their run, or where it asks for outputs. */
export const transcripts: Transcript[] = [
  plainAnswer,
  ownThread,
  figureAndFile,
  betweenWords,
  oneFunction,
  parallelFunctions,
  cancelled,
  failed,
  incomplete,
  expired,
]

/** Why a transcript cannot be played here; empty where it can. */
export function skipped({ runsCode }: Transcript): string {
  return runsCode && noCode ? ` (skipped: ${noCode})` : ''
}

/** A failed answer is not asked for again: the run fails with what it had written. A silent model is left alone until the run's deadline. */
export const serverOfTranscripts = {
  MODEL_ATTEMPTS: '1',
  MODEL_IDLE_TIMEOUT_S: '60',
  ...(noCode ? {} : codeEnv()),
}

export const question = 'Rain?'

/** Does to a run what its transcript says, which is due. */
export async function act(
  { client, model }: TestServer,
  { meanwhile }: Transcript,
  { runId, threadId }: { runId: string; threadId: string },
): Promise<void> {
  if (meanwhile === 'go on') model.requests.at(-1)?.release()
  if (meanwhile === 'cancel') await client.beta.threads.runs.cancel(runId, { thread_id: threadId })
  if (meanwhile === 'delete the thread') await client.beta.threads.delete(threadId)
}

/** What the helpers of an official client, in a program of its own, make of a run and of the outputs that it asks for. */
export async function inProgram(
  server: TestServer,
  sdk: SdkClient | undefined,
  how: 'stream' | 'poll',
  transcript: Transcript,
): Promise<unknown> {
  if (!sdk) throw new Error('There is no such client')
  const { client } = server
  const { answers, body = {}, meanwhile, tools } = transcript
  server.model.script(...answers())
  const { threadId, assistantId } = await newThread(client, question, tools)
  const [program = '', , packageName] = sdk.command
  const args = packageName === undefined ? ['python_follow.py'] : ['node-follow.mjs', packageName]
  const [file = '', ...more] = args
  const run = promisify(execFile)
  const facts = { BASE_URL: server.baseUrl, API_KEY: 'test', EXTRA: JSON.stringify(body) }
  const running = run(program, [`test/contract/programs/${file}`, ...more, how], {
    env: { ...sdk.env, ...facts, THREAD_ID: threadId, ASSISTANT_ID: assistantId },
  })
  // Looked at below, also where it fails before that.
  running.catch(() => {})
  if (meanwhile) {
    const { id } = await eventually(
      async () => (await client.beta.threads.runs.list(threadId)).data[0],
    )
    const log = await followRun(server.databaseUrl, id, 0)
    await log.saw('thread.message.delta')
    await act(server, transcript, { runId: id, threadId })
  }
  return JSON.parse((await running).stdout)
}
