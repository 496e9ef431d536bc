import { Client } from 'pg'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'

import { call, say } from '../support/model.ts'
import { startServer, type TestServer } from '../support/server.ts'
import { createCaller, refusal, refused, type Body, type Caller } from './caller.ts'

let server: TestServer
let api: Caller
beforeAll(async () => {
  server = await startServer()
  server.model.respond(() => say('Certainly.'))
  api = createCaller(server)
})
afterAll(() => server[Symbol.asyncDispose]())

/** The ids that a query finds, of those threads that a test has made under its own tag. */
async function found(tag: string, query = ''): Promise<string[]> {
  const { data } = await api.read(`/threads?metadata[tag]=${tag}&${query}`)
  return data.map(({ id }) => id)
}

async function several(tag: string, count: number): Promise<string[]> {
  const ids: string[] = []
  for (let n = 0; n < count; n += 1) {
    ids.push((await api.make('/threads', { metadata: { tag, n: `${n}` } })).id)
  }
  return ids
}

async function imported(threads: object[]): Promise<Body> {
  const raw = threads.map((thread) => JSON.stringify({ messages: [], ...thread })).join('\n')
  const { body } = await api.post('/threads/import', undefined, { raw })
  expect(body).toMatchObject({ imported: threads.length, failed: 0 })
  return body
}

describe('the list of threads', () => {
  test('has the newest first, each as it is retrieved, and the oldest where that is asked for', async () => {
    const ids = await several('order', 3)
    const { data } = await api.read('/threads?metadata[tag]=order')
    expect(data.map(({ id }) => id)).toEqual(ids.toReversed())
    expect(data[0]).toEqual(await api.read(`/threads/${ids[2]}`))
    expect(await found('order', 'order=asc')).toEqual(ids)
  })

  test('says where it begins and ends, and whether there is more', async () => {
    const [first, second, third] = await several('envelope', 3)
    const page = await api.read('/threads?metadata[tag]=envelope&limit=2')
    expect(page).toMatchObject({
      object: 'list',
      first_id: third,
      last_id: second,
      has_more: true,
    })
    const rest = await api.read(`/threads?metadata[tag]=envelope&limit=2&after=${second}`)
    expect(rest).toMatchObject({ first_id: first, last_id: first, has_more: false })
    expect(await api.read('/threads?metadata[tag]=nothing')).toEqual({
      object: 'list',
      data: [],
      first_id: null,
      last_id: null,
      has_more: false,
    })
  })

  test.each(['asc', 'desc'])('is read whole by following `after`, %s', async (order) => {
    const ids = await several(`pages-${order}`, 5)
    const seen: string[] = []
    for (let after = ''; ;) {
      const query = `metadata[tag]=pages-${order}&order=${order}&limit=2&after=${after}`
      const { data, has_more, last_id } = await api.read(`/threads?${query}`)
      seen.push(...data.map(({ id }) => id))
      after = String(last_id)
      if (has_more !== true) break
    }
    expect(seen).toEqual(order === 'asc' ? ids : ids.toReversed())
  })

  test('gives the page that precedes `before`', async () => {
    const [, second, third, fourth] = await several('before', 4)
    expect(await found('before', `order=asc&limit=2&before=${fourth}`)).toEqual([second, third])
    expect(await found('before', `limit=2&before=${second}`)).toEqual([fourth, third])
  })

  test('puts imported threads where their time puts them, and those of one second in the order of their lines', async () => {
    const at = (created_at: number, n: number) => ({
      created_at,
      metadata: { tag: 'times', n: `${n}` },
    })
    await imported([at(2_000, 3), at(1_000, 1), at(1_000, 2)])
    await api.make('/threads', { metadata: { tag: 'times', n: '4' } })
    const { data } = await api.read('/threads?metadata[tag]=times&order=asc')
    expect(data.map(({ metadata }) => (metadata as { n: string }).n)).toEqual(['1', '2', '3', '4'])
  })

  test('refuses what it does not know', async () => {
    expect(refusal(await api.get('/threads?page=2'))).toEqual(
      refused(400, "Unknown parameter: 'page'.", 'page', 'unknown_parameter'),
    )
    expect(refusal(await api.get('/threads?after=thread_nobody'))).toMatchObject({
      status: 400,
      param: 'after',
    })
    expect(refusal(await api.get('/threads?has_active_run=maybe'))).toMatchObject({
      status: 400,
      param: 'has_active_run',
    })
    expect(refusal(await api.get('/threads?created_after=today'))).toMatchObject({
      status: 400,
      param: 'created_after',
    })
    expect(refusal(await api.get('/threads?metadata[a]=1&metadata[a]=2'))).toMatchObject({
      status: 400,
      param: 'metadata.a',
    })
    expect(refusal(await api.get('/threads?q=%3F%21'))).toMatchObject({ status: 400, param: 'q' })
  })
})

describe('threads are found', () => {
  test('by metadata, all pairs of which must be equal', async () => {
    const make = async (metadata: object) => (await api.make('/threads', { metadata })).id
    const both = await make({ tag: 'metadata', team: 'a', 'the "level"': '1' })
    const other = await make({ tag: 'metadata', team: 'a', 'the "level"': '10' })
    expect(await found('metadata', 'metadata[team]=a')).toEqual([other, both])
    const level = encodeURIComponent('metadata[the "level"]')
    expect(await found('metadata', `metadata[team]=a&${level}=1`)).toEqual([both])
    expect(await found('metadata', 'metadata[team]=A')).toEqual([])
    await api.make(`/threads/${both}`, { metadata: { team: 'b' } })
    expect(await found('metadata', 'metadata[team]=b')).toEqual([both])
  })

  test('by the time of their making, both bounds exclusive', async () => {
    const at = (created_at: number) => ({
      created_at,
      metadata: { tag: 'range', at: `${created_at}` },
    })
    await imported([at(100), at(101), at(102), at(103)])
    const times = async (query: string) => {
      const { data } = await api.read(`/threads?metadata[tag]=range&order=asc&${query}`)
      return data.map(({ created_at }) => created_at)
    }
    expect(await times('created_after=101')).toEqual([102, 103])
    expect(await times('created_before=102')).toEqual([100, 101])
    expect(await times('created_after=100&created_before=103')).toEqual([101, 102])
    const end = 253_402_300_799
    expect(await times(`created_after=${end}`)).toEqual([])
    expect(await times(`created_before=${end}`)).toEqual([100, 101, 102, 103])
  })

  test('by words in their messages, whoever wrote them, in any order and case', async () => {
    const make = async (...texts: string[]) => {
      const messages = texts.map((content) => ({ role: 'user', content }))
      return (await api.make('/threads', { metadata: { tag: 'words' }, messages })).id
    }
    const one = await make("The Übergrößenträger's invoice number is ZX-4711.", 'Thanks!')
    const two = await make('Which invoice?', 'The number, please.')
    expect(await found('words', 'q=invoice')).toEqual([two, one])
    expect(await found('words', 'q=NUMBER+invoice')).toEqual([one])
    expect(await found('words', `q=${encodeURIComponent("übergrößenträger's")}`)).toEqual([one])
    expect(await found('words', 'q=zx-4711')).toEqual([one])
    expect(await found('words', 'q=receipt')).toEqual([])
    const { data } = await api.read(`/threads/${two}/messages?order=asc`)
    await api.delete(`/threads/${two}/messages/${data[0]?.id}`)
    expect(await found('words', 'q=invoice')).toEqual([one])
  })

  test('by the beginning of a text, if it is very long', async () => {
    const letters = 'abcdefghij'
    const word = (n: number) => `${n}`.replaceAll(/\d/g, (digit) => letters.charAt(Number(digit)))
    const many = Array.from({ length: 40_000 }, (_, n) => `${word(n)}-𐐀`).join(' ')
    const texts = [
      `${'w'.repeat(2046)} ${'x'.repeat(2045)} beginning`,
      many.slice(0, 250_000),
      '𐐀𐐁-𐐂 '.repeat(40_000),
    ]
    const messages = texts.map((content) => ({ role: 'user', content }))
    const { id } = await api.make('/threads', { metadata: { tag: 'long' }, messages })
    expect(await found('long', 'q=beginning')).toEqual([id])
    expect(await found('long', `q=${word(77)}`)).toEqual([id])
    // What no person would call a word is in no message.
    expect(await found('long', `q=${encodeURIComponent('𐐀'.repeat(510))}`)).toEqual([])
    expect(await found('long', `q=beginning+${'w'.repeat(500)}`)).toEqual([])
  })

  test('by what a run has answered in them', async () => {
    server.model.script(say('The capital is Ouagadougou.'))
    const assistant = await api.make('/assistants', { model: 'm' })
    const thread = await api.make('/threads', { metadata: { tag: 'answers' } })
    const run = await api.make(`/threads/${thread.id}/runs`, { assistant_id: assistant.id })
    await api.settled(thread.id, run.id)
    expect(await found('answers', 'q=ouagadougou')).toEqual([thread.id])
  })

  test('by the assistant of their runs, even after its end', async () => {
    const [mine, others] = await Promise.all(
      [1, 2].map(() => api.make('/assistants', { model: 'm' })),
    )
    const runOf = async (assistant: Body | undefined) => {
      const thread = { metadata: { tag: 'assistant' } }
      const run = await api.make('/threads/runs', { assistant_id: assistant?.id, thread })
      await api.settled(run['thread_id'], run.id)
      return run['thread_id']
    }
    const thread = await runOf(mine)
    await runOf(others)
    await several('assistant', 1)
    await api.delete(`/assistants/${mine?.id}`)
    expect(await found('assistant', `assistant_id=${mine?.id}`)).toEqual([thread])
  })

  test('by whether a run is active in them', async () => {
    server.model.script(call({ name: 'f', arguments: {} }))
    const tools = [{ type: 'function', function: { name: 'f' } }]
    const assistant = await api.make('/assistants', { model: 'm', tools })
    const [idle] = await several('active', 1)
    const busy = await api.make('/threads', { metadata: { tag: 'active' } })
    const run = await api.make(`/threads/${busy.id}/runs`, { assistant_id: assistant.id })
    await api.settled(busy.id, run.id)
    expect(await found('active', 'has_active_run=true')).toEqual([busy.id])
    expect(await found('active', 'has_active_run=false')).toEqual([idle])
    await api.make(`/threads/${busy.id}/runs/${run.id}/cancel`)
    expect(await found('active', 'has_active_run=true')).toEqual([])
    expect(await found('active', 'has_active_run=false')).toEqual([busy.id, idle])
  })

  test('or the search is given up, however it is carried out', async () => {
    const client = new Client({ connectionString: server.databaseUrl })
    await client.connect()
    // Nobody gets past it, not even who looks at a few threads only.
    await client.query('BEGIN; LOCK TABLE threads IN ACCESS EXCLUSIVE MODE')
    const answer = await api.get('/threads?metadata[tag]=anything')
    await client.end()
    expect(refusal(answer)).toMatchObject({ status: 400, code: 'search_too_wide' })
  })

  test('wherever in a long list they are, by each filter and by all at once', async () => {
    const assistant = await api.make('/assistants', { model: 'm' })
    const needle = await api.make('/threads', {
      metadata: { tag: 'needle', rare: 'yes' },
      messages: [{ role: 'user', content: 'A needle, and hay too.' }],
    })
    const run = await api.make(`/threads/${needle.id}/runs`, { assistant_id: assistant.id })
    await api.settled(needle.id, run.id)
    // More than are looked through in passing.
    const hay = { metadata: { tag: 'hay' }, messages: [{ role: 'user', content: 'Hay.' }] }
    await imported(Array.from({ length: 700 }, () => hay))
    const filters = ['metadata[rare]=yes', 'q=needle', `assistant_id=${assistant.id}`]
    for (const query of [...filters, filters.join('&'), `${filters[0]}&q=hay`]) {
      const { data, has_more } = await api.read(`/threads?${query}`)
      expect(data.map(({ id }) => id)).toEqual([needle.id])
      expect(has_more).toBe(false)
    }
    const first = await api.read('/threads?q=hay&order=asc&limit=1')
    expect(first).toMatchObject({ first_id: needle.id, has_more: true })
    const last = await api.read(`/threads?q=hay&after=${needle.id}`)
    expect(last).toMatchObject({ data: [], has_more: false })
  })

  test('where they are many, and all older than a long way of others', async () => {
    const client = new Client({ connectionString: server.databaseUrl })
    await client.connect()
    const [project] = (await client.query<{ id: string }>('SELECT id FROM projects LIMIT 1')).rows
    const content = `'[{"type": "text", "text": {"value": "Old corn", "annotations": []}}]'`
    // Made by SQL, since there must be thousands of them.
    await client.query(
      `INSERT INTO threads (id, project_id, created_at, tool_resources, metadata)
       SELECT 'thread_field' || n, $1, to_timestamp(n),
         '{}', CASE WHEN n <= 3000 THEN '{"crop": "corn"}' ELSE '{}' END::jsonb
       FROM generate_series(1, 20000) n`,
      [project?.id],
    )
    await client.query(
      `INSERT INTO messages (id, project_id, thread_id, role, status, content, attachments, metadata)
       SELECT 'msg_field' || n, $1, 'thread_field' || n, 'user', 'completed', ${content}, '[]', '{}'
       FROM generate_series(1, 2500) n`,
      [project?.id],
    )
    await client.end()
    const before = 'created_before=30000'
    const newest = async (query: string) =>
      (await api.read(`/threads?${before}&limit=2&${query}`)).data.map(({ id }) => id)
    expect(await newest('metadata[crop]=corn')).toEqual(['thread_field3000', 'thread_field2999'])
    expect(await newest('q=corn')).toEqual(['thread_field2500', 'thread_field2499'])
    expect(await newest('q=corn&metadata[crop]=corn')).toEqual([
      'thread_field2500',
      'thread_field2499',
    ])
    const [, last] = await newest('q=corn')
    expect(await newest(`q=corn&after=${last}`)).toEqual(['thread_field2498', 'thread_field2497'])
  })
})
