import { afterAll, beforeAll, expect, test } from 'vitest'

import { createLogger } from '../../log.ts'
import { openStore } from '../../store/index.ts'
import { queryOnce } from '../support/cluster.ts'
import { createDatabase } from '../support/server.ts'

let database: Awaited<ReturnType<typeof createDatabase>>
beforeAll(async () => {
  database = await createDatabase()
})
afterAll(() => database[Symbol.asyncDispose]())

const tokens = { prompt: 1, completion: 2, cached: null, reasoning: 0 }

function open() {
  return openStore({
    databaseUrl: database.url,
    log: createLogger('error'),
    maxConnections: 2,
  })
}

function rows(model: string) {
  return queryOnce(
    database.url,
    `SELECT prompt_tokens, completion_tokens, cached_tokens, reasoning_tokens
     FROM passed_usage WHERE model = $1 ORDER BY id`,
    [model],
  )
}

test('what is counted last is written before the store is closed', async () => {
  const store = await open()
  const { id: projectId } = await store.keys.defaultProject()
  const request = { projectId, endpoint: 'embeddings', model: 'last', objectId: undefined }
  store.passedUsage.count({ ...request, tokens })
  store.passedUsage.count({ ...request, tokens: undefined })
  await store[Symbol.asyncDispose]()
  expect(await rows('last')).toEqual(
    expect.arrayContaining([
      { prompt_tokens: 1, completion_tokens: 2, cached_tokens: null, reasoning_tokens: 0 },
      { prompt_tokens: null, completion_tokens: null, cached_tokens: null, reasoning_tokens: null },
    ]),
  )
})

test('what is settled is the row that has no numbers yet, in its own project, once', async () => {
  const store = await open()
  const { id: projectId } = await store.keys.defaultProject()
  const other = await store.keys.createProject('other')
  store.passedUsage.count({
    projectId,
    endpoint: 'responses',
    model: 'settled',
    objectId: 'resp_1',
    tokens: undefined,
  })
  await store.passedUsage[Symbol.asyncDispose]()
  for (const [project, prompt] of [
    [other.id, 7],
    [projectId, 1],
    [projectId, 9],
  ] as const) {
    store.passedUsage.settle(project, 'resp_1', { ...tokens, prompt })
    await store.passedUsage[Symbol.asyncDispose]()
  }
  await store[Symbol.asyncDispose]()
  expect(await rows('settled')).toEqual([
    { prompt_tokens: 1, completion_tokens: 2, cached_tokens: null, reasoning_tokens: 0 },
  ])
})
