import { afterAll, beforeAll, describe, expect, test } from 'vitest'

import { startServer, type TestServer } from '../support/server.ts'
import { nodeClient, oldNodeClient, oldPythonClient, pythonClient } from './clients.ts'
import { inProgram, serverOfTranscripts, skipped, transcripts } from './sequences.ts'
import { gone, goneMessage } from './transcripts/cut-short.ts'
import { toldBy } from './transcripts/transcript.ts'
import { v1 } from './transcripts/v1.ts'
import { v2 } from './transcripts/v2.ts'

/** The transcripts of sequences.test.ts, as the helpers of every generation follow them; two generations speak assistants=v1. */
const clients = {
  'npm openai 6': [nodeClient('openai-6'), v2],
  'npm openai 5': [nodeClient('openai-5'), v2],
  'npm openai 4': [nodeClient('openai-4'), v2],
  'Python openai 3.54.0': [pythonClient('3.54.0'), v2],
  'Python openai 2.54.0': [pythonClient('2.54.0'), v2],
  'Python openai 1.109.1': [pythonClient('1.109.1'), v2],
  'npm openai 4.36': [oldNodeClient('openai-4-36'), v1],
  'Python openai 1.20.0': [oldPythonClient('1.20.0'), v1],
} as const

/** The programs here begin runs of threads that there are. */
const followable = transcripts.filter(({ thread }) => !thread)

let server: TestServer
beforeAll(async () => {
  server = await startServer(serverOfTranscripts)
})
afterAll(() => server[Symbol.asyncDispose]())

describe.each(Object.entries(clients))('%s', (name, [sdk, dialect]) => {
  const why = sdk ? '' : ' (skipped: LONGRUN_PYTHON_SDKS does not name it)'

  test.runIf(sdk).for(followable)(`sequence $title${why}`, async (transcript, { skip }) => {
    skip(skipped(transcript) !== '', skipped(transcript))
    const told = toldBy(transcript, dialect)
    const statuses = told.map(({ status }) => status)
    const followed = await inProgram(server, sdk, 'stream', transcript).catch(String)
    // Its helper knows every end of a run but this one, with the original's stream too.
    const isUnknown = name === 'npm openai 4' && statuses.includes('incomplete')
    const unknown = expect.stringContaining('Final run has not been received') as unknown
    expect(followed).toEqual(isUnknown ? unknown : told)
    expect(await inProgram(server, sdk, 'poll', transcript)).toEqual(statuses)
  })

  test.runIf(sdk)(`sequence ${gone.title}${why}`, async () => {
    await expect(inProgram(server, sdk, 'stream', gone)).rejects.toThrow(goneMessage)
  })
})
