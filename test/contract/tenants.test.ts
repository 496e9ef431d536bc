import { afterAll, beforeAll, describe, expect, test } from 'vitest'

import { createLogger } from '../../log.ts'
import { openStore } from '../../store/index.ts'
import {
  createCaller,
  refusal,
  refused,
  type Answer,
  type CallOptions,
  type Caller,
} from '../api/caller.ts'
import { startServer, type TestServer } from '../support/server.ts'
import { mapValues } from './document.ts'
import { inV1, makeObjects, respondWithCalls, textFile, textPart, type Ids } from './objects.ts'
import { allRoutes, type Route } from './routes.ts'
import { openRows, type Rows } from './rows.ts'

/**
 * Every route, asked by a project for what belongs to another. Where a path has several ids, each of them in turn is the
 * first that is not one's own. A route that has no entry here fails.
 */
const entries: Record<string, Entry> = {
  'GET /healthz': { nobodys: 'it says that the process lives' },
  'GET /readyz': { nobodys: 'it says whether runs would be carried out' },
  'GET /v1/models': { nobodys: 'all projects have the same models' },
  'GET /v1/models/*name': { nobodys: 'all projects have the same models' },

  'GET /v1/assistants': { names: cursors('assistant_id') },
  'POST /v1/assistants': {
    body: () => ({ model: 'm' }),
    names: [
      theirFile('tool_resources', (id) => ({ model: 'm', ...withFile(id) })),
      theirStore((id) => ({ model: 'm', ...withStore(id) })),
    ],
  },
  'GET /v1/assistants/:assistant_id': {},
  'POST /v1/assistants/:assistant_id': {
    body: () => ({ name: 'x', metadata: { a: 'x' } }),
    names: [theirFile('tool_resources', withFile), theirStore(withStore)],
  },
  'DELETE /v1/assistants/:assistant_id': {},
  'GET /v1/assistants/:assistant_id/files': { ...inV1, names: cursors('assistant_file_id') },
  'POST /v1/assistants/:assistant_id/files': {
    ...inV1,
    body: ({ file_id }) => ({ file_id }),
    names: [theirFile('file_id', (file_id) => ({ file_id }))],
  },
  'GET /v1/assistants/:assistant_id/files/:file_id': {
    ...inV1,
    kinds: { file_id: 'assistant_file_id' },
  },
  'DELETE /v1/assistants/:assistant_id/files/:file_id': {
    ...inV1,
    kinds: { file_id: 'assistant_file_id' },
  },

  'GET /v1/threads': {
    names: [
      ...cursors('thread_id'),
      {
        what: 'assistant_id',
        query: ({ assistant_id }) => `?assistant_id=${assistant_id}`,
        answer: () => 'nothing',
      },
    ],
  },
  'POST /v1/threads': {
    body: () => ({ messages: [{ role: 'user', content: 'x' }] }),
    names: [
      theirFile('tool_resources', withFile),
      theirStore(withStore),
      theirFile('an attachment', (id) => ({ messages: [withAttachment(id)] })),
      theirFile('a picture', (id) => ({ messages: [withPicture(id)] })),
    ],
  },
  'GET /v1/threads/:thread_id': {},
  'POST /v1/threads/:thread_id': {
    body: () => ({ metadata: { a: 'x' } }),
    names: [theirFile('tool_resources', withFile), theirStore(withStore)],
  },
  'DELETE /v1/threads/:thread_id': {},
  'POST /v1/threads/:thread_id/fork': {
    body: () => ({ metadata: { a: 'x' } }),
    names: [
      {
        what: 'message_id',
        body: ({ message_id }) => ({ message_id }),
        answer: () => 'as none',
      },
    ],
  },
  'POST /v1/threads/import': {
    body: () => ({ messages: [{ role: 'user', content: 'x' }] }),
    names: [
      {
        what: 'id',
        body: ({ thread_id }) => ({ id: thread_id }),
        answer: () => 'whatever',
        isRefusedWithin: true,
      },
      {
        what: 'the id of a message',
        body: ({ message_id }) => ({
          messages: [{ id: message_id, role: 'user', content: 'x' }],
        }),
        answer: () => 'whatever',
      },
    ],
  },
  'GET /v1/export': {},
  'GET /v1/usage': {
    names: [
      {
        what: 'the id of a thread',
        query: ({ thread_id }) => `?kind=thread&id=${thread_id}`,
        answer: () => 'nothing',
      },
      {
        what: 'the id of an assistant',
        query: ({ assistant_id }) => `?kind=assistant&id=${assistant_id}`,
        answer: () => 'nothing',
      },
    ],
  },

  'GET /v1/threads/:thread_id/messages': {
    names: [
      ...cursors('message_id'),
      { what: 'run_id', query: ({ run_id }) => `?run_id=${run_id}`, answer: () => 'nothing' },
    ],
  },
  'POST /v1/threads/:thread_id/messages': {
    body: () => ({ role: 'user', content: 'x' }),
    names: [theirFile('an attachment', withAttachment), theirFile('a picture', withPicture)],
  },
  'GET /v1/threads/:thread_id/messages/:message_id': {},
  'POST /v1/threads/:thread_id/messages/:message_id': { body: () => ({ metadata: { a: 'x' } }) },
  'DELETE /v1/threads/:thread_id/messages/:message_id': {},
  'GET /v1/threads/:thread_id/messages/:message_id/files': {
    ...inV1,
    names: cursors('message_file_id'),
  },
  'GET /v1/threads/:thread_id/messages/:message_id/files/:file_id': {
    ...inV1,
    kinds: { file_id: 'message_file_id' },
  },

  'POST /v1/threads/runs': {
    body: ({ assistant_id }) => ({ assistant_id }),
    names: [
      theirAssistant(),
      theirFile('an attachment', (id, { assistant_id }) => ({
        assistant_id,
        thread: { messages: [withAttachment(id)] },
      })),
      theirFile('tool_resources', (id, { assistant_id }) => ({ assistant_id, ...withFile(id) })),
      theirStore((id, { assistant_id }) => ({ assistant_id, ...withStore(id) })),
      theirStore((id, { assistant_id }) => ({ assistant_id, thread: withStore(id) })),
    ],
  },
  'GET /v1/threads/:thread_id/runs': { names: cursors('run_id') },
  'POST /v1/threads/:thread_id/runs': {
    body: ({ assistant_id }) => ({ assistant_id }),
    forms: [{}, { more: { stream: true } }],
    names: [
      theirAssistant(),
      theirFile('an attachment', (id, { assistant_id }) => ({
        assistant_id,
        additional_messages: [withAttachment(id)],
      })),
    ],
  },
  'GET /v1/threads/:thread_id/runs/:run_id': {
    forms: [{}, { headers: { 'x-stainless-poll-helper': 'true' } }],
  },
  'GET /v1/threads/:thread_id/runs/:run_id/events': {
    forms: [{}, { headers: { 'last-event-id': '1' } }],
  },
  'POST /v1/threads/:thread_id/runs/:run_id': { body: () => ({ metadata: { a: 'x' } }) },
  'POST /v1/threads/:thread_id/runs/:run_id/cancel': {},
  'POST /v1/threads/:thread_id/runs/:run_id/submit_tool_outputs': {
    body: ({ call_id }) => ({ tool_outputs: [{ tool_call_id: call_id, output: 'x' }] }),
    forms: [{}, { more: { stream: true } }],
    names: [
      {
        what: 'tool_call_id',
        body: ({ call_id }) => ({ tool_outputs: [{ tool_call_id: call_id, output: 'x' }] }),
        answer: (theirs, mine) =>
          refused(
            400,
            `Expected tool outputs for call_ids ['${mine['call_id']}'], got ['${theirs['call_id']}']`,
          ),
      },
    ],
  },
  'GET /v1/threads/:thread_id/runs/:run_id/steps': { names: cursors('step_id') },
  'GET /v1/threads/:thread_id/runs/:run_id/steps/:step_id': {},

  'GET /v1/files': { names: cursors('file_id').slice(0, 1) },
  'POST /v1/files': { form: () => textFile('x') },
  'GET /v1/files/:file_id': {},
  'DELETE /v1/files/:file_id': {},
  'GET /v1/files/:file_id/content': {},
  'POST /v1/uploads': {
    body: () => ({ filename: 'x', purpose: 'assistants', bytes: 1, mime_type: 'text/plain' }),
  },
  'POST /v1/uploads/:upload_id/parts': { form: () => textPart('x') },
  'POST /v1/uploads/:upload_id/complete': {
    body: ({ part_id }) => ({ part_ids: [part_id] }),
    names: [
      {
        what: 'a part',
        body: ({ part_id }) => ({ part_ids: [part_id] }),
        answer: () => 'as none',
      },
    ],
  },
  'POST /v1/uploads/:upload_id/cancel': {},

  ...Object.fromEntries(
    [
      'chat/completions',
      'completions',
      'embeddings',
      'images/generations',
      'images/edits',
      'images/variations',
      'audio/speech',
      'audio/transcriptions',
      'audio/translations',
      'moderations',
    ].map((path) => [
      `POST /v1/${path}`,
      { nobodys: 'it is passed on, and names nothing of ours' },
    ]),
  ),
  ...Object.fromEntries(
    ['responses', 'responses/compact', 'responses/input_tokens'].map((path) => [
      `POST /v1/${path}`,
      { isPassedOn: true, names: [previousResponse()] },
    ]),
  ),
  'GET /v1/responses/:id': { kinds: { id: 'response_id' } },
  'DELETE /v1/responses/:id': { kinds: { id: 'response_id' } },
  'POST /v1/responses/:id/cancel': { kinds: { id: 'response_id' } },
  'GET /v1/responses/:id/input_items': { kinds: { id: 'response_id' } },
  'GET /v1/chat/completions': { isPassedOn: true, names: cursors('completion_id').slice(0, 1) },
  'GET /v1/chat/completions/:id': { kinds: { id: 'completion_id' } },
  'POST /v1/chat/completions/:id': {
    kinds: { id: 'completion_id' },
    body: () => ({ metadata: { a: 'x' } }),
  },
  'DELETE /v1/chat/completions/:id': { kinds: { id: 'completion_id' } },
  'GET /v1/chat/completions/:id/messages': { kinds: { id: 'completion_id' } },
}

interface Entry {
  /** Why the route holds nothing of any project. */
  nobodys?: string
  /** Whether it answers what an endpoint of models does, which these tests do not have. */
  isPassedOn?: boolean
  headers?: Record<string, string>
  /** The kinds of `makeObjects` that ids in the path are of, where these are called otherwise. */
  kinds?: Record<string, string>
  /** A sound body, of objects of one's own. */
  body?: (mine: Ids) => object
  /** Or a sound form. */
  form?: () => CallOptions
  /** Ways to ask which must not make a difference. */
  forms?: { headers?: Record<string, string>; more?: object }[]
  /** Where else an object of others can be named, and what is answered then. */
  names?: Naming[]
}

type Refusal = ReturnType<typeof refused>

interface Naming {
  what: string
  query?: (theirs: Ids) => string
  body?: (theirs: Ids, mine: Ids) => object
  /** `as none`: the same as for an object that never was. */
  answer: (theirs: Ids, mine: Ids) => Refusal | 'as none' | 'nothing' | 'whatever'
  /** The answer is a 200 that holds the refusal, and with it the id that it was asked for. */
  isRefusedWithin?: true
}

function theirFile(what: string, body: (id: string, mine: Ids) => object): Naming {
  return {
    what: `a file in ${what}`,
    body: (ids, mine) => body(ids['file_id'] ?? '', mine),
    answer: () => 'as none',
  }
}

function theirStore(body: (id: string, mine: Ids) => object): Naming {
  return {
    what: 'a vector store in tool_resources',
    body: (ids, mine) => body(ids['vector_store_id'] ?? '', mine),
    answer: () => 'as none',
  }
}

function withFile(id: string): object {
  return { tool_resources: { code_interpreter: { file_ids: [id] } } }
}

function withStore(id: string): object {
  return { tool_resources: { file_search: { vector_store_ids: [id] } } }
}

function withAttachment(id: string): object {
  const attachments = [{ file_id: id, tools: [{ type: 'code_interpreter' }] }]
  return { role: 'user', content: 'x', attachments }
}

function withPicture(id: string): object {
  return { role: 'user', content: [{ type: 'image_file', image_file: { file_id: id } }] }
}

function previousResponse(): Naming {
  return {
    what: 'previous_response_id',
    body: ({ response_id }) => ({ model: 'm', input: 'x', previous_response_id: response_id }),
    answer: () => 'as none',
  }
}

function theirAssistant(): Naming {
  return {
    what: 'assistant_id',
    body: ({ assistant_id }) => ({ assistant_id }),
    answer: ({ assistant_id = '' }) =>
      refused(404, `No assistant found with id '${assistant_id}'.`),
  }
}

function cursors(kind: string): Naming[] {
  return ['after', 'before'].map((name) => ({
    what: name,
    query: (theirs) => `?${name}=${theirs[kind]}`,
    answer: () => 'as none',
  }))
}

/** What the answer says where an id of a path belongs to nobody. */
const missing: Record<string, (id: string) => Refusal> = {
  assistant_id: (id) => refused(404, `No assistant found with id '${id}'.`),
  thread_id: (id) => refused(404, `No thread found with id '${id}'.`),
  message_id: (id) => refused(404, `No message found with id '${id}'.`),
  run_id: (id) => refused(404, `No run found with id '${id}'.`),
  step_id: (id) => refused(404, `No run step found with id '${id}'.`),
  file_id: (id) => refused(404, `No such File object: ${id}`, 'id'),
  assistant_file_id: (id) => refused(404, `No assistant file found with id '${id}'.`),
  message_file_id: (id) => refused(404, `No message file found with id '${id}'.`),
  upload_id: (id) => refused(404, `No upload found with id '${id}'.`),
  response_id: (id) => refused(404, `Response with id '${id}' not found.`),
  completion_id: (id) => refused(404, `Chat completion with id '${id}' not found.`),
}

const routes = allRoutes()
const owned = routes.filter(({ name }) => entries[name] && !entries[name].nobodys)

let server: TestServer
let rows: Rows
let mine: Party
let theirs: Party

interface Party {
  /** Its name is in all texts of its objects. */
  name: string
  api: Caller
  ids: Ids
  projectId: string
}

beforeAll(async () => {
  server = await startServer({ ADMIN_KEY: 'an-admin-key-for-tests' })
  respondWithCalls(server.model)
  rows = await openRows(server.databaseUrl)
  mine = await makeParty('Project of those who ask')
  theirs = await makeParty('Project of others')
})
afterAll(async () => {
  await rows[Symbol.asyncDispose]()
  await server[Symbol.asyncDispose]()
})

test('every route has its entry, and every entry its route', () => {
  expect(Object.keys(entries).toSorted()).toEqual(routes.map(({ name }) => name).toSorted())
})

describe("another project's objects are as good as none", () => {
  test.each(owned.filter(({ params }) => params.length > 0))('$name', async (route) => {
    for (const [index, param] of route.params.entries()) {
      const own = route.params.slice(0, index)
      for (const form of entries[route.name]?.forms ?? [{}]) {
        const answer = await untouched(() => ask(route, own, form))
        const expected = missing[kindOf(route, param)]?.(idOf(theirs, route, param))
        expect({ [`:${param} of others`]: refusal(answer) }).toEqual({
          [`:${param} of others`]: expected,
        })
      }
    }
  })

  test.each(
    owned.flatMap((route) =>
      (entries[route.name]?.names ?? []).map((naming) => ({ route, naming, what: naming.what })),
    ),
  )('$route.name with $what', async ({ route, naming }) => {
    const { query, body, answer, isRefusedWithin } = naming
    const send = (ids: Ids) => {
      const path = `${pathOf(route, route.params)}${query?.(ids) ?? ''}`
      const { headers = {} } = entries[route.name] ?? {}
      return mine.api.send(route.method, path, body?.(ids, mine.ids), { headers })
    }
    const got = await untouched(() => send(theirs.ids), isRefusedWithin)
    const expected = answer(theirs.ids, mine.ids)
    const none = nobodys(theirs.ids)
    // Each way to look at the answer, and what it must show.
    const views = {
      nothing: async () => [got.body.data, []],
      'as none': async () => [said(got, theirs.ids), said(await send(none), none)],
      whatever: async () => [],
    }
    const [seen, wanted] =
      typeof expected === 'string' ? await views[expected]() : [refusal(got), expected]
    expect(seen).toEqual(wanted)
  })

  const plain = owned.filter(({ name, params }) => !params.length && !entries[name]?.isPassedOn)
  test.each(plain)('$name says nothing of them', async (route) => {
    const answer = await untouched(() => ask(route, []))
    expect(answer.status).toBe(200)
  })
})

test('the default project has none of the objects of others either', async () => {
  const admin = createCaller(server, 'an-admin-key-for-tests')
  expect((await admin.read('/assistants')).data).toEqual([])
  const { thread_id: id = '' } = theirs.ids
  expect(refusal(await admin.get(`/threads/${id}`))).toEqual(missing['thread_id']?.(id))
})

async function makeParty(name: string): Promise<Party> {
  await using store = await openStore({
    databaseUrl: server.databaseUrl,
    log: createLogger('error'),
    maxConnections: 2,
  })
  const project = await store.keys.createProject(name)
  const { key } = await store.keys.createKey(project.id, name)
  const api = createCaller(server, key)
  return { name, api, ids: await makeObjects(api, name), projectId: project.id }
}

/** Asks with one's own key; the ids of `own` are one's own too, and the others theirs. */
function ask(
  route: Route,
  own: string[],
  { headers = {}, more = {} }: { headers?: Record<string, string>; more?: object } = {},
): Promise<Answer> {
  const { body, form, headers: usual } = entries[route.name] ?? {}
  const formed = form?.()
  const sent = body && { ...body(mine.ids), ...more }
  const options = { ...formed, headers: { ...usual, ...formed?.headers, ...headers } }
  return mine.api.send(route.method, pathOf(route, own), sent, options)
}

/** Below `/v1`. */
function pathOf(route: Route, own: string[]): string {
  return route.path
    .replace(/^\/v1/, '')
    .replaceAll(/:(\w+)/g, (_, param: string) =>
      idOf(own.includes(param) ? mine : theirs, route, param),
    )
}

function kindOf({ name }: Route, param: string): string {
  return entries[name]?.kinds?.[param] ?? param
}

function idOf({ ids }: Party, route: Route, param: string): string {
  const id = ids[kindOf(route, param)]
  if (id === undefined)
    throw new Error(`test/contract/objects.ts makes nothing that is a :${param}`)
  return id
}

/** Ids of the same kinds that no object has. */
function nobodys(ids: Ids): Ids {
  return mapValues(ids, (id) => `${id.slice(0, -4)}none`)
}

/** An answer without the ids that it speaks of. */
function said({ status, text }: Answer, ids: Ids): { status: number; text: string } {
  return { status, text: Object.values(ids).reduce((rest, id) => rest.replaceAll(id, '...'), text) }
}

/** What is asked tells nothing of the other project and changes nothing there; refused, it changes nothing at all. */
async function untouched(asked: () => Promise<Answer>, isRefusedWithin = false): Promise<Answer> {
  const ofOthers = [theirs.projectId, ...Object.values(theirs.ids)]
  const before = { all: await rows.digest(), theirs: await rows.digest(ofOthers) }
  const answer = await asked()
  if (answer.body['object'] === 'thread.run') {
    await mine.api.settled(answer.body['thread_id'], answer.body.id)
  }
  const after = { all: await rows.digest(), theirs: await rows.digest(ofOthers) }
  expect(after.theirs).toEqual(before.theirs)
  const isRefused = answer.status >= 400
  expect(isRefused ? after.all : {}).toEqual(isRefused ? before.all : {})
  const told = [theirs.name, ...ofOthers].filter((word) => answer.text.includes(word))
  // A refusal repeats the id that it was asked for.
  expect(isRefused || isRefusedWithin ? [] : told).toEqual([])
  return answer
}
