import { toFile } from 'openai'
import { Client } from 'pg'
import { afterAll, beforeAll, expect, test } from 'vitest'

import { eventually } from '../local/scratch.ts'
import { call, say, stallAfter } from '../support/model.ts'
import { startServer, type TestServer } from '../support/server.ts'
import { createCaller, refusal, refused, type Body, type Caller } from './caller.ts'

let server: TestServer
let api: Caller
beforeAll(async () => {
  server = await startServer()
  server.model.respond(() => say('Two.'))
  api = createCaller(server)
})
afterAll(() => server[Symbol.asyncDispose]())

async function messagesOf(thread: Body): Promise<Body[]> {
  return (await api.read(`/threads/${thread.id}/messages?order=asc&limit=100`)).data
}

/** Everything that a copy has in common with what it was copied from. */
function said(messages: Body[]): object[] {
  return messages.map((message) => ({ ...message, id: '', thread_id: '', run_id: null }))
}

/** The message that a run has begun in the thread, once it is there. */
async function writtenIn(thread: Body): Promise<Body> {
  const isWriting = (message: Body): boolean => message['status'] === 'in_progress'
  return eventually(async () => (await messagesOf(thread)).find(isWriting))
}

async function conversation(): Promise<Body> {
  const assistant = await api.make('/assistants', { model: 'm' })
  const thread = await api.make('/threads', { metadata: { topic: 'sums', level: '1' } })
  const path = `/threads/${thread.id}`
  const metadata = { from: 'a user' }
  await api.make(`${path}/messages`, { role: 'user', content: 'One and one?', metadata })
  const run = await api.make(`${path}/runs`, { assistant_id: assistant.id })
  await api.settled(thread.id, run.id)
  await api.make(`${path}/messages`, { role: 'user', content: 'And two more?' })
  return thread
}

test('a fork has what was said, by whom and when, under ids of its own', async () => {
  const thread = await conversation()
  const fork = await api.make(`/threads/${thread.id}/fork`)
  const [before, copies] = [await messagesOf(thread), await messagesOf(fork)]
  expect(fork).toMatchObject({ object: 'thread', metadata: thread['metadata'] })
  expect(fork.id).not.toBe(thread.id)
  expect(copies).toHaveLength(3)
  expect(said(copies)).toEqual(said(before))
  for (const copy of copies) {
    expect(copy).toMatchObject({ thread_id: fork.id, run_id: null })
    expect(copy.id).toMatch(/^msg_[A-Za-z0-9]{24}$/)
    expect(before.map(({ id }) => id)).not.toContain(copy.id)
  }
  expect(new Set(copies.map(({ id }) => id)).size).toBe(3)
})

test('a fork at a message ends with that message', async () => {
  const thread = await conversation()
  const [first, answer] = await messagesOf(thread)
  const fork = await api.make(`/threads/${thread.id}/fork`, { message_id: answer?.id })
  expect(said(await messagesOf(fork))).toEqual(said([first as Body, answer as Body]))
})

test('metadata are added to those of the thread, or take their place', async () => {
  const thread = await conversation()
  const fork = await api.make(`/threads/${thread.id}/fork`, {
    metadata: { level: '2', topic: null, by: 'me' },
  })
  expect(fork['metadata']).toEqual({ level: '2', by: 'me' })
  expect((await api.read(`/threads/${thread.id}`))['metadata']).toEqual(thread['metadata'])
  const many = Object.fromEntries(Array.from({ length: 15 }, (_, n) => [`${n}`, 'x']))
  const answer = await api.post(`/threads/${thread.id}/fork`, { metadata: many })
  expect(refusal(answer)).toMatchObject({ status: 400, param: 'metadata' })
})

test('what becomes of the one is nothing to the other', async () => {
  const thread = await conversation()
  const fork = await api.make(`/threads/${thread.id}/fork`)
  await api.make(`/threads/${fork.id}/messages`, { role: 'user', content: 'Only here.' })
  expect(await messagesOf(thread)).toHaveLength(3)
  await api.delete(`/threads/${thread.id}`)
  expect(await messagesOf(fork)).toHaveLength(4)
})

test('a fork has a vector store of its own, with the same files, and only files that are there', async () => {
  const [kept, gone] = [await newFile(), await newFile()]
  const thread = await api.make('/threads', {
    tool_resources: {
      code_interpreter: { file_ids: [kept, gone] },
      file_search: { vector_stores: [{ file_ids: [kept, gone], metadata: { of: 'a user' } }] },
    },
  })
  await using db = await connected()
  await db.sql(`UPDATE files SET expires_at = now() WHERE id = $1`, [gone])
  const fork = await api.make(`/threads/${thread.id}/fork`)
  const [original, copy] = [storeOf(thread), storeOf(fork)]
  expect(fork['tool_resources']).toEqual({
    code_interpreter: { file_ids: [kept] },
    file_search: { vector_store_ids: [expect.stringMatching(/^vs_/)] },
  })
  expect(copy).not.toBe(original)
  expect(
    await db.sql('SELECT metadata, expires_after_days FROM vector_stores WHERE id = $1', [copy]),
  ).toEqual([{ metadata: { of: 'a user' }, expires_after_days: 7 }])
  expect(await db.filesOf(copy)).toEqual([kept])
  const added = await newFile()
  const attachments = [{ file_id: added, tools: [{ type: 'file_search' }] }]
  await api.make(`/threads/${fork.id}/messages`, { role: 'user', content: 'Here', attachments })
  expect(await db.filesOf(copy)).toEqual([kept, added])
  expect(await db.filesOf(original)).not.toContain(added)
  expect(storeOf(await api.read(`/threads/${thread.id}`))).toBe(original)
})

async function newFile(): Promise<string> {
  const file = await toFile(Buffer.from('Some text.'), 'a.txt')
  return (await server.client.files.create({ file, purpose: 'assistants' })).id
}

function storeOf(thread: Body): string | undefined {
  const { file_search: search } = thread['tool_resources'] as {
    file_search: { vector_store_ids: string[] }
  }
  return search.vector_store_ids[0]
}

async function connected() {
  const client = new Client({ connectionString: server.databaseUrl })
  await client.connect()
  const sql = async (text: string, values: unknown[]) =>
    (await client.query<Record<string, unknown>>(text, values)).rows
  return {
    sql,
    async filesOf(storeId: string | undefined) {
      const text = 'SELECT file_id FROM vector_store_files WHERE vector_store_id = $1 ORDER BY seq'
      return (await sql(text, [storeId])).map((row) => row['file_id'])
    },
    [Symbol.asyncDispose]: () => client.end(),
  }
}

test('a thread can be forked while a run is active in it, and the fork is free', async () => {
  server.model.script(call({ name: 'f', arguments: {} }))
  const tools = [{ type: 'function', function: { name: 'f' } }]
  const assistant = await api.make('/assistants', { model: 'm', tools })
  const thread = await api.make('/threads', { messages: [{ role: 'user', content: 'Hi' }] })
  const run = await api.make(`/threads/${thread.id}/runs`, { assistant_id: assistant.id })
  expect((await api.settled(thread.id, run.id))['status']).toBe('requires_action')
  const fork = await api.make(`/threads/${thread.id}/fork`)
  expect(said(await messagesOf(fork))).toEqual(said(await messagesOf(thread)))
  const added = await api.post(`/threads/${fork.id}/messages`, { role: 'user', content: 'Free' })
  expect(added.status).toBe(200)
})

test('what is being written is not in a fork, nor can it be forked at', async () => {
  const { model } = server
  model.script(stallAfter(2, 'Begun and then done'))
  const assistant = await api.make('/assistants', { model: 'm' })
  const thread = await api.make('/threads', { messages: [{ role: 'user', content: 'Begin' }] })
  const calls = model.calls
  const run = await api.make(`/threads/${thread.id}/runs`, { assistant_id: assistant.id })
  const request = await model.called(calls + 1)
  await model.tokensOut(request, 2)
  const writing = await writtenIn(thread)
  const at = await api.post(`/threads/${thread.id}/fork`, { message_id: writing.id })
  expect(refusal(at)).toMatchObject({ status: 400, param: 'message_id' })
  const fork = await api.make(`/threads/${thread.id}/fork`)
  request.release()
  await api.settled(thread.id, run.id)
  expect(said(await messagesOf(fork))).toEqual(said(await messagesOf(thread)).slice(0, 1))
})

test('what is not there cannot be forked', async () => {
  const [one, other] = [await conversation(), await conversation()]
  const [message] = await messagesOf(other)
  expect(refusal(await api.post(`/threads/${one.id}/fork`, { message_id: message?.id }))).toEqual(
    refused(404, `No message found with id '${message?.id}'.`),
  )
  expect(refusal(await api.post('/threads/thread_nobody/fork'))).toEqual(
    refused(404, "No thread found with id 'thread_nobody'."),
  )
  expect(refusal(await api.post(`/threads/${one.id}/fork`, { at: 'x' }))).toEqual(
    refused(400, "Unknown parameter: 'at'.", 'at', 'unknown_parameter'),
  )
})

test('a fork of twenty thousand messages has them all, in order', async () => {
  const messages = Array.from({ length: 20_000 }, (_, n) => ({ role: 'user', content: `${n}` }))
  const id = 'thread_of20000'
  const raw = JSON.stringify({ id, messages })
  expect((await api.post('/threads/import', undefined, { raw })).body['imported']).toBe(1)
  const fork = await api.make(`/threads/${id}/fork`)
  const lines = (await api.get('/export')).text.split('\n')
  const copies = lines.filter((line) => line.includes(`"${fork.id}"`)).flatMap(messagesIn)
  expect(copies.map(({ content: [{ text }] }) => text.value)).toEqual(
    messages.map(({ content }) => content),
  )
})

type Copy = { content: [{ text: { value: string } }] }

/** Of a line of an export. */
function messagesIn(line: string): Copy[] {
  return (JSON.parse(line) as { messages: Copy[] }).messages
}
