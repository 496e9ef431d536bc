import { describe, expect, test } from 'vitest'

import {
  answerInV1,
  attachmentsFromV1,
  dialectOf,
  eventInV1,
  idsWithFiles,
  messageFileIds,
  toolFromV1,
  type Answer,
} from '../../wire/dialect.ts'

const none = new Map<string, string[]>()
/** What v1 makes of an object of ours; the tests name only the fields that they are about. */
const said = (answer: object, files = none) => answerInV1(answer as Answer, files)

describe('the header', () => {
  test.each([
    ['assistants=v1', 'v1'],
    ['assistants=v2', 'v2'],
    ['assistants=v2, other', 'v2'],
    ['realtime=v1,assistants=v1', 'v1'],
    ['assistants=v1, assistants=v2', 'v2'],
    ['assistants=v3', undefined],
    ['realtime=v1', undefined],
    ['', undefined],
  ])('%j asks for %s', (header, dialect) => {
    expect(dialectOf(header)).toBe(dialect)
  })
})

describe('an assistant in v1', () => {
  const assistant = {
    id: 'asst_a',
    object: 'assistant',
    tools: [
      { type: 'file_search', file_search: { max_num_results: 5 } },
      { type: 'code_interpreter' },
      { type: 'function', function: { name: 'add', parameters: {}, strict: true } },
    ],
    tool_resources: { code_interpreter: { file_ids: ['file-x'] } },
    reasoning_effort: null,
    response_format: 'auto',
  }

  test('has the tools of v1, and the files that v1 attached', () => {
    expect(said(assistant, new Map([['asst_a', ['file-a', 'file-b']]]))).toEqual({
      id: 'asst_a',
      object: 'assistant',
      tools: [
        { type: 'retrieval' },
        { type: 'code_interpreter' },
        { type: 'function', function: { name: 'add', parameters: {} } },
      ],
      file_ids: ['file-a', 'file-b'],
      response_format: 'auto',
    })
  })

  test('has no files where v1 attached none, whatever v2 gave its tools', () => {
    expect(said(assistant)).toMatchObject({ file_ids: [] })
  })

  test.each([
    [{ type: 'json_object' }, { type: 'json_object' }],
    [{ type: 'json_schema', json_schema: { name: 'x' } }, { type: 'json_object' }],
  ])('says the response format %j as %j', (response_format, expected) => {
    expect(said({ ...assistant, response_format })).toMatchObject({ response_format: expected })
  })
})

const usage = {
  prompt_tokens: 1,
  completion_tokens: 2,
  total_tokens: 3,
  prompt_token_details: { cached_tokens: 0 },
  completion_tokens_details: { reasoning_tokens: 0 },
}

describe('a run in v1', () => {
  const run = {
    id: 'run_a',
    object: 'thread.run',
    status: 'incomplete',
    incomplete_details: { reason: 'max_completion_tokens' },
    tools: [{ type: 'file_search' }],
    tool_resources: {},
    reasoning_effort: null,
    parallel_tool_calls: true,
    tool_choice: { type: 'file_search' },
    response_format: 'auto',
    usage,
  }

  test('that is incomplete is completed, and says why it is not whole', () => {
    expect(said(run, new Map([['run_a', ['file-a']]]))).toEqual({
      id: 'run_a',
      object: 'thread.run',
      status: 'completed',
      incomplete_details: { reason: 'max_completion_tokens' },
      tools: [{ type: 'retrieval' }],
      file_ids: ['file-a'],
      tool_choice: { type: 'retrieval' },
      response_format: 'auto',
      usage: { prompt_tokens: 1, completion_tokens: 2, total_tokens: 3 },
    })
    expect(said({ ...run, usage: null })).toMatchObject({ usage: null })
  })

  test.each(['queued', 'in_progress', 'requires_action', 'cancelling', 'cancelled', 'expired'])(
    'that is %s is just that',
    (status) => {
      expect(said({ ...run, status })).toMatchObject({ status })
    },
  )

  test.each([
    ['none', 'none'],
    ['auto', 'auto'],
    ['required', 'auto'],
    [
      { type: 'function', function: { name: 'f' } },
      { type: 'function', function: { name: 'f' } },
    ],
  ])('that was to choose %j chooses %j', (tool_choice, expected) => {
    expect(said({ ...run, tool_choice })).toMatchObject({ tool_choice: expected })
  })
})

test('a thread in v1 has no resources', () => {
  const thread = { id: 'thread_a', object: 'thread', metadata: {}, tool_resources: {} }
  expect(said(thread)).toEqual({ id: 'thread_a', object: 'thread', metadata: {} })
})

describe('a message in v1', () => {
  const citation = {
    type: 'file_citation',
    text: '【0†a】',
    start_index: 0,
    end_index: 5,
    file_citation: { file_id: 'file-a' },
  }
  const path = {
    type: 'file_path',
    text: 'sandbox:/a',
    start_index: 0,
    end_index: 10,
    file_path: { file_id: 'file-b' },
  }
  const message = (content: object[], attachments: object[] | null = []) => ({
    id: 'msg_a',
    object: 'thread.message',
    content,
    attachments,
  })

  test('has its attachments as file ids, each once', () => {
    const tools = [{ type: 'code_interpreter' }]
    const attachments = ['file-b', 'file-a', 'file-b'].map((file_id) => ({ file_id, tools }))
    expect(said(message([], attachments))).toEqual({
      id: 'msg_a',
      object: 'thread.message',
      content: [],
      file_ids: ['file-b', 'file-a'],
    })
    expect(said(message([], null))).toMatchObject({ file_ids: [] })
    expect(messageFileIds([{ tools: [] }] as object[])).toEqual([])
  })

  test('quotes what it cites, if only nothing', () => {
    const text = { type: 'text', text: { value: '【0†a】', annotations: [citation, path] } }
    const quoted = { ...citation, file_citation: { file_id: 'file-a', quote: '' } }
    expect(said(message([text]))).toMatchObject({
      content: [{ type: 'text', text: { value: '【0†a】', annotations: [quoted, path] } }],
    })
    const known = { ...citation, file_citation: { file_id: 'file-a', quote: 'So it is.' } }
    const knownText = { type: 'text', text: { value: '【0†a】', annotations: [known] } }
    expect(said(message([knownText]))).toMatchObject({ content: [knownText] })
  })

  test('is made of texts and images of files', () => {
    const content = [
      { type: 'image_file', image_file: { file_id: 'file-a', detail: 'auto' } },
      { type: 'image_url', image_url: { url: 'https://example.com/a.png', detail: 'low' } },
      { type: 'refusal', refusal: 'I will not.' },
    ]
    expect(said(message(content))).toMatchObject({
      content: [
        { type: 'image_file', image_file: { file_id: 'file-a' } },
        { type: 'text', text: { value: 'https://example.com/a.png', annotations: [] } },
        { type: 'text', text: { value: 'I will not.', annotations: [] } },
      ],
    })
  })
})

describe('a step in v1', () => {
  const search = {
    id: 'call_a',
    type: 'file_search',
    file_search: { results: [{ file_id: 'file-a' }] },
  }
  const add = { id: 'call_b', type: 'function', function: { name: 'add', arguments: '{}' } }

  test('calls a search of files retrieval', () => {
    const details = { type: 'tool_calls', tool_calls: [search, add] }
    const step = { id: 'step_a', object: 'thread.run.step', step_details: details }
    expect(said({ ...step, expires_at: 1, usage })).toEqual({
      ...step,
      step_details: {
        type: 'tool_calls',
        tool_calls: [{ id: 'call_a', type: 'retrieval', retrieval: {} }, add],
      },
      usage: { prompt_tokens: 1, completion_tokens: 2, total_tokens: 3 },
    })
  })

  test('that makes a message is the same', () => {
    const details = { type: 'message_creation', message_creation: { message_id: 'msg_a' } }
    const step = { object: 'thread.run.step', step_details: details, usage: null }
    expect(said(step)).toEqual(step)
  })
})

test('every object of a list is said in v1, and the list is still one', () => {
  const thread = { id: 'thread_a', object: 'thread', metadata: {}, tool_resources: {} }
  const list = { object: 'list', data: [thread], first_id: 'a', last_id: 'a', has_more: false }
  expect(said(list)).toEqual({
    ...list,
    data: [{ id: 'thread_a', object: 'thread', metadata: {} }],
  })
})

test('assistants and runs have files that are kept elsewhere, on their own and in lists', () => {
  const list = { object: 'list', data: [{ object: 'assistant', id: 'asst_a' }] }
  expect(idsWithFiles(list as Answer)).toEqual(['asst_a'])
  expect(idsWithFiles({ object: 'thread.run', id: 'run_a' } as Answer)).toEqual(['run_a'])
  expect(idsWithFiles({ object: 'thread', id: 'thread_a' } as Answer)).toEqual([])
})

describe('an event in v1', () => {
  const inV1 = (event: Parameters<typeof eventInV1>[0]['event'], object: object) => {
    const mapped = eventInV1({ event, data: JSON.stringify(object) }, none)
    return { event: mapped.event, data: JSON.parse(mapped.data) as object }
  }

  test('of a run that is incomplete is the one of a completed run, which ends its stream', () => {
    const run = { object: 'thread.run', id: 'run_a', status: 'incomplete', tools: [] }
    expect(inV1('thread.run.incomplete', run)).toMatchObject({
      event: 'thread.run.completed',
      data: { status: 'completed' },
    })
  })

  const messageDelta = (content: object[]) => ({
    id: 'msg_a',
    object: 'thread.message.delta',
    delta: { content },
  })

  test('that brings a piece of text is the same', () => {
    const delta = messageDelta([{ index: 0, type: 'text', text: { value: 'Hi' } }])
    expect(inV1('thread.message.delta', delta)).toEqual({
      event: 'thread.message.delta',
      data: delta,
    })
    const empty = { id: 'msg_a', object: 'thread.message.delta', delta: {} }
    expect(inV1('thread.message.delta', empty).data).toEqual(empty)
  })

  test('that brings a citation, a refusal or an image brings what v1 knows', () => {
    const citation = { index: 0, type: 'file_citation', file_citation: { file_id: 'file-a' } }
    const delta = messageDelta([
      { index: 0, type: 'text', text: { value: 'x', annotations: [citation] } },
      { index: 1, type: 'refusal', refusal: 'No' },
      { index: 2, type: 'image_file', image_file: { file_id: 'file-b', detail: 'auto' } },
      { index: 3, type: 'image_url', image_url: { url: 'https://example.com/a.png' } },
    ])
    const quoted = { ...citation, file_citation: { file_id: 'file-a', quote: '' } }
    expect(inV1('thread.message.delta', delta).data).toEqual(
      messageDelta([
        { index: 0, type: 'text', text: { value: 'x', annotations: [quoted] } },
        { index: 1, type: 'text', text: { value: 'No', annotations: [] } },
        { index: 2, type: 'image_file', image_file: { file_id: 'file-b' } },
        {
          index: 3,
          type: 'text',
          text: { value: 'https://example.com/a.png', annotations: [] },
        },
      ]),
    )
  })

  test('that begins or goes on with a search has an id only if it had one', () => {
    const stepDelta = (calls: object[]) => ({
      id: 'step_a',
      object: 'thread.run.step.delta',
      delta: { step_details: { type: 'tool_calls', tool_calls: calls } },
    })
    const delta = stepDelta([
      { index: 0, id: 'call_a', type: 'file_search', file_search: {} },
      { index: 1, type: 'file_search', file_search: {} },
      { index: 2, type: 'code_interpreter', code_interpreter: { input: '1' } },
    ])
    expect(inV1('thread.run.step.delta', delta).data).toEqual(
      stepDelta([
        { index: 0, id: 'call_a', type: 'retrieval', retrieval: {} },
        { index: 1, type: 'retrieval', retrieval: {} },
        { index: 2, type: 'code_interpreter', code_interpreter: { input: '1' } },
      ]),
    )
  })
})

describe('what v1 asks for, in v2', () => {
  test('retrieval is a search of files', () => {
    expect(toolFromV1({ type: 'retrieval' })).toEqual({ type: 'file_search' })
    expect(toolFromV1({ type: 'code_interpreter' })).toEqual({ type: 'code_interpreter' })
  })

  test('the files of a message are for every tool that reads files', () => {
    expect(attachmentsFromV1(['file-a'])).toEqual([
      { file_id: 'file-a', tools: [{ type: 'code_interpreter' }, { type: 'file_search' }] },
    ])
  })
})
