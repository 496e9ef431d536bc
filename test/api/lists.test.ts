import { toFile } from 'openai'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'

import { call, say } from '../support/model.ts'
import { startServer, type TestServer } from '../support/server.ts'
import { createCaller, refusal, refused, type Body, type Caller } from './caller.ts'

let server: TestServer
let api: Caller
beforeAll(async () => {
  server = await startServer()
  server.model.respond(() => say('Yes.'))
  api = createCaller(server)
})
afterAll(() => server[Symbol.asyncDispose]())

/** Lists of five or more, each with the path to it and its ids in the order of their making. */
interface Listed {
  path: string
  ids: string[]
  /** Makes one more, or undefined where a client cannot. */
  add: (() => Promise<string>) | undefined
}

const kinds: [string, () => Promise<Listed>][] = [
  ['assistants', assistants],
  ['messages', messages],
  ['runs', runs],
  ['run steps', steps],
]

describe.each(kinds)('the list of %s', (_, make) => {
  let list: Listed
  beforeAll(async () => {
    list = await make()
  })
  const page = (query: string) => api.read(`${list.path}?${query}`)
  const newestFirst = () => list.ids.toReversed()

  test('has the newest first, and the oldest where that is asked for', async () => {
    expect(idsOf(await page(''))).toEqual(newestFirst())
    expect(idsOf(await page('order=asc'))).toEqual(list.ids)
  })

  test('says where it begins, where it ends, and whether there is more', async () => {
    const [first, second] = newestFirst()
    expect(await page('limit=2')).toMatchObject({
      object: 'list',
      first_id: first,
      last_id: second,
      has_more: true,
    })
    expect((await page(`limit=${list.ids.length}`))['has_more']).toBe(false)
    expect((await page(`limit=${list.ids.length - 1}`))['has_more']).toBe(true)
  })

  test.each(['asc', 'desc'])('is read whole by following `after`, %s', async (order) => {
    const seen: string[] = []
    for (let after = ''; ;) {
      const { data, has_more, last_id } = await page(`order=${order}&limit=2&after=${after}`)
      seen.push(...data.map(({ id }) => id))
      if (has_more !== true) break
      after = String(last_id)
    }
    expect(seen).toEqual(order === 'asc' ? list.ids : newestFirst())
  })

  test.each(['asc', 'desc'])('has the page that precedes `before`, %s', async (order) => {
    const all = order === 'asc' ? list.ids : newestFirst()
    const near = await page(`order=${order}&limit=2&before=${all[3]}`)
    expect(idsOf(near)).toEqual(all.slice(1, 3))
    expect(near['has_more']).toBe(true)
    const edge = await page(`order=${order}&limit=3&before=${all[2]}`)
    expect(idsOf(edge)).toEqual(all.slice(0, 2))
    expect(edge['has_more']).toBe(false)
    expect(idsOf(await page(`order=${order}&before=${all[0]}`))).toEqual([])
  })

  test('has what lies between `after` and `before`', async () => {
    const all = newestFirst()
    expect(idsOf(await page(`after=${all[0]}&before=${all[4]}`))).toEqual(all.slice(1, 4))
    expect(idsOf(await page(`after=${all[0]}&before=${all[4]}&limit=2`))).toEqual(all.slice(1, 3))
    expect(idsOf(await page(`after=${all[3]}&before=${all[1]}`))).toEqual([])
  })

  test('has an empty page after its last item, with null for its ends', async () => {
    expect(await page(`after=${list.ids[0]}`)).toEqual({
      object: 'list',
      data: [],
      first_id: null,
      last_id: null,
      has_more: false,
    })
  })

  test.each(['after', 'before'])('refuses an id for `%s` that is not in it', async (name) => {
    const answer = await api.get(`${list.path}?${name}=msg_nobody`)
    expect(refusal(answer)).toMatchObject({ status: 400, param: name, code: 'invalid_value' })
    expect(answer.body.error.message).toContain("'msg_nobody'")
  })

  test('neither repeats nor leaves out items when others are added while it is read', async () => {
    const { add } = list
    const [before, first] = [newestFirst(), await page('limit=2')]
    if (add) list.ids.push(await add())
    const rest = await page(`limit=100&after=${String(first['last_id'])}`)
    expect([...idsOf(first), ...idsOf(rest)]).toEqual(before)
    expect(idsOf(await page('order=desc&limit=100'))).toEqual(newestFirst())
  })

  test.each([
    ['limit=0', 'integer below minimum value. Expected a value >= 1, but got 0 instead.'],
    ['limit=101', 'integer above maximum value. Expected a value <= 100, but got 101 instead.'],
  ])('refuses %s', async (query, rule) => {
    const answer = await api.get(`${list.path}?${query}`)
    expect(refusal(answer)).toMatchObject({ status: 400, param: 'limit' })
    expect(answer.body.error.message).toBe(`Invalid 'limit': ${rule}`)
  })

  test('refuses an order and a key that it does not know', async () => {
    expect(refusal(await api.get(`${list.path}?order=up`))).toEqual(
      refused(
        400,
        "Invalid value: 'up'. Supported values are: 'asc' and 'desc'.",
        'order',
        'invalid_value',
      ),
    )
    expect(refusal(await api.get(`${list.path}?page=2`))).toEqual(
      refused(400, "Unknown parameter: 'page'.", 'page', 'unknown_parameter'),
    )
  })
})

test('a page holds twenty items unless asked otherwise, and a hundred at most', async () => {
  const thread = await api.make('/threads', {
    messages: Array.from({ length: 101 }, (_, n) => ({ role: 'user', content: `${n}` })),
  })
  const path = `/threads/${thread.id}/messages`
  expect((await api.read(path)).data).toHaveLength(20)
  const whole = await api.read(`${path}?limit=100`)
  expect(whole.data).toHaveLength(100)
  expect(whole['has_more']).toBe(true)
})

test('the messages of one run can be asked for, in pages too', async () => {
  const { id: threadId } = await api.make('/threads')
  const assistant = await api.make('/assistants', { model: 'm' })
  const path = `/threads/${threadId}`
  const make = async (content: string) => {
    await api.make(`${path}/messages`, { role: 'user', content })
    return runToEnd(threadId, assistant.id)
  }
  const [first, second] = [await make('1'), await make('2')]
  const ofRun = (id: string) => api.read(`${path}/messages?run_id=${id}`)
  const [answer] = (await ofRun(first)).data
  expect(answer).toMatchObject({ run_id: first, role: 'assistant' })
  expect(idsOf(await ofRun(first))).toHaveLength(1)
  expect(idsOf(await ofRun(second))).not.toContain(answer?.id)
  expect(idsOf(await api.read(`${path}/messages?run_id=${second}&after=`))).toHaveLength(1)
  // A cursor of this thread, but not of this run's messages.
  expect((await api.get(`${path}/messages?run_id=${second}&after=${answer?.id}`)).status).toBe(400)
  expect(idsOf(await ofRun('run_nobody'))).toEqual([])
})

test('lists of nothing are empty pages', async () => {
  const { id } = await api.make('/threads')
  const empty = { object: 'list', data: [], first_id: null, last_id: null, has_more: false }
  expect(await api.read(`/threads/${id}/messages`)).toEqual(empty)
  expect(await api.read(`/threads/${id}/runs`)).toEqual(empty)
})

test('an id of one thread is no cursor in the list of another', async () => {
  const [one, other] = await Promise.all([messages(), messages()])
  const answer = await api.get(`${one.path}?after=${other.ids[0]}`)
  expect(refusal(answer)).toMatchObject({ status: 400, param: 'after' })
})

async function assistants(): Promise<Listed> {
  const add = async () => (await api.make('/assistants', { model: 'm' })).id
  return { path: '/assistants', ids: await several(add), add }
}

async function messages(): Promise<Listed> {
  const { id } = await api.make('/threads')
  const path = `/threads/${id}/messages`
  const add = async () => (await api.make(path, { role: 'user', content: 'Hi' })).id
  return { path, ids: await several(add), add }
}

async function runs(): Promise<Listed> {
  const { id: threadId } = await api.make('/threads')
  const assistant = await api.make('/assistants', { model: 'm' })
  const add = () => runToEnd(threadId, assistant.id)
  const listed = { path: `/threads/${threadId}/runs`, ids: await several(add), add }
  // It is not to be in the list of assistants.
  await api.delete(`/assistants/${assistant.id}`)
  return { ...listed, add: undefined }
}

/** The steps of a run whose model calls tools that are not there, one after the other, and gives up. */
async function steps(): Promise<Listed> {
  const { model } = server
  for (let n = 0; n < 4; n += 1) model.script(call({ name: `nothing_${n}`, arguments: {} }))
  const assistant = await api.make('/assistants', { model: 'm' })
  const run = await api.make('/threads/runs', { assistant_id: assistant.id })
  const threadId = String(run['thread_id'])
  const { status } = await api.settled(threadId, run.id)
  expect(status).toBe('completed')
  await api.delete(`/assistants/${assistant.id}`)
  const path = `/threads/${threadId}/runs/${run.id}/steps`
  const { data } = await api.read(`${path}?order=asc`)
  // The order is known from what they did: four calls, numbered, and the answer.
  const numbered = data.toSorted((a, b) => numberOf(a) - numberOf(b))
  return { path, ids: numbered.map(({ id }) => id), add: undefined }
}

function numberOf(step: Body): number {
  const details = step['step_details'] as { tool_calls?: { function: { arguments: string } }[] }
  const args = details.tool_calls?.[0]?.function.arguments
  return args === undefined ? Infinity : (JSON.parse(args) as { n: number }).n
}

async function runToEnd(threadId: string, assistantId: string): Promise<string> {
  const { id } = await api.make(`/threads/${threadId}/runs`, { assistant_id: assistantId })
  const run = await api.settled(threadId, id)
  expect(run['status']).toBe('completed')
  return id
}

async function several(add: () => Promise<string>): Promise<string[]> {
  const ids: string[] = []
  for (let n = 0; n < 5; n += 1) ids.push(await add())
  return ids
}

function idsOf(page: Body): string[] {
  return page.data.map(({ id }) => id)
}

test('who deletes what a list shows goes on where the deleted object stood', async () => {
  const { id: thread } = await api.make('/threads')
  const lists = [
    { path: '/assistants', make: () => api.make('/assistants', { model: 'm' }) },
    { path: '/threads', make: () => api.make('/threads') },
    {
      path: `/threads/${thread}/messages`,
      make: () => api.make(`/threads/${thread}/messages`, { role: 'user', content: 'x' }),
    },
    {
      path: '/files',
      make: async () =>
        server.client.files.create({
          file: await toFile(Buffer.from('x'), 'x.txt'),
          purpose: 'assistants',
        }),
    },
  ]
  for (const { path, make } of lists) {
    const [first, second, third] = [await make(), await make(), await make()]
    await api.delete(`${path}/${third.id}`)
    await api.delete(`${path}/${second.id}`)
    expect((await api.read(`${path}?limit=1&after=${second.id}`)).data[0]?.id).toBe(first.id)
    expect((await api.read(`${path}?limit=1&after=${third.id}`)).data[0]?.id).toBe(first.id)
    // In no other list does it have a place.
    const other = path === '/assistants' ? `/threads/${thread}/messages` : '/assistants'
    expect((await api.get(`${other}?after=${second.id}`)).status).toBe(400)
  }
})
