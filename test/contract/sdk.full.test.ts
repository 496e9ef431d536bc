import { readFileSync } from 'node:fs'

import { describe, expect, test } from 'vitest'

import { createCaller } from '../api/caller.ts'
import { field, filePart, form } from '../api/form.ts'
import { answered } from '../support/http-capture.ts'
import { call, stallAfter } from '../support/model.ts'
import { startServer } from '../support/server.ts'
import { used } from './answers.ts'
import {
  describeClients,
  nodeClient,
  oldNodeClient,
  oldPythonClient,
  pythonClient,
} from './clients.ts'
import { coverageOf, coverageTable, keepCoverage, tableIn } from './coverage.ts'
import { deviations } from './deviations.ts'
import { skipped } from './document.ts'
import { inV1 } from './objects.ts'

/** Every generation of the official clients that speaks assistants=v2. */
const clients = {
  'npm openai': nodeClient('openai'),
  'npm openai 6': nodeClient('openai-6'),
  'npm openai 5': nodeClient('openai-5'),
  'npm openai 4': nodeClient('openai-4'),
  'Python openai 3.54.0': pythonClient('3.54.0'),
  'Python openai 2.54.0': pythonClient('2.54.0'),
  'Python openai 1.109.1': pythonClient('1.109.1'),
}
/**
 * The first and the last generation that send assistants=v1, as they are and with the newer header in its place: what
 * they know of both dialects is the same.
 */
const oldClients = {
  'npm openai 4.36': oldNodeClient('openai-4-36'),
  'npm openai 4.20': oldNodeClient('openai-4-20'),
  'Python openai 1.20.0': oldPythonClient('1.20.0'),
  'Python openai 1.3.9': oldPythonClient('1.3.9'),
  'npm openai 4.36 in v2': oldNodeClient('openai-4-36', 'v2'),
  'npm openai 4.20 in v2': oldNodeClient('openai-4-20', 'v2'),
  'Python openai 1.20.0 in v2': oldPythonClient('1.20.0', 'v2'),
  'Python openai 1.3.9 in v2': oldPythonClient('1.3.9', 'v2'),
}
describeClients({ ...clients, ...oldClients })

describe.skipIf(skipped)(`what all of them have called${skipped}`, () => {
  const absent = Object.entries({ ...clients, ...oldClients }).flatMap(([name, client]) =>
    client ? [] : [name],
  )
  const why = absent.length > 0 ? ` (skipped: there is no ${absent.join(', ')})` : ''
  test.skipIf(why)(`is what the table in the README says${why}`, () => {
    const coverage = coverageOf(answered)
    // For `npm run docs:coverage`, which writes the table.
    keepCoverage(coverage)
    expect(tableIn(readFileSync('README.md', 'utf8'))).toBe(coverageTable(coverage))
  })

  test('has met each deviation from the documents, with what no scenario asks for', async () => {
    await askForTheRest()
    const unmet = deviations.filter((deviation) => !used.has(deviation))
    expect(unmet.map(({ at, keys, why }) => ({ at, keys, why }))).toEqual([])
  })
})

async function askForTheRest(): Promise<void> {
  await using server = await startServer()
  const api = createCaller(server)
  const tools = Array.from({ length: 21 }, (_, n) => ({
    type: 'function',
    function: { name: `f${n}` },
  }))
  const assistant = await api.make('/assistants', { model: 'm', tools })
  const thread = await api.make('/threads')
  const asked = server.model.called(server.model.calls + 1)
  server.model.script(stallAfter(1, 'Hello there.'))
  const streaming = api.post(`/threads/${thread.id}/runs`, {
    assistant_id: assistant.id,
    max_completion_tokens: 100,
    stream: true,
  })
  // The stream ends with an error event.
  await server.model.tokensOut(await asked, 1)
  await api.delete(`/threads/${thread.id}`)
  await streaming
  server.model.script(call({ name: 'f0', arguments: '{' }))
  const short = await api.make('/threads/runs', { assistant_id: assistant.id, max_steps: 1 })
  expect((await api.settled(short['thread_id'], short.id))['status']).toBe('incomplete')
  const evals = form([field('purpose', 'evals'), filePart('{}', 'a.jsonl')])
  await api.send('POST', '/files', undefined, evals)
  await api.get('/files', inV1)
}
