import { spawnSync } from 'node:child_process'
import OpenAI from 'openai'
import { describe, expect, test } from 'vitest'
import { parseChatRequest, pieces } from '../../local/chat-completions.ts'
import { valueForSchema } from '../../local/demo-arguments.ts'
import { decide } from '../../local/demo-decision.ts'
import { startDemoModel } from '../../local/demo-model.ts'
import { findLinearEquation } from '../../local/linear-equation.ts'

const tool = (name: string, parameters: object = {}) => ({
  type: 'function' as const,
  function: { name, parameters: { type: 'object', ...parameters } },
})
const user = (content: unknown) => ({ role: 'user', content })
const called = (name: string, args: object = {}, id = `call_${name}`) => ({
  role: 'assistant',
  tool_calls: [{ id, type: 'function', function: { name, arguments: JSON.stringify(args) } }],
})
const result = (name: string, content: string) => ({
  role: 'tool',
  tool_call_id: `call_${name}`,
  content,
})
const decideOn = (messages: object[], rest: object = {}) =>
  decide(parseChatRequest({ model: 'any', messages, ...rest }))
const textFor = (messages: object[], rest: object = {}) => decideOn(messages, rest).text ?? ''
const callsFor = (messages: object[], rest: object = {}) =>
  decideOn(messages, rest).calls.map((one) => [one.name, JSON.parse(one.arguments) as unknown])

const WEATHER = tool('get_weather', {
  properties: {
    city: { type: 'string' },
    unit: { type: 'string', enum: ['celsius', 'fahrenheit'] },
    days: { type: 'integer', minimum: 1, maximum: 7 },
    note: { type: 'string' },
  },
  required: ['city', 'unit', 'days'],
})

describe('a plain message', () => {
  test('is quoted, after the words that say that this is a demo', () => {
    const text = textFor([{ role: 'system', content: 'Be brief.' }, user('Hello there')])
    expect(text).toMatch(/^\[demo model\] /)
    expect(text).toContain('Hello there')
    expect(text).toContain('Be brief.')
  })

  test('may be made of parts with images', () => {
    const image = { type: 'image_url', image_url: { url: 'data:image/png;base64,AA==' } }
    const text = textFor([user([{ type: 'text', text: 'Look' }, image, image])])
    expect(text).toContain('Look')
    expect(text).toContain('2 images')
  })

  test('may be missing or empty', () => {
    expect(textFor([{ role: 'system', content: 'Be brief.' }])).toMatch(/^\[demo model\] /)
    expect(textFor([user('')])).toMatch(/^\[demo model\] /)
  })

  test('gets a long answer when it asks to count', () => {
    expect(textFor([user('Please count to 300.')])).toMatch(/1 2 3 .* 299 300$/)
  })

  test('is answered in JSON when JSON is asked for', () => {
    const schema = {
      type: 'object',
      properties: { answer: { type: 'string' }, score: { type: 'number', minimum: 0, maximum: 1 } },
      required: ['answer', 'score'],
    }
    const response_format = { type: 'json_schema', json_schema: { name: 'a', schema } }
    const answer: unknown = JSON.parse(textFor([user('How sure?')], { response_format }))
    expect(answer).toEqual({ answer: '[demo model] How sure?', score: 1 })
    expect(
      JSON.parse(textFor([user('Hi')], { response_format: { type: 'json_object' } })),
    ).toHaveProperty('answer')
  })
})

describe('the code interpreter', () => {
  const tools = [tool('code_interpreter')]
  const equation = user('I need to solve the equation `3x + 11 = 14`. Can you help me?')

  test('gets the python block of the message as it is', () => {
    const message = user('Run this:\n```python\nprint(1)\n\nprint(2)\n```\nThanks')
    expect(callsFor([message], { tools })).toEqual([
      ['code_interpreter', { code: 'print(1)\n\nprint(2)' }],
    ])
  })

  test('gets python that solves the equation of the message', () => {
    const [first] = callsFor([equation], { tools })
    expect(first?.[0]).toBe('code_interpreter')
    expect(JSON.stringify(first?.[1])).toContain('3x + 11 = 14')
  })

  test('is left alone by a message without code, and when it is not there', () => {
    expect(callsFor([user('Hello, x = 5')], { tools })).toEqual([])
    expect(decideOn([equation]).text).toContain('x = 1')
  })

  test('is called once, and its output is reported with links to files that the code wrote', () => {
    const link = '[my out.csv](sandbox:/mnt/data/my out.csv)'
    const output = [
      "['printed']",
      '[Figure 1 was shown to the user.]',
      `[Wrote /mnt/data/my out.csv: link it as ${link}.]`,
    ]
    const text = textFor(
      [
        user('```py\nx\n```'),
        called('code_interpreter'),
        result('code_interpreter', output.join('\n')),
      ],
      { tools },
    )
    expect(text).toBe(
      `[demo model] The code interpreter ran the code. Its output:\n\n['printed']\n\nFiles: ${link}`,
    )
  })

  test('may print nothing', () => {
    const silent = result('code_interpreter', '[The code ran and printed nothing.]')
    const text = textFor([user('```py\nx = 1\n```'), called('code_interpreter'), silent], { tools })
    expect(text).toBe('[demo model] The code interpreter ran the code. Its output:\n\n(nothing)')
  })

  test('may be out of order: that is said, and the equation is solved by hand', () => {
    const text = textFor(
      [equation, called('code_interpreter'), result('code_interpreter', 'Error: not available.')],
      { tools },
    )
    expect(text).toContain('reported a problem')
    expect(text).toContain('not available')
    expect(text).toContain('x = 1')
  })

  test('is not called again for an earlier message', () => {
    const earlier = [equation, called('code_interpreter'), result('code_interpreter', 'x = 1')]
    const messages = [...earlier, { role: 'assistant', content: 'x = 1' }, user('Thanks')]
    expect(callsFor(messages, { tools })).toEqual([])
  })
})

describe('file search', () => {
  const tools = [tool('file_search')]

  test('is asked once with the question', () => {
    expect(callsFor([user('What do we eat?')], { tools })).toEqual([
      ['file_search', { queries: ['What do we eat?'] }],
    ])
  })

  test('is cited by the markers in its result', () => {
    const found = '【0:0†food.txt】\nWe eat salmon.\n\n【0:1†more.txt】\nAnd bread.\n'
    const messages = [user('What?'), called('file_search'), result('file_search', found)]
    const text = textFor(messages, { tools })
    expect(text).toContain('We eat salmon. 【0:0†food.txt】')
    expect(text).toContain('And bread. 【0:1†more.txt】')
  })

  test('may find nothing', () => {
    const messages = [user('What?'), called('file_search'), result('file_search', 'No results.')]
    expect(textFor(messages, { tools })).toContain('found nothing')
  })
})

describe('functions of the caller', () => {
  const tools = [WEATHER, tool('get_time', { properties: { city: { type: 'string' } } })]

  test('that are named get arguments that fit their schema', () => {
    const message = user('Call get_weather for the city of Paris, 3 days, in fahrenheit.')
    expect(callsFor([message], { tools })).toEqual([
      ['get_weather', { city: 'Paris', unit: 'fahrenheit', days: 3 }],
    ])
  })

  test('that are named together are called in parallel, in the order of their names', () => {
    const message = user('Use get_time and then get_weather for Rome')
    const names = callsFor([message], { tools }).map(([name]) => name)
    expect(names).toEqual(['get_time', 'get_weather'])
    const one = callsFor([message], { tools, parallel_tool_calls: false }).map(([name]) => name)
    expect(one).toEqual(['get_time'])
  })

  test('that return make an answer with all outputs', () => {
    const messages = [
      user('get_time and get_weather'),
      called('get_time'),
      result('get_time', 'noon'),
      called('get_weather'),
      result('get_weather', 'sunny'),
    ]
    expect(textFor(messages, { tools })).toMatch(/noon[^]*sunny/)
  })

  test('are meant by the words of their name too, but only when all are there', () => {
    const both = { tools: [WEATHER, tool('send_email')] }
    const weather = callsFor([user('What is the weather in Oslo?')], both)
    expect(weather.map(([name]) => name)).toEqual(['get_weather'])
    expect(callsFor([user('What is an email?')], both)).toEqual([])
  })

  test('obey tool_choice', () => {
    const message = user('get_weather in Paris')
    const named = { type: 'function', function: { name: 'get_time' } }
    expect(callsFor([message], { tools, tool_choice: 'none' })).toEqual([])
    expect(callsFor([message], { tools, tool_choice: named })).toEqual([
      ['get_time', { city: 'Paris' }],
    ])
    const required = callsFor([user('Hello')], { tools, tool_choice: 'required' })
    expect(required.map(([name]) => name)).toEqual(['get_weather'])
  })
})

const valueOf = (schema: unknown) => valueForSchema(schema, 'Move 2 boxes, then 5, to "Hall A"')

describe('values for a schema', () => {
  test.each([
    [
      { type: 'object', properties: { a: { type: 'integer' }, b: { type: 'number' } } },
      { a: 2, b: 5 },
    ],
    [{ type: 'array', items: { type: 'string' }, minItems: 1 }, ['Hall A']],
    [{ const: 7 }, 7],
    [{ enum: [null, 'b'] }, 'b'],
    [{ type: ['null', 'integer'], minimum: 3 }, 5],
    [{ anyOf: [{ type: 'null' }, { type: 'boolean' }] }, true],
    [{ type: 'string', format: 'date' }, '2025-01-31'],
    [{ type: 'integer', minimum: 90, maximum: 95 }, 90],
    [{ $ref: '#/$defs/node', $defs: { node: { type: 'boolean' } } }, true],
    [{ allOf: [{ properties: { a: { type: 'boolean' } } }], required: ['a'] }, { a: true }],
    [{}, {}],
    [true, {}],
    [null, {}],
    ['nonsense', {}],
  ])('%j gives %j', (schema, expected) => {
    expect(valueOf(schema)).toEqual(expected)
  })

  test('a schema that refers to itself comes to an end', () => {
    const node = { type: 'object', properties: { next: { $ref: '#' } }, required: ['next'] }
    expect(JSON.stringify(valueOf(node)).length).toBeLessThan(500)
  })
})

describe('linear equations', () => {
  test.each([
    ['Solve 3x + 11 = 14.', 'x', '1'],
    ['a 2(y + 3) - 4 = 10/4 I think', 'y', '1/4'],
    ['7 − z/3 = 5', 'z', '6'],
    ['4z - 1 = 0.5z', 'z', '2/7'],
    ['2x + 1 = 2x + 3', 'x', null],
  ])('%s', (text, unknown, solution) => {
    expect(findLinearEquation(text)).toMatchObject({ unknown, solution })
  })

  test.each(['x = 5', 'x * x = 4', 'a + b = 3', '1 = 1', 'if a == b', 'E = mc2', '= = =', ''])(
    'none in: %s',
    (text) => {
      expect(findLinearEquation(text)).toBeNull()
    },
  )

  const hasPython = spawnSync('python3', ['--version']).status === 0
  test.skipIf(!hasPython).each(['3x + 11 = 14', '2(y + 3) - 4 = 10/4', '-0.5z + 1 = -(2 - z)'])(
    'python finds the same for %s',
    (text) => {
      const equation = findLinearEquation(text)
      const { stdout } = spawnSync('python3', ['-c', equation?.python ?? ''], { encoding: 'utf8' })
      expect(stdout.trim()).toBe(`${equation?.unknown} = ${equation?.solution}`)
    },
  )
})

test('pieces of a text make up the text', () => {
  const text = '  Grüße,\n\n👋🏽👋🏽👋🏽👋🏽 to extraordinarily long words  '
  expect(pieces(text).join('')).toBe(text)
})

describe('over HTTP', () => {
  test('the official client reads a stream with its usage, and a whole answer', async () => {
    await using model = await startDemoModel({ port: 0, tokenDelayMs: 0 })
    const client = new OpenAI({ baseURL: model.url, apiKey: 'none' })
    const request = { model: 'gpt-4o', messages: [{ role: 'user' as const, content: 'Hello' }] }
    const stream = client.chat.completions.stream({
      ...request,
      stream_options: { include_usage: true },
    })
    const streamed = await stream.finalChatCompletion()
    const whole = await client.chat.completions.create(request)
    expect(streamed.choices[0]?.message.content).toMatch(/^\[demo model\]/)
    expect(whole.choices[0]?.message.content).toBe(streamed.choices[0]?.message.content)
    expect(streamed.usage?.total_tokens).toBeGreaterThan(10)
    expect(streamed.usage).toEqual(whole.usage)
  })

  test('a call of a tool is put together by the official client', async () => {
    await using model = await startDemoModel({ port: 0, tokenDelayMs: 0 })
    const client = new OpenAI({ baseURL: model.url, apiKey: 'none' })
    const stream = client.chat.completions.stream({
      model: 'gpt-4o',
      messages: [{ role: 'user', content: 'get_weather for Paris' }],
      tools: [WEATHER],
    })
    const [choice] = (await stream.finalChatCompletion()).choices
    expect(choice?.finish_reason).toBe('tool_calls')
    expect(choice?.message.tool_calls?.[0]).toMatchObject({ function: { name: 'get_weather' } })
  })

  test('max_completion_tokens cuts the answer and says so', async () => {
    await using model = await startDemoModel({ port: 0, tokenDelayMs: 0 })
    const client = new OpenAI({ baseURL: model.url, apiKey: 'none' })
    const messages = [{ role: 'user' as const, content: 'count to 100' }]
    const answer = await client.chat.completions.create({
      model: 'm',
      messages,
      max_completion_tokens: 10,
    })
    expect(answer.choices[0]?.finish_reason).toBe('length')
    expect(answer.usage?.completion_tokens).toBe(10)
  })

  test('models are listed', async () => {
    await using model = await startDemoModel({ port: 0 })
    const client = new OpenAI({ baseURL: model.url, apiKey: 'none', maxRetries: 0 })
    expect((await client.models.list()).data.map((one) => one.id)).toEqual(['longrun-demo'])
    expect((await client.models.retrieve('longrun-demo')).object).toBe('model')
    await expect(client.models.retrieve('other')).rejects.toMatchObject({ status: 404 })
  })

  const message = [user('Hello')]
  test.each([
    ['no JSON', '{"model": '],
    ['an array', '[]'],
    ['no model', JSON.stringify({ messages: message })],
    ['no messages', JSON.stringify({ model: 'm' })],
    ['empty messages', JSON.stringify({ model: 'm', messages: [] })],
    ['a message that is null', JSON.stringify({ model: 'm', messages: [null] })],
    ['an unknown role', JSON.stringify({ model: 'm', messages: [{ role: 'wizard' }] })],
    ['content that is a number', JSON.stringify({ model: 'm', messages: [user(7)] })],
    ['tools without names', JSON.stringify({ model: 'm', messages: message, tools: [{}] })],
    [
      'a tool_choice without tools',
      JSON.stringify({ model: 'm', messages: message, tool_choice: 'required' }),
    ],
    ['no limit of tokens', JSON.stringify({ model: 'm', messages: message, max_tokens: 'many' })],
  ])('%s is a 400 with the envelope of OpenAI', async (_, body) => {
    await using model = await startDemoModel({ port: 0 })
    const response = await fetch(`${model.url}/chat/completions`, { method: 'POST', body })
    expect(response.status).toBe(400)
    expect(await response.json()).toMatchObject({
      error: { type: 'invalid_request_error', code: null },
    })
  })

  test('a taken port is told by its number', async () => {
    await using model = await startDemoModel({ port: 0 })
    await expect(startDemoModel({ port: model.port })).rejects.toThrow(`port ${model.port}`)
  })
})
