import { afterAll, beforeAll, describe, expect, test } from 'vitest'

import { lookUp } from '../support/cluster.ts'
import { say } from '../support/model.ts'
import { startServer, type TestServer } from '../support/server.ts'
import { nodeClient, pythonClient } from './clients.ts'
import { asks, callsOf, functionSequences, goesOn, inProgram, sequences } from './sequences.ts'

/** The sequences of sequences.test.ts, as the helpers of every generation follow them that speaks assistants=v2. */
const clients = {
  'npm openai 6': nodeClient('openai-6'),
  'npm openai 5': nodeClient('openai-5'),
  'npm openai 4': nodeClient('openai-4'),
  'Python openai 3.54.0': pythonClient('3.54.0'),
  'Python openai 2.54.0': pythonClient('2.54.0'),
  'Python openai 1.109.1': pythonClient('1.109.1'),
}

let server: TestServer
beforeAll(async () => {
  // As there: a failed answer is not asked for again, and a silent model is left alone.
  server = await startServer({ MODEL_ATTEMPTS: '1', MODEL_IDLE_TIMEOUT_S: '60' })
})
afterAll(() => server[Symbol.asyncDispose]())

describe.each(Object.entries(clients))('%s', (name, sdk) => {
  const why = sdk ? '' : ' (skipped: LONGRUN_PYTHON_SDKS does not name it)'

  test.runIf(sdk).each(sequences)(`sequence $title${why}`, async (sequence) => {
    const { answer, events, status, texts } = sequence
    server.model.script(answer())
    const followed = await inProgram(server, sdk, 'stream', sequence).catch(String)
    // Its helper knows every end of a run but this one, with the original's stream too.
    const isUnknown = name === 'npm openai 4' && status === 'incomplete'
    const unknown = expect.stringContaining('Final run has not been received') as unknown
    expect(followed).toEqual(isUnknown ? unknown : [{ events, status, texts }])
    server.model.script(answer())
    expect(await inProgram(server, sdk, 'poll', sequence)).toEqual([status])
  })

  test.runIf(sdk).each(functionSequences)(`sequence $title${why}`, async ({ inputs }) => {
    const tools = [lookUp]
    server.model.script(callsOf(inputs), say('Rain.'))
    expect(await inProgram(server, sdk, 'stream', { tools })).toEqual([
      { events: asks, status: 'requires_action', texts: [] },
      { events: goesOn, status: 'completed', texts: ['Rain.'] },
    ])
    server.model.script(callsOf(inputs), say('Rain.'))
    const polled = await inProgram(server, sdk, 'poll', { tools })
    expect(polled).toEqual(['requires_action', 'completed'])
  })
})
