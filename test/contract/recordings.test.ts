import { existsSync, globSync, readFileSync } from 'node:fs'

import { afterAll, beforeAll, describe, expect, test } from 'vitest'

import { call, say, type Step } from '../support/model.ts'
import { startServer, type TestServer } from '../support/server.ts'

/**
 * Recorded sessions of the original service, played against ours: the same requests with our ids in place of its own, and
 * answers that must be the same but for ids, times and the differences listed here. The recordings are the .NET client's
 * (openai/openai-dotnet, tests/SessionRecords, MIT).
 */
const folder = '../shared/recordings'

/** What the model of each session said, turn by turn, as the recording shows it. */
const sessions: Record<string, Step[]> = {
  BasicAssistantOperationsWork: [],
  BasicMessageOperationsWork: [],
  BasicThreadOperationsWork: [],
  MessagesWithRoles: [],
  ThreadWithImageDetailWorks: [],
  ThreadWithInitialMessagesWorks: [],
  Pagination_CanPageThroughAssistantCollection: [],
  Pagination_CanRehydrateAssistantPageCollectionFromBytes: [],
  Pagination_CanRehydrateAssistantPageCollectionFromPageToken: [],
  SettingResponseFormatWorks: [say('{}')],
  BasicRunOperationsWork: [
    say('Hello! How can I assist you today?', {
      usage: { promptTokens: 32, completionTokens: 11 },
    }),
  ],
  FunctionToolsWork: [
    call(
      { name: 'get_favorite_food_for_day_of_week', arguments: '{"day_of_week":"Thursday"}' },
      { usage: { promptTokens: 300, completionTokens: 20 } },
    ),
    say('You should eat tacos on Thursday! 🌮', {
      usage: { promptTokens: 327, completionTokens: 14 },
    }),
  ],
  StreamingRunWorks: [
    say(
      "Hello! I'm just a program, so I don't have feelings, but I'm here and ready to help you with " +
        'whatever you need. How can I assist you today?',
      { usage: { promptTokens: 38, completionTokens: 35 } },
    ),
  ],
  StreamingToolCall: [
    call(
      { name: 'get_current_weather', arguments: '{}' },
      { usage: { promptTokens: 260, completionTokens: 12 } },
    ),
    say(textOf('StreamingToolCall'), { usage: { promptTokens: 284, completionTokens: 42 } }),
  ],
}

/** Sessions that need what is not there yet; the list shrinks. */
const waiting: Record<string, string> = {
  BasicRunStepFunctionalityWorks: 'the code interpreter',
  Pagination_CanRehydrateRunStepPageCollectionFromBytes: 'the code interpreter',
  FileSearchWorks: 'file search',
  FileSearchStreamingWorks: 'file search',
}

/** Where ours answers otherwise, and why. */
const differences: Difference[] = [
  {
    why: 'what the original did not have',
    allows: ({ path, recorded }) => recorded === undefined && /(^|\.|\])longrun$/.test(path),
  },
  {
    why: 'the schema requires these of a message, whose answers had them in streams alone (spec D2)',
    allows: ({ path, recorded }) =>
      recorded === undefined &&
      /(^|\.|\])(status|incomplete_details|incomplete_at|completed_at)$/.test(path),
  },
  {
    why: 'the schema requires these of a step (spec D3)',
    allows: ({ path, recorded }) =>
      recorded === undefined && /(^|\.|\])(expired_at|metadata)$/.test(path),
  },
  {
    why: "a message's `file_ids` was a slip of the original: it is `attachments` (spec D11)",
    allows: ({ path, recorded, ours }) =>
      path === 'attachments' && recorded === undefined && Array.isArray(ours),
  },
  {
    why: 'ours is always `{}` where nothing is named; the original had two forms (spec D5, D10)',
    allows: ({ path, recorded, ours }) =>
      path.endsWith('tool_resources') &&
      isOneOf(recorded, ['{}', '{"code_interpreter":{"file_ids":[]}}']) &&
      isOneOf(ours, ['{}']),
  },
  {
    why: "a message's `file_ids` was a slip of the original: it is `attachments` (spec D11)",
    allows: ({ path, ours }) => path === 'file_ids' && ours === undefined,
  },
  {
    why: 'ours begins at once, where the recording still waits in the queue',
    allows: ({ path, recorded, ours, isRead }) =>
      isRead &&
      ((/(^|\.)status$/.test(path) && recorded === 'queued' && ours === 'in_progress') ||
        (/(^|\.)started_at$/.test(path) && recorded === null && typeof ours === 'number')),
  },
]

interface Difference {
  why: string
  /** `isRead`: in an answer to a GET. */
  allows(at: { path: string; recorded: unknown; ours: unknown; isRead: boolean }): boolean
}

const isThere = existsSync(folder)
describe.skipIf(!isThere)(
  `the original${isThere ? '' : ` (skipped: there is no ${folder})`}`,
  () => {
    let server: TestServer
    beforeAll(async () => {
      server = await startServer()
      // The recorded account held other assistants too: its pages go on where the session's own end.
      const { assistants } = server.client.beta
      await Promise.all(
        Array.from({ length: 20 }, () => assistants.create({ model: 'gpt-4o', name: 'Older' })),
      )
    })
    afterAll(() => server[Symbol.asyncDispose]())

    test.for(Object.entries(waiting))('%s waits for %s', ([name], { skip }) => {
      expect(entriesOf(name)).not.toEqual([])
      skip(`needs ${waiting[name]}`)
    })

    test('every recorded session is played or waits', () => {
      const names = globSync('*.json', { cwd: folder }).map((file) => file.replace('.json', ''))
      expect(new Set(names)).toEqual(new Set(Object.keys({ ...sessions, ...waiting })))
    })

    test.each(Object.entries(sessions))(
      '%s is answered as it was recorded',
      async (name, steps) => {
        const entries = entriesOf(name)
        const gate = gated(server, steps)
        const session = createSession(server.baseUrl)
        for (const [index, entry] of entries.entries()) {
          // Of many looks at one run the last one tells: how many there were was a matter of time.
          const isRepeated = isLook(entry) && entries[index + 1]?.RequestUri === entry.RequestUri
          if (isRepeated && settledIn(entry) === settledIn(entries[index + 1])) continue
          if (settledIn(entry) || isStream(entry)) gate.open()
          else if (isLook(entry) && statusIn(entry) === 'in_progress') await gate.asked()
          const { status, headers, body } = await session.send(entry)
          const at = `${index}: ${entry.RequestMethod} ${pathOf(entry)}`
          const compared = {
            status,
            headers: differingHeaders(entry, headers),
            body: session.compare(entry, body),
          }
          expect({ at, ...compared }).toEqual({
            at,
            status: entry.StatusCode,
            headers: [],
            body: [],
          })
          if (settledIn(entry)) gate.close()
        }
        await gate.allSaid()
      },
    )
  },
)

test('a difference that is not listed is found', () => {
  const session = createSession('')
  const recorded = { id: 'run_a', status: 'queued', at: null, list: [1], usage: { total: 3 } }
  const entry = entry200('POST', { ...recorded, gone: 1, text: 'a', of: 'run_a', created_at: 1 })
  const ours = { ...recorded, id: 'run_b', at: 0, status: 'x', list: [], text: 'b', usage: {} }
  expect(session.compare(entry, { ...ours, of: 'run_c', created_at: 2, more: 1 })).toEqual([
    'status: "queued" was recorded, ours is "x"',
    'at: null was recorded, ours is 0',
    'list: 1 items were recorded, ours are 0',
    'usage.total: 3 was recorded, ours is undefined',
    'gone: 1 was recorded, ours is undefined',
    'text: "a" was recorded, ours is "b"',
    'of: "run_a" was recorded, which is run_b here, ours is "run_c"',
    'more: undefined was recorded, ours is 1',
  ])
})

interface Entry {
  RequestUri: string
  RequestMethod: string
  RequestHeaders: Record<string, string>
  RequestBody: unknown
  StatusCode: number
  ResponseHeaders: Record<string, string>
  ResponseBody: unknown
}

interface Frame {
  event: string
  data: unknown
}

/** One session: which of our ids stands for which of theirs is learned from the answers. */
function createSession(baseUrl: string) {
  const ids = new Map<string, string>()
  const withOurIds = (text: string): string =>
    text.replaceAll(/\b(asst|thread|msg|run|step|call)_\w+/g, (id) => ids.get(id) ?? id)

  return {
    async send(entry: Entry) {
      const { RequestMethod: method, RequestBody: sent, RequestHeaders: headers } = entry
      const answer = await fetch(`${baseUrl}${withOurIds(pathOf(entry))}`, {
        method,
        headers: {
          accept: headers['Accept'] ?? '*/*',
          authorization: 'Bearer sk-recorded',
          'openai-beta': headers['OpenAI-Beta'] ?? '',
          ...(headers['Content-Type'] && { 'content-type': headers['Content-Type'] }),
          // Answered when the run has settled, so that nobody sleeps.
          ...(settledIn(entry) && { 'x-stainless-poll-helper': 'true' }),
        },
        ...(sent !== null && { body: withOurIds(JSON.stringify(sent)) }),
      })
      const text = await answer.text()
      const body: unknown = isStream(entry) ? collapsed(frames(text)) : JSON.parse(text)
      return { status: answer.status, headers: answer.headers, body }
    },
    compare(entry: Entry, ours: unknown): string[] {
      const isRead = entry.RequestMethod === 'GET'
      const recorded = isStream(entry)
        ? collapsed(frames([entry.ResponseBody].flat().join('')))
        : entry.ResponseBody
      return compareValues('', recorded, ours, isRead)
    },
  }

  function compareValues(
    path: string,
    recorded: unknown,
    ours: unknown,
    isRead: boolean,
  ): string[] {
    if (differences.some((one) => one.allows({ path, recorded, ours, isRead }))) return []
    if (Array.isArray(recorded) && Array.isArray(ours)) {
      const items = recorded.filter((item) => !isStranger(item))
      const compared = items.length < recorded.length ? ours.slice(0, items.length) : ours
      if (items.length !== compared.length)
        return [`${path}: ${items.length} items were recorded, ours are ${compared.length}`]
      return items.flatMap((item, index) =>
        compareValues(`${path}[${index}]`, item, compared[index], isRead),
      )
    }
    if (isObject(recorded) && isObject(ours)) {
      return [...new Set([...Object.keys(recorded), ...Object.keys(ours)])].flatMap((key) =>
        compareValues(path === '' ? key : `${path}.${key}`, recorded[key], ours[key], isRead),
      )
    }
    if (isTime(path, recorded) && isTime(path, ours)) return []
    if (typeof recorded === 'string' && typeof ours === 'string' && isId(recorded)) {
      return compareIds(path, recorded, ours)
    }
    if (recorded === ours) return []
    return [`${path}: ${JSON.stringify(recorded)} was recorded, ours is ${JSON.stringify(ours)}`]
  }

  function compareIds(path: string, recorded: string, ours: string): string[] {
    // The last of a page that strangers filled up.
    if (path === 'last_id' && !ids.has(recorded)) return []
    const known = ids.get(recorded) ?? ours
    ids.set(recorded, known)
    if (known === ours) return []
    return [
      `${path}: "${recorded}" was recorded, which is ${known} here, ours is ${JSON.stringify(ours)}`,
    ]
  }

  /** An assistant of the recorded account that the session did not make. */
  function isStranger(item: unknown): boolean {
    return isObject(item) && item['object'] === 'assistant' && !ids.has(String(item['id']))
  }
}

/** The model says nothing before the recording shows a settled run: what it shows of runs in between stays true. */
function gated({ model }: TestServer, steps: Step[]) {
  const before = model.calls
  let gate = Promise.withResolvers<void>()
  let said = 0
  model.respond(async () => {
    await gate.promise
    const step = steps[said]
    if (!step) throw new Error('The recording shows no answer of the model to this')
    said += 1
    return step
  })
  return {
    open: () => gate.resolve(),
    close: () => void (gate = Promise.withResolvers()),
    /** When the model has been asked for what it has not said yet. */
    asked: async () => void (await model.called(before + said + 1)),
    /** A session ends where its reader stops; its runs end before the next one begins. */
    async allSaid() {
      gate.resolve()
      if (steps.length > 0) await (await model.called(before + steps.length)).closed
    },
  }
}

function entriesOf(name: string): Entry[] {
  // Somebody else's file, whose shape its README describes.
  const { Entries } = JSON.parse(readFileSync(`${folder}/${name}.json`, 'utf8')) as {
    Entries: Entry[]
  }
  return Entries
}

/** The text that the model of a streaming session wrote in the end. */
function textOf(name: string): string {
  if (!existsSync(folder)) return ''
  const last = [entriesOf(name).at(-1)?.ResponseBody].flat().join('')
  const done = frames(last).find(({ event }) => event === 'thread.message.completed')
  const message = done?.data as { content: { text: { value: string } }[] } | undefined
  return (message?.content ?? []).map(({ text }) => text.value).join('')
}

function entry200(method: string, body: unknown): Entry {
  return {
    RequestUri: '',
    RequestMethod: method,
    RequestHeaders: {},
    RequestBody: null,
    StatusCode: 200,
    ResponseHeaders: {},
    ResponseBody: body,
  }
}

/** What follows `/v1`. */
function pathOf({ RequestUri }: Entry): string {
  return RequestUri.replace(/^https:\/\/[^/]+\/v1/, '')
}

/** A GET of one run. */
function isLook(entry: Entry): boolean {
  return entry.RequestMethod === 'GET' && /\/runs\/run_\w+$/.test(pathOf(entry))
}

/** Whether an entry is a look at a run that has come to its end, or waits for the client. */
function settledIn(entry: Entry | undefined): boolean {
  return entry !== undefined && isLook(entry) && !/^(queued|in_progress)$/.test(statusIn(entry))
}

function statusIn({ ResponseBody }: Entry): string {
  return isObject(ResponseBody) ? String(ResponseBody['status']) : ''
}

function isStream({ ResponseHeaders }: Entry): boolean {
  return (ResponseHeaders['Content-Type'] ?? '').startsWith('text/event-stream')
}

/** Headers of the recorded answer that ours lacks or gives otherwise; times, names and proxies aside. */
function differingHeaders({ ResponseHeaders }: Entry, ours: Headers): string[] {
  const exact = ['openai-version', 'X-Content-Type-Options']
  const present = ['openai-processing-ms', 'X-Request-ID', 'openai-organization', 'openai-project']
  const type = (ResponseHeaders['Content-Type'] ?? '').split(';', 1).join('')
  return [
    ...exact.filter((name) => ours.get(name) !== ResponseHeaders[name]),
    ...present.filter((name) => !ours.get(name)),
    ...(ours.get('content-type')?.startsWith(type) ? [] : ['Content-Type']),
  ]
}

function frames(text: string): Frame[] {
  return text
    .split('\n\n')
    .map((frame) => ({
      event: /^event: (.*)$/m.exec(frame)?.[1],
      data: /^data: (.*)$/m.exec(frame)?.[1],
    }))
    .flatMap(({ event, data }) =>
      event === undefined || data === undefined
        ? []
        : [{ event, data: data === '[DONE]' ? data : (JSON.parse(data) as unknown) }],
    )
}

/** Deltas that continue each other as one, with their texts together: how they are cut is the model's affair. */
function collapsed(all: Frame[]): Frame[] {
  const kept: Frame[] = []
  for (const frame of all) {
    const last = kept.at(-1)
    const continues = frame.event.endsWith('delta') && last?.event === frame.event
    if (continues) last.data = joined(last.data, frame.data)
    else kept.push(frame)
  }
  return kept
}

function joined(a: unknown, b: unknown, key = ''): unknown {
  if (isObject(a) && isObject(b)) {
    const keys = new Set([...Object.keys(a), ...Object.keys(b)])
    return Object.fromEntries([...keys].map((name) => [name, joined(a[name], b[name], name)]))
  }
  if (Array.isArray(a) && Array.isArray(b)) {
    return a.map((item: unknown, index) => joined(item, b[index]))
  }
  const isPiece = key === 'value' || key === 'arguments'
  return isPiece && typeof a === 'string' && typeof b === 'string' ? a + b : (a ?? b)
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function isId(value: string): boolean {
  return /^(asst|thread|msg|run|step|call)_\w+$/.test(value)
}

function isTime(path: string, value: unknown): boolean {
  return path.endsWith('_at') && Number.isInteger(value) && Number(value) > 0
}

function isOneOf(value: unknown, texts: string[]): boolean {
  return texts.includes(JSON.stringify(value))
}
