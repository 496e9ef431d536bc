import { toFile } from 'openai'
import { Client } from 'pg'
import { afterAll, beforeAll, expect, test } from 'vitest'

import { startServer, type TestServer } from '../support/server.ts'
import { createCaller, refusal, refused, type Body, type Caller } from './caller.ts'

let server: TestServer
let api: Caller
beforeAll(async () => {
  server = await startServer()
  api = createCaller(server)
})
afterAll(() => server[Symbol.asyncDispose]())

async function newFile(): Promise<string> {
  const file = await toFile(Buffer.from('a,b\n1,2\n'), 'data.csv')
  return (await server.client.files.create({ file, purpose: 'assistants' })).id
}

function resources(object: Body): Record<string, Record<string, string[]>> {
  return object['tool_resources'] as Record<string, Record<string, string[]>>
}

const forCode = (file_id: string) => ({ file_id, tools: [{ type: 'code_interpreter' }] })
const toSearch = (file_id: string) => ({ file_id, tools: [{ type: 'file_search' }] })
const said = (attachments: object[]) => ({ role: 'user', content: 'Look.', attachments })

test('the files of the code interpreter are kept and shown', async () => {
  const named = { code_interpreter: { file_ids: [await newFile(), await newFile()] } }
  const assistant = await api.make('/assistants', { model: 'm', tool_resources: named })
  expect(assistant['tool_resources']).toEqual(named)
  const thread = await api.make('/threads', { tool_resources: named })
  expect(thread['tool_resources']).toEqual(named)
  const other = { code_interpreter: { file_ids: [await newFile()] } }
  const changed = await api.make(`/threads/${thread.id}`, { tool_resources: other })
  expect(changed['tool_resources']).toEqual(other)
})

test('the helper makes a vector store, and the answer shows its id', async () => {
  const helper = { file_search: { vector_stores: [{ file_ids: [await newFile()] }] } }
  for (const path of ['/assistants', '/threads']) {
    const object = await api.make(path, {
      ...(path === '/assistants' && { model: 'm' }),
      tool_resources: helper,
    })
    expect(object['tool_resources']).toEqual({
      file_search: { vector_store_ids: [expect.stringMatching(/^vs_[0-9a-f]{32}$/)] },
    })
    const named = resources(object)['file_search']
    const again = await api.make(`${path}/${object.id}`, { tool_resources: { file_search: named } })
    expect(resources(again)['file_search']).toEqual(named)
    // Says nothing about stores, so they stay.
    const empty = await api.make(`${path}/${object.id}`, { tool_resources: { file_search: {} } })
    expect(resources(empty)['file_search']).toEqual(named)
  }
})

test('files and stores that are not there are refused, with their place in the body', async () => {
  const { id: thread } = await api.make('/threads')
  const { id: assistant } = await api.make('/assistants', { model: 'm' })
  const [file, store] = ['file-gone', 'vs_gone']
  const code = { code_interpreter: { file_ids: [await newFile(), file] } }
  const search = { file_search: { vector_store_ids: [store] } }
  const helper = { file_search: { vector_stores: [{ file_ids: [file] }] } }
  const image = [{ type: 'image_file', image_file: { file_id: file } }]
  const noFile = (param: string) => refused(404, `No such File object: ${file}`, param)
  const noStore = (param: string) =>
    refused(404, `Vector store with id ['${store}'] not found.`, param)
  const secondFile = 'tool_resources.code_interpreter.file_ids[1]'
  const firstStore = 'tool_resources.file_search.vector_store_ids[0]'
  const cases: [string, object, ReturnType<typeof refused>][] = [
    ['/assistants', { model: 'm', tool_resources: code }, noFile(secondFile)],
    ['/assistants', { model: 'm', tool_resources: search }, noStore(firstStore)],
    [
      '/assistants',
      { model: 'm', tool_resources: helper },
      noFile('tool_resources.file_search.vector_stores[0].file_ids[0]'),
    ],
    [`/assistants/${assistant}`, { tool_resources: code }, noFile(secondFile)],
    [`/assistants/${assistant}`, { tool_resources: search }, noStore(firstStore)],
    ['/threads', { tool_resources: code }, noFile(secondFile)],
    ['/threads', { tool_resources: search }, noStore(firstStore)],
    [
      '/threads',
      { messages: [said([]), said([forCode(file)])] },
      noFile('messages[1].attachments[0].file_id'),
    ],
    [`/threads/${thread}`, { tool_resources: search }, noStore(firstStore)],
    [`/threads/${thread}/messages`, said([toSearch(file)]), noFile('attachments[0].file_id')],
    [
      `/threads/${thread}/messages`,
      { role: 'user', content: image },
      noFile('content[0].image_file.file_id'),
    ],
    [
      `/threads/${thread}/runs`,
      { assistant_id: assistant, additional_messages: [said([forCode(file)])] },
      noFile('additional_messages[0].attachments[0].file_id'),
    ],
    [
      '/threads/runs',
      { assistant_id: assistant, thread: { tool_resources: code } },
      noFile(`thread.${secondFile}`),
    ],
    ['/threads/runs', { assistant_id: assistant, tool_resources: code }, noFile(secondFile)],
  ]
  for (const [path, body, expected] of cases) {
    expect({ path, ...refusal(await api.post(path, body)) }).toEqual({ path, ...expected })
  }
  expect((await api.read(`/threads/${thread}/messages`)).data).toEqual([])
  expect((await api.read(`/threads/${thread}/runs`)).data).toEqual([])
})

test('an object that is not there is said before a file that is not there', async () => {
  const code = { tool_resources: { code_interpreter: { file_ids: ['file-gone'] } } }
  const cases: [string, object, string][] = [
    ['/assistants/asst_gone', code, "No assistant found with id 'asst_gone'."],
    ['/threads/thread_gone', code, "No thread found with id 'thread_gone'."],
    [
      '/threads/thread_gone/messages',
      said([forCode('file-gone')]),
      "No thread found with id 'thread_gone'.",
    ],
  ]
  for (const [path, body, message] of cases) {
    expect(refusal(await api.post(path, body))).toEqual(refused(404, message))
  }
})

test('what is attached to a message becomes a resource of its thread', async () => {
  const [a, b, c] = [await newFile(), await newFile(), await newFile()]
  const { id } = await api.make('/threads', { messages: [said([forCode(a)])] })
  expect(resources(await api.read(`/threads/${id}`))).toEqual({
    code_interpreter: { file_ids: [a] },
  })

  const both = [forCode(b), toSearch(b), forCode(a)]
  const message = await api.make(`/threads/${id}/messages`, said(both))
  expect(message['attachments']).toEqual(both)
  const searched = resources(await api.read(`/threads/${id}`))
  expect(searched['code_interpreter']).toEqual({ file_ids: [a, b] })
  const stores = searched['file_search']?.['vector_store_ids']
  expect(stores).toHaveLength(1)

  // A second one goes into the same store.
  await api.make(`/threads/${id}/messages`, said([toSearch(c)]))
  const after = resources(await api.read(`/threads/${id}`))
  expect(after['file_search']?.['vector_store_ids']).toEqual(stores)
})

test('a thread has no more than twenty files for the code interpreter', async () => {
  const ids = await Promise.all(Array.from({ length: 21 }, newFile))
  const { id } = await api.make('/threads', { messages: [said(ids.slice(0, 20).map(forCode))] })
  const one = await api.post(`/threads/${id}/messages`, said([forCode(ids.at(-1) ?? '')]))
  expect(refusal(one)).toEqual(
    refused(
      400,
      "Invalid 'tool_resources.code_interpreter.file_ids': array too long. " +
        'Expected an array with maximum length 20, but got an array with length 21 instead.',
      'tool_resources.code_interpreter.file_ids',
      'array_above_max_length',
    ),
  )
  expect((await api.read(`/threads/${id}/messages`)).data).toHaveLength(1)
})

test('of files that can be searched too, the newest twenty are for the code interpreter', async () => {
  const ids = await Promise.all(Array.from({ length: 22 }, newFile))
  const both = (file_id: string) => ({
    file_id,
    tools: [...forCode('').tools, ...toSearch('').tools],
  })
  const { id } = await api.make('/threads', { messages: [said(ids.slice(0, 12).map(both))] })
  await api.make(`/threads/${id}/messages`, said(ids.slice(12).map(both)))
  const { code_interpreter: code } = resources(await api.read(`/threads/${id}`))
  expect(code).toEqual({ file_ids: ids.slice(-20) })
})

test('a thread whose vector store is gone gets another for what is attached', async () => {
  const { id } = await api.make('/threads', { messages: [said([toSearch(await newFile())])] })
  const before = resources(await api.read(`/threads/${id}`))['file_search']
  const db = new Client({ connectionString: server.databaseUrl })
  await db.connect()
  await db.query('DELETE FROM vector_stores WHERE id = $1', before?.['vector_store_ids'])
  await db.end()
  await api.make(`/threads/${id}/messages`, said([toSearch(await newFile())]))
  const after = resources(await api.read(`/threads/${id}`))['file_search']
  expect(after).toEqual({ vector_store_ids: [expect.stringMatching(/^vs_/)] })
  expect(after).not.toEqual(before)
})

test('a thread that is created along with its run is shown with what its messages attach', async () => {
  const { id: assistant_id } = await api.make('/assistants', { model: 'm' })
  const file = await newFile()
  const { text } = await api.post('/threads/runs', {
    assistant_id,
    thread: { messages: [said([forCode(file)])] },
    stream: true,
  })
  const [, created = '{}'] = /event: thread\.created\ndata: (.*)/.exec(text) ?? []
  expect(JSON.parse(created)).toMatchObject({
    tool_resources: { code_interpreter: { file_ids: [file] } },
  })
})

test('the ranking options of file search are shown as the live service did, and may be sent back', async () => {
  const tools = [{ type: 'file_search' }]
  const assistant = await api.make('/assistants', { model: 'm', tools })
  const filled = [
    {
      type: 'file_search',
      file_search: {
        ranking_options: { ranker: 'default_2024_08_21', score_threshold: 0, hybrid_search: null },
      },
    },
  ]
  expect(assistant['tools']).toEqual(filled)
  const again = await api.make(`/assistants/${assistant.id}`, { tools: assistant['tools'] })
  expect(again['tools']).toEqual(filled)
})
