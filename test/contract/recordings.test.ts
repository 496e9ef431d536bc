import { existsSync, globSync, readFileSync } from 'node:fs'
import { isDeepStrictEqual } from 'node:util'

import { afterAll, beforeAll, describe, expect, test } from 'vitest'

import { call, say, sayAndCall, type Step } from '../support/model.ts'
import { codeEnv, noCode } from '../support/sandboxes.ts'
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

/**
 * Sessions whose code is run once more, on the file that they send, and what each call comes to on it, the first one first: of
 * that the recordings show the figure alone.
 */
const codeSessions: Record<string, string[]> = {
  BasicRunStepFunctionalityWorks: [
    'ParserError: Error tokenizing data. C error: Expected 2 fields in line 3, saw 3',
    'Excel file format cannot be determined',
    String.raw`['x,y\n', '2,5\n', '7,14,\n', '8,22']`,
    'ParserError: Error tokenizing data. C error: Expected 2 fields in line 3, saw 3',
    '2  8  22',
    // Of (2, 5), (7, 14) and (8, 22), by hand.
    '0.9449',
  ],
  Pagination_CanRehydrateRunStepPageCollectionFromBytes: [
    "AttributeError: 'NoneType' object has no attribute 'head'",
  ],
}

/**
 * What the upload of these sessions sent, whose body was not recorded: as the client's own test has it, and as many bytes as
 * the recorded file and the recorded body have.
 */
const equations = 'x,y\n2,5\n7,14,\n8,22'

/** Sessions that need what is not there yet; the list shrinks. */
const waiting: Record<string, string> = {
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
    why: 'the original had two forms of nothing; a run of ours has that of its assistant, a thread `{}` (spec D5, D10)',
    allows: ({ path, recorded, ours }) =>
      path.endsWith('tool_resources') && isNothing(recorded) && isNothing(ours),
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
  {
    why: 'the original took a name for a file as it was sent; ours leaves the folders of a path out',
    allows: ({ path, recorded, ours }) =>
      path === 'filename' && recorded === 'text/csv' && ours === 'csv',
  },
  {
    why: 'ours shows what code printed, its last value and its traceback, where the original showed images alone (spec 6)',
    allows: ({ path, recorded, ours }) =>
      path.endsWith('code_interpreter.outputs') &&
      typesIn(ours).includes('logs') &&
      isDeepStrictEqual(
        typesIn(recorded),
        typesIn(ours).filter((type) => type !== 'logs'),
      ),
  },
  {
    why: "ours is asked once for words and a call, and the call's step has the usage of both; the original's was asked twice",
    of: Object.keys(codeSessions),
    allows: ({ path, recorded, ours }) =>
      /^data\[\d+\]\.usage$/.test(path) && (ours === null || totalOf(ours) > totalOf(recorded)),
  },
]

interface Difference {
  why: string
  /** The sessions that it is about; left out, it is about all. */
  of?: string[]
  /** `isRead`: in an answer to a GET. */
  allows(at: { path: string; recorded: unknown; ours: unknown; isRead: boolean }): boolean
}

const isThere = existsSync(folder)
describe.skipIf(!isThere)(
  `the original${isThere ? '' : ` (skipped: there is no ${folder})`}`,
  () => {
    let server: TestServer
    beforeAll(async () => {
      server = await startServer(noCode ? {} : codeEnv())
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
      const known = { ...sessions, ...codeSessions, ...waiting }
      expect(new Set(names)).toEqual(new Set(Object.keys(known)))
    })

    test.each(Object.entries(sessions))(
      '%s is answered as it was recorded',
      async (name, steps) => {
        expect(await play(name, steps)).not.toEqual([])
      },
    )

    test.skipIf(noCode).each(Object.entries(codeSessions))(
      `%s is answered as it was recorded${noCode ? `: ${noCode}` : ''}`,
      async (name, outcomes) => {
        const answers = await play(name, stepsOf(name))
        const logs = stepsIn(answers).flatMap(({ step_details: { tool_calls: calls } }) =>
          (calls ?? []).map(({ code_interpreter: { outputs } }) =>
            outputs.map((one) => one.logs ?? '').join(''),
          ),
        )
        expect(logs).toEqual(outcomes.map((text) => expect.stringContaining(text) as unknown))
      },
    )

    /** Resolves with our answers. */
    async function play(name: string, steps: Step[]): Promise<unknown[]> {
      const answers: unknown[] = []
      const entries = entriesOf(name)
      const session = createSession(server.baseUrl, name)
      const gate = gated(server, steps, session.withOurIds)
      for (const [index, entry] of entries.entries()) {
        // Of many looks at one run the last one tells: how many there were was a matter of time.
        const isRepeated = isLook(entry) && entries[index + 1]?.RequestUri === entry.RequestUri
        if (isRepeated && settledIn(entry) === settledIn(entries[index + 1])) continue
        if (settledIn(entry) || isStream(entry)) gate.open()
        else if (isLook(entry) && statusIn(entry) === 'in_progress') await gate.asked()
        const { status, headers, body } = await session.send(entry)
        answers.push(body)
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
      return answers
    }
  },
)

test('a difference that is not listed is found', () => {
  const session = createSession('', '')
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

/** Of the recordings and of ours. */
const anyId = /\b(?:(?:asst|thread|msg|run|step|call)_|file-)\w+/g

interface Frame {
  event: string
  data: unknown
}

/** One session: which of our ids stands for which of theirs is learned from the answers. */
function createSession(baseUrl: string, name: string) {
  const ids = new Map<string, string>()
  const ofThis = differences.filter(({ of }) => of === undefined || of.includes(name))
  const withOurIds = (text: string): string => text.replaceAll(anyId, (id) => ids.get(id) ?? id)

  return {
    withOurIds,
    async send(entry: Entry): Promise<{ status: number; headers: Headers; body: unknown }> {
      const { RequestMethod: method, RequestBody: sent, RequestHeaders: headers } = entry
      const uploaded = isUpload(entry) && uploadBody(entry)
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
        ...(uploaded && { body: uploaded }),
      })
      const text = await answer.text()
      const body: unknown = isStream(entry) ? collapsed(frames(text)) : JSON.parse(text)
      // The server holds its answer for some seconds, and code may take longer.
      if (settledIn(entry) && isUnderWay(body)) return this.send(entry)
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
    if (ofThis.some((one) => one.allows({ path, recorded, ours, isRead }))) return []
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
    const expected = typeof recorded === 'string' ? withOurIds(recorded) : recorded
    if (expected === ours) return []
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
function gated({ model }: TestServer, steps: Step[], withOurIds: (text: string) => string) {
  const before = model.calls
  let gate = Promise.withResolvers<void>()
  let said = 0
  model.respond(async () => {
    await gate.promise
    const step = steps[said]
    if (!step) throw new Error('The recording shows no answer of the model to this')
    said += 1
    return JSON.parse(withOurIds(JSON.stringify(step))) as Step
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

/**
 * What the model of a session said, turn by turn, as far as its run steps show it: the code, not the words. The original asked
 * anew between words and the call after them, and ours once, so that it uses what both used.
 */
function stepsOf(name: string): Step[] {
  if (!existsSync(folder)) return []
  const oldestFirst = stepsIn(entriesOf(name).map(({ ResponseBody }) => ResponseBody))
  return oldestFirst.flatMap(({ step_details: { tool_calls: calls }, usage }, index) => {
    const previous = oldestFirst[index - 1]
    const said = previous?.step_details.tool_calls ? undefined : previous
    if (!calls) {
      const isLast = index === oldestFirst.length - 1
      return isLast ? [say('It is done.', { usage: usageOf(usage) })] : []
    }
    const codes = calls.map(({ code_interpreter: { input: code } }) => ({
      name: 'code_interpreter',
      arguments: { code },
    }))
    if (!said) return [call(codes, { usage: usageOf(usage) })]
    return [sayAndCall('Let me see.', codes, { usage: usageOf(said.usage, usage) })]
  })
}

/** The run steps that answers list, each once, the oldest first. */
function stepsIn(answers: unknown[]): RunStep[] {
  const listed = answers.flatMap((answer) =>
    isObject(answer) && Array.isArray(answer['data']) ? (answer['data'] as RunStep[]) : [],
  )
  const steps = listed.filter(({ object }) => object === 'thread.run.step')
  return [...new Map(steps.map((step) => [step.id, step])).values()].toReversed()
}

interface RunStep {
  id: string
  object: string
  step_details: {
    tool_calls?: { code_interpreter: { input: string; outputs: { logs?: string }[] } }[]
  }
  usage: Usage
}

interface Usage {
  prompt_tokens: number
  completion_tokens: number
}

function usageOf(...used: Usage[]) {
  const sum = (counts: number[]): number => counts.reduce((all, count) => all + count, 0)
  return {
    promptTokens: sum(used.map((one) => one.prompt_tokens)),
    completionTokens: sum(used.map((one) => one.completion_tokens)),
  }
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

function isUpload(entry: Entry): boolean {
  return entry.RequestMethod === 'POST' && pathOf(entry) === '/files'
}

/** The form as .NET writes it: names without quotes, the file's name twice, and a type for the text alone. */
function uploadBody({ RequestHeaders: headers }: Entry): Buffer<ArrayBuffer> {
  const boundary = /boundary="(.*)"/.exec(headers['Content-Type'] ?? '')?.[1] ?? ''
  const text = [
    `--${boundary}`,
    `Content-Disposition: form-data; name=file; filename="text/csv"; filename*=utf-8''text%2Fcsv`,
    '',
    equations,
    `--${boundary}`,
    'Content-Type: text/plain; charset=utf-8',
    'Content-Disposition: form-data; name=purpose',
    '',
    'assistants',
    `--${boundary}--`,
    '',
  ].join('\r\n')
  expect(text).toHaveLength(Number(headers['Content-Length']))
  return Buffer.from(text)
}

/** A GET of one run. */
function isLook(entry: Entry): boolean {
  return entry.RequestMethod === 'GET' && /\/runs\/run_\w+$/.test(pathOf(entry))
}

/** Whether an entry is a look at a run that has come to its end, or waits for the client. */
function settledIn(entry: Entry | undefined): boolean {
  return entry !== undefined && isLook(entry) && !isUnderWay(entry.ResponseBody)
}

function isUnderWay(run: unknown): boolean {
  return isObject(run) && /^(queued|in_progress)$/.test(String(run['status']))
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
  return value.replace(anyId, '') === ''
}

/** The types of a step's outputs. */
function typesIn(outputs: unknown): unknown[] {
  return Array.isArray(outputs) ? outputs.map((one: { type: unknown }) => one.type) : []
}

function totalOf(usage: unknown): number {
  return isObject(usage) ? Number(usage['total_tokens']) : 0
}

function isTime(path: string, value: unknown): boolean {
  return path.endsWith('_at') && Number.isInteger(value) && Number(value) > 0
}

/** Tool resources that name none. */
function isNothing(value: unknown): boolean {
  return ['{}', '{"code_interpreter":{"file_ids":[]}}'].includes(JSON.stringify(value))
}
