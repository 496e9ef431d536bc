import { mkdtemp, writeFile } from 'node:fs/promises'
import { join } from 'node:path'

import { afterAll, beforeAll, beforeEach, describe, expect, inject, test } from 'vitest'

import { countTokens } from '../../tokens.ts'
import { queryOnce } from '../support/cluster.ts'
import {
  call,
  say,
  startScriptedModel,
  type ScriptedModel,
  type ModelRequest,
} from '../support/model.ts'
import { startServer, type TestServer } from '../support/server.ts'
import { createCaller, type Body, type Caller } from './caller.ts'
import { field, filePart, form } from './form.ts'

let model: ScriptedModel
let server: TestServer
let api: Caller

beforeAll(async () => {
  model = await startScriptedModel()
  const models = [
    { name: 'large', base_url: model.url },
    { name: 'small', base_url: model.url, context_size: 1000 },
    { name: 'blind', base_url: model.url, quirks: { no_images: true } },
  ]
  const file = join(await mkdtemp(join(inject('testDir'), 'models-')), 'models.json')
  await writeFile(file, JSON.stringify({ models }))
  server = await startServer({ MODELS_FILE: file })
  api = createCaller(server)
})
afterAll(async () => {
  await server[Symbol.asyncDispose]()
  await model[Symbol.asyncDispose]()
})
beforeEach(() => model.respond(() => say('Seen.')))

const note = {
  type: 'function',
  function: { name: 'note', parameters: { type: 'object', properties: {} } },
}

/** About 24 tokens, and the number of the message first. */
const sentence = (n: number) => `${n}:${' apple'.repeat(22)}`

/** A thread of so many messages, from 1 on, by the user and the assistant in turn; the last is the user's. */
async function threadOf(count: number, text = sentence): Promise<string> {
  const { id } = await api.make('/threads')
  await queryOnce(
    server.databaseUrl,
    `INSERT INTO messages (id, project_id, thread_id, role, status, content, attachments, metadata)
     SELECT 'msg_' || $1 || '_' || n, t.project_id, t.id,
       CASE WHEN (cardinality($2::text[]) - n) % 2 = 0 THEN 'user' ELSE 'assistant' END, 'completed',
       jsonb_build_array(jsonb_build_object('type', 'text', 'text',
         jsonb_build_object('value', said, 'annotations', '[]'::jsonb))), '[]', '{}'
     FROM threads t, unnest($2::text[]) WITH ORDINALITY AS given (said, n)
     WHERE t.id = $1 ORDER BY n`,
    [id, Array.from({ length: count }, (_, index) => text(index + 1))],
  )
  return id
}

/** Creates a run and waits until it has settled. */
async function run(threadId: string, settings: object = {}): Promise<Body> {
  const { id: assistant_id } = await api.make('/assistants', { model: 'large' })
  const { id } = await api.make(`/threads/${threadId}/runs`, { assistant_id, ...settings })
  return api.settled(threadId, id)
}

async function submit(threadId: string, waiting: Body, output: string): Promise<Body> {
  const action = waiting['required_action'] as {
    submit_tool_outputs: { tool_calls: { id: string }[] }
  }
  await api.make(`/threads/${threadId}/runs/${waiting.id}/submit_tool_outputs`, {
    tool_outputs: action.submit_tool_outputs.tool_calls.map(({ id }) => ({
      tool_call_id: id,
      output,
    })),
  })
  return api.settled(threadId, waiting.id)
}

/** The newest request to the model. */
function asked(): ModelRequest {
  const request = model.requests.at(-1)
  if (!request) throw new Error('The model was not asked')
  return request
}

function texts({ body }: ModelRequest): string[] {
  return body.messages.map(({ content }) => (typeof content === 'string' ? content : ''))
}

/** The numbers of the messages that were shown. */
function numbers(request: ModelRequest): number[] {
  return texts(request)
    .flatMap((text) => /^(\d+):/.exec(text)?.[1] ?? [])
    .map(Number)
}

async function tokensOf(request: ModelRequest): Promise<number> {
  return countTokens(JSON.stringify([request.body.messages.map(({ content }) => content)]))
}

function droppedOf(body: Body): unknown {
  return (body['longrun'] as { context: unknown }).context
}

function rising(some: number[]): number[] {
  return [...new Set(some)].toSorted((a, b) => a - b)
}

describe('a thread that does not fit into the context of the model', () => {
  test('loses its middle, and the run says how much', async () => {
    const over = await run(await threadOf(60), { model: 'small' })
    expect(over['status']).toBe('completed')
    const shown = numbers(asked())
    expect(shown).toEqual(rising(shown))
    expect(shown[0]).toBe(1)
    expect(shown.slice(-3)).toEqual([58, 59, 60])
    expect(await tokensOf(asked())).toBeLessThan(1000)
    expect(droppedOf(over)).toEqual({ dropped_messages: 60 - shown.length, dropped_tool_calls: 0 })
    const gaps = shown.filter((n, index) => index > 0 && n !== (shown[index - 1] ?? 0) + 1)
    expect(gaps).toHaveLength(1)
  })

  test('is cut alike when it is far longer than what is read of it', async () => {
    const over = await run(await threadOf(20_000), { model: 'small' })
    const shown = numbers(asked())
    expect(shown).toEqual(rising(shown))
    expect(shown[0]).toBe(1)
    expect(shown.at(-1)).toBe(20_000)
    expect(droppedOf(over)).toEqual({
      dropped_messages: 20_000 - shown.length,
      dropped_tool_calls: 0,
    })
  })

  test('is read page by page where the context is large', async () => {
    const over = await run(await threadOf(6000, (n) => `${n}:${' apple'.repeat(100)}`))
    const shown = numbers(asked())
    expect(shown).toEqual(rising(shown))
    expect(shown[0]).toBe(1)
    expect(shown.at(-1)).toBe(6000)
    // Three quarters of the 128,000 tokens that are not kept free for the answer, at a little over 100 each.
    expect(shown.length).toBeGreaterThan(700)
    expect(droppedOf(over)).toMatchObject({ dropped_messages: 6000 - shown.length })
  })

  test('keeps its last message, which the endpoint may then refuse', async () => {
    const over = await run(await threadOf(3, (n) => `${n}:${' apple'.repeat(2000)}`), {
      model: 'small',
    })
    expect(over['status']).toBe('completed')
    expect(numbers(asked())).toEqual([3])
    expect(droppedOf(over)).toEqual({ dropped_messages: 2, dropped_tool_calls: 0 })
  })

  test('begins alike from turn to turn, and grows at its end', async () => {
    const threadId = await threadOf(60)
    model.script(call({ name: 'note', arguments: {} }))
    const waiting = await run(threadId, { model: 'small', tools: [note] })
    const first = asked().body.messages
    const over = await submit(threadId, waiting, 'Noted.')
    expect(over['status']).toBe('completed')
    const second = asked().body.messages
    expect(second.slice(0, first.length)).toEqual(first)
    expect(second.slice(first.length).map(({ role }) => role)).toEqual(['assistant', 'tool'])
    expect(droppedOf(over)).toEqual(droppedOf(waiting))
  })

  test('begins alike from run to run, and grows at its end', async () => {
    const threadId = await threadOf(60)
    await run(threadId, { model: 'small' })
    const first = texts(asked())
    await api.make(`/threads/${threadId}/messages`, { role: 'user', content: 'And now?' })
    const over = await run(threadId, { model: 'small' })
    expect(texts(asked())).toEqual([...first, 'Seen.', 'And now?'])
    const shown = numbers(asked()).length
    expect(droppedOf(over)).toEqual({ dropped_messages: 60 - shown, dropped_tool_calls: 0 })
  })
})

describe('the number of messages that were left out', () => {
  const lastFive = { truncation_strategy: { type: 'last_messages', last_messages: 5 } }
  const dropped = (n: number) => ({ dropped_messages: n, dropped_tool_calls: 0 })

  async function post(threadId: string): Promise<Body> {
    return api.make(`/threads/${threadId}/messages`, { role: 'user', content: 'And now?' })
  }

  test('goes on from that of the run before, and old messages are not counted again', async () => {
    const threadId = await threadOf(60)
    expect(droppedOf(await run(threadId, lastFive))).toEqual(dropped(55))
    // Behind everybody's back: whoever counts them all again misses these.
    await queryOnce(
      server.databaseUrl,
      `DELETE FROM messages WHERE thread_id = $1 AND id LIKE '%\\_2_'`,
      [threadId],
    )
    await post(threadId)
    // 60 and the answer and the question, without the last five.
    expect(droppedOf(await run(threadId, lastFive))).toEqual(dropped(57))
    await post(threadId)
    const fewer = { truncation_strategy: { type: 'last_messages', last_messages: 30 } }
    expect(droppedOf(await run(threadId, fewer))).toEqual(dropped(64 - 30))
  })

  test('is counted anew where that of the run before is too old', async () => {
    const threadId = await threadOf(60)
    const before = await run(threadId, lastFive)
    const sql = `UPDATE runs SET context = context || '{"counted_at": "2020-01-01T00:00:00Z"}' WHERE id = $1`
    await queryOnce(server.databaseUrl, sql, [before.id])
    const direct = `DELETE FROM messages WHERE thread_id = $1 AND id LIKE '%\\_2_'`
    await queryOnce(server.databaseUrl, direct, [threadId])
    expect(droppedOf(await run(threadId, lastFive))).toEqual(dropped(46))
  })

  test('knows of messages that were deleted since', async () => {
    const threadId = await threadOf(60)
    await run(threadId, lastFive)
    for (const n of [3, 4, 59]) {
      expect((await api.delete(`/threads/${threadId}/messages/msg_${threadId}_${n}`)).status).toBe(
        200,
      )
    }
    await post(threadId)
    // Three of the 62 are gone.
    expect(droppedOf(await run(threadId, lastFive))).toEqual(dropped(54))
  })
})

test('a thread that fits is shown whole, and nothing is said of it', async () => {
  const over = await run(await threadOf(20), { model: 'small' })
  expect(numbers(asked())).toHaveLength(20)
  expect(droppedOf(over)).toBeNull()
})

test('tool calls of a long run are left out by whole turns, oldest first', async () => {
  const threadId = await threadOf(1)
  model.script(
    ...Array.from({ length: 6 }, () => call([1, 2].map(() => ({ name: 'note', arguments: {} })))),
  )
  let current = await run(threadId, { model: 'small', tools: [note] })
  for (let turn = 1; turn <= 6; turn += 1) {
    expect(current['status']).toBe('requires_action')
    current = await submit(threadId, current, `Turn ${turn}.${' apple'.repeat(90)}`)
  }
  expect(current['status']).toBe('completed')
  const { messages } = asked().body
  expect(numbers(asked())).toEqual([1])
  const outputs = messages.filter(({ role }) => role === 'tool')
  expect(outputs.at(-1)?.content).toMatch(/^Turn 6\./)
  const called = messages.flatMap(({ tool_calls }) => (tool_calls as { id: string }[]) ?? [])
  expect(outputs.map(({ tool_call_id }) => tool_call_id)).toEqual(called.map(({ id }) => id))
  expect(outputs.length).toBeLessThan(12)
  expect(droppedOf(current)).toEqual({
    dropped_messages: 0,
    dropped_tool_calls: 12 - outputs.length,
  })
})

describe('truncation_strategy last_messages', () => {
  const lastMessages = (n: number) => ({
    truncation_strategy: { type: 'last_messages', last_messages: n },
  })

  test('shows the newest messages alone, and says how many it left out', async () => {
    const over = await run(await threadOf(12), lastMessages(5))
    expect(numbers(asked())).toEqual([8, 9, 10, 11, 12])
    expect(droppedOf(over)).toEqual({ dropped_messages: 7, dropped_tool_calls: 0 })
  })

  test('says nothing where there are not as many', async () => {
    const over = await run(await threadOf(4), lastMessages(5))
    expect(numbers(asked())).toEqual([1, 2, 3, 4])
    expect(droppedOf(over)).toBeNull()
  })

  test('is not bound to a page', async () => {
    const over = await run(await threadOf(400, (n) => `${n}: x`), lastMessages(300))
    expect(numbers(asked())).toEqual(Array.from({ length: 300 }, (_, index) => 101 + index))
    expect(droppedOf(over)).toMatchObject({ dropped_messages: 100 })
  })

  test('drops from the middle of those that are asked for where they do not fit', async () => {
    const over = await run(await threadOf(100), { ...lastMessages(60), model: 'small' })
    const shown = numbers(asked())
    expect(shown[0]).toBe(41)
    expect(shown.at(-1)).toBe(100)
    expect(shown.length).toBeLessThan(60)
    expect(droppedOf(over)).toMatchObject({ dropped_messages: 100 - shown.length })
  })
})

describe('max_prompt_tokens and max_completion_tokens', () => {
  test('are for all calls of the run together', async () => {
    const threadId = await threadOf(40)
    model.script(
      call(
        { name: 'note', arguments: {} },
        { usage: { promptTokens: 200, completionTokens: 300 } },
      ),
    )
    const limits = { max_prompt_tokens: 500, max_completion_tokens: 1000 }
    const waiting = await run(threadId, { ...limits, tools: [note] })
    expect(asked().body['max_completion_tokens']).toBe(1000)
    expect(await tokensOf(asked())).toBeLessThanOrEqual(500)
    const shown = numbers(asked())
    expect(shown.length * 24).toBeGreaterThan(200)
    expect(shown.at(-1)).toBe(40)

    const over = await submit(threadId, waiting, 'Noted.')
    expect(over['status']).toBe('completed')
    expect(asked().body['max_completion_tokens']).toBe(700)
    expect(await tokensOf(asked())).toBeLessThanOrEqual(300)
    expect(numbers(asked()).at(-1)).toBe(40)
    expect(droppedOf(over)).toEqual({
      dropped_messages: 40 - numbers(asked()).length,
      dropped_tool_calls: 0,
    })
  })

  test('end a run as incomplete whose last message alone is too much, and no model is asked', async () => {
    const threadId = await threadOf(2, (n) => `${n}:${' apple'.repeat(300)}`)
    const before = model.calls
    const over = await run(threadId, { max_prompt_tokens: 200 })
    expect(over).toMatchObject({
      status: 'incomplete',
      incomplete_details: { reason: 'max_prompt_tokens' },
    })
    expect(model.calls).toBe(before)
  })

  test('end a run as incomplete whose outputs are too much for what is left', async () => {
    const threadId = await threadOf(1)
    model.script(
      call({ name: 'note', arguments: {} }, { usage: { promptTokens: 100, completionTokens: 10 } }),
    )
    const waiting = await run(threadId, { max_prompt_tokens: 400, tools: [note] })
    const before = model.calls
    const over = await submit(threadId, waiting, 'apple '.repeat(500))
    expect(over).toMatchObject({
      status: 'incomplete',
      incomplete_details: { reason: 'max_prompt_tokens' },
    })
    expect(model.calls).toBe(before)
  })
})

describe('an image of a message', () => {
  /** One red pixel. */
  const png = Buffer.from(
    'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg==',
    'base64',
  )

  async function upload(content: string | Uint8Array, name = 'a.png'): Promise<string> {
    const { raw, headers } = form([field('purpose', 'vision'), filePart(content, name)])
    const answer = await api.post('/files', undefined, { raw, headers })
    if (answer.status !== 200) throw new Error(answer.text)
    return answer.body.id
  }

  /** What the model is shown of a message that has a text and these files. */
  async function shownOf(
    fileIds: string[],
    { detail = 'auto', before = async () => {}, settings = {} } = {},
  ): Promise<Record<string, unknown>[]> {
    const content = [
      { type: 'text', text: 'What is it?' },
      ...fileIds.map((file_id) => ({ type: 'image_file', image_file: { file_id, detail } })),
    ]
    const { id } = await api.make('/threads', { messages: [{ role: 'user', content }] })
    await before()
    const over = await run(id, settings)
    expect(over['status']).toBe('completed')
    return asked().body.messages[0]?.content as Record<string, unknown>[]
  }

  const words = (text: RegExp) => ({ type: 'text', text: expect.stringMatching(text) as string })

  test('that was uploaded is shown with its bytes and its detail', async () => {
    const id = await upload(png)
    expect(await shownOf([id], { detail: 'low' })).toEqual([
      { type: 'text', text: 'What is it?' },
      {
        type: 'image_url',
        image_url: { url: `data:image/png;base64,${png.toString('base64')}`, detail: 'low' },
      },
    ])
  })

  test('is known by its bytes', async () => {
    const jpeg = Buffer.from([0xff, 0xd8, 0xff, 0xe0, 1, 2, 3])
    const gif = Buffer.from('GIF89a and more')
    const webp = Buffer.concat([
      Buffer.from('RIFF'),
      Buffer.from([1, 2, 10, 0xff]),
      Buffer.from('WEBPVP8 '),
    ])
    const ids = [await upload(jpeg), await upload(gif), await upload(webp)]
    const shown = await shownOf(ids)
    const urls = shown.slice(1).map(({ image_url }) => (image_url as { url: string }).url)
    expect(urls).toEqual([
      `data:image/jpeg;base64,${jpeg.toString('base64')}`,
      `data:image/gif;base64,${gif.toString('base64')}`,
      `data:image/webp;base64,${webp.toString('base64')}`,
    ])
  })

  test('that is gone is said to be, and the run goes on', async () => {
    const id = await upload(png)
    const before = async () => void (await api.delete(`/files/${id}`))
    expect((await shownOf([id], { before }))[1]).toEqual(words(/image.*deleted/))
  })

  test('that is none is said to be none', async () => {
    const id = await upload('just text', 'a.png')
    expect((await shownOf([id]))[1]).toEqual(words(/no PNG, JPEG, GIF or WebP/))
  })

  test('that is larger than endpoints take is said to be', async () => {
    const id = await upload(Buffer.concat([png, Buffer.alloc(20 * 1024 * 1024)]))
    expect((await shownOf([id]))[1]).toEqual(words(/larger than 20 MB/))
  })

  test('is left out where newer ones fill the prompt', async () => {
    const large = Buffer.concat([png, Buffer.alloc(18 * 1024 * 1024)])
    const ids = [await upload(large), await upload(large), await upload(large)]
    const shown = await shownOf(ids)
    expect(shown.map(({ type }) => type)).toEqual(['text', 'text', 'image_url', 'image_url'])
    expect(shown[1]).toEqual(words(/left out/))
  })

  test('is said to have been there to a model that cannot see', async () => {
    const id = await upload(png)
    expect((await shownOf([id], { settings: { model: 'blind' } }))[1]).toEqual(words(/cannot see/))
  })

  test('that is a URL is passed on', async () => {
    const image_url = { url: 'https://example.com/a.png', detail: 'high' }
    const content = [{ type: 'image_url', image_url }]
    const { id } = await api.make('/threads', { messages: [{ role: 'user', content }] })
    await run(id)
    expect(asked().body.messages[0]?.content).toEqual([{ type: 'image_url', image_url }])
  })
})

describe('what a run says goes before its assistant', () => {
  const assistant = { model: 'large', instructions: 'Be brief.', temperature: 0.1, tools: [note] }

  async function runOf(settings: object): Promise<ModelRequest> {
    const { id: assistant_id } = await api.make('/assistants', assistant)
    const { id } = await api.make('/threads', { messages: [{ role: 'user', content: 'Hi' }] })
    const over = await run(id, { assistant_id, ...settings })
    expect(over['status']).toBe('completed')
    return asked()
  }

  test('in model, instructions, tools and settings', async () => {
    const { body } = await runOf({
      model: 'small',
      instructions: 'Be kind.',
      tools: [],
      temperature: 0.7,
    })
    expect(body).toMatchObject({ model: 'small', temperature: 0.7 })
    expect(body).not.toHaveProperty('tools')
    expect(body.messages).toEqual([
      { role: 'system', content: 'Be kind.' },
      { role: 'user', content: 'Hi' },
    ])
  })

  test('and additional instructions follow them after one space', async () => {
    const { body } = await runOf({ additional_instructions: 'Speak of apples.' })
    expect(body.messages[0]).toEqual({ role: 'system', content: 'Be brief. Speak of apples.' })
  })

  test('and additional messages come last', async () => {
    const { body } = await runOf({
      additional_messages: [
        { role: 'assistant', content: 'Hello.' },
        { role: 'user', content: 'Which fruit?' },
      ],
    })
    expect(body.messages).toEqual([
      { role: 'system', content: 'Be brief.' },
      { role: 'user', content: 'Hi' },
      { role: 'assistant', content: 'Hello.' },
      { role: 'user', content: 'Which fruit?' },
    ])
  })
})
