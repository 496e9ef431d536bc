import { createReadStream, readdirSync, readlinkSync, writeFileSync } from 'node:fs'
import { request, type ClientRequest, type IncomingMessage } from 'node:http'
import { join } from 'node:path'
import { once } from 'node:events'
import { Readable } from 'node:stream'

import OpenAI, { toFile } from 'openai'
import { pino } from 'pino'
import { afterAll, beforeAll, expect, test } from 'vitest'

import { startApi } from '../../api/server.ts'
import type { Engine } from '../../engine/index.ts'
import { createModels } from '../../models.ts'
import { openBlobs as openStorage } from '../../store/blobs.ts'
import { openStore } from '../../store/index.ts'
import { eventually, scratchDir } from '../local/scratch.ts'
import { queryOnce } from '../support/cluster.ts'
import { hasS3Server, startS3Server, withoutS3Server } from '../support/s3.ts'
import { createDatabase, startServer, type TestServer } from '../support/server.ts'
import { createCaller, refusal, refused, type Caller } from './caller.ts'
import { boundary, field, filePart, form, type FormPart } from './form.ts'
import { roundTrip } from './large-file.ts'

let server: TestServer
let caller: Caller
const dir = scratchDir()
beforeAll(async () => {
  // Soon enough for a test to see what has expired go.
  server = await startServer({ FILES_DIR: join(dir.path, 'files'), RECONCILE_S: '0.2' })
  caller = createCaller(server)
})
afterAll(async () => {
  await server[Symbol.asyncDispose]()
  dir[Symbol.dispose]()
})

const post = (parts: FormPart[], contentType?: string) => {
  const { raw, headers } = form(parts, contentType)
  return caller.post('/files', undefined, { raw, headers })
}

async function upload(content: string | Uint8Array, parts: FormPart[] = []): Promise<string> {
  const answer = await post([field('purpose', 'assistants'), filePart(content), ...parts])
  if (answer.status !== 200) throw new Error(answer.text)
  return answer.body.id
}

const sql = <Row extends object>(text: string, values: unknown[] = []) =>
  queryOnce<Row>(server.databaseUrl, text, values)

/** The keys of all bytes on the disk, finished or not. */
function onDisk(): string[] {
  return readdirSync(join(dir.path, 'files'), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name !== 'id')
    .map(({ name }) => name)
    .toSorted()
}

/** Waits until the disk holds the bytes of the rows that there are, and nothing else. */
async function settled(): Promise<void> {
  await eventually(async () => {
    const rows = await sql<{ blob: string }>(
      'SELECT blob FROM files UNION ALL SELECT blob FROM upload_parts ORDER BY blob',
    )
    const loose = await sql('SELECT blob FROM loose_blobs')
    return (
      loose.length === 0 && String(onDisk()) === String(rows.map(({ blob }) => blob).toSorted())
    )
  })
}

test('an uploaded file has every field of the original', async () => {
  const before = Math.floor(Date.now() / 1000)
  const { status, body } = await post([
    field('purpose', 'assistants'),
    filePart('red, green and blue', 'favourite colours.txt', 'text/plain'),
  ])
  expect(status).toBe(200)
  expect(body).toEqual({
    id: expect.stringMatching(/^file-[0-9A-Za-z]{24}$/),
    object: 'file',
    bytes: 19,
    created_at: expect.any(Number),
    expires_at: null,
    filename: 'favourite colours.txt',
    purpose: 'assistants',
    status: 'processed',
    status_details: null,
  })
  expect(body['created_at']).toBeGreaterThanOrEqual(before)
  expect(await caller.read(`/files/${body.id}`)).toEqual(body)
})

test('the fields of the form may come after the file', async () => {
  const { body } = await post([
    filePart('later'),
    field('expires_after[anchor]', 'created_at'),
    field('expires_after[seconds]', '3600'),
    field('purpose', 'user_data'),
  ])
  expect(body['purpose']).toBe('user_data')
  expect(body['expires_at']).toBe(Number(body['created_at']) + 3600)
})

test('a batch file lives for 30 days unless it is told otherwise, others for ever', async () => {
  const lifetime = async (parts: FormPart[]) => {
    const { body } = await post([...parts, filePart('{}')])
    return body['expires_at'] === null
      ? null
      : Number(body['expires_at']) - Number(body['created_at'])
  }
  const forTwoHours = [
    field('expires_after[anchor]', 'created_at'),
    field('expires_after[seconds]', '7200'),
  ]
  expect(await lifetime([field('purpose', 'batch')])).toBe(2_592_000)
  expect(await lifetime([field('purpose', 'batch'), ...forTwoHours])).toBe(7200)
  expect(await lifetime([field('purpose', 'vision')])).toBe(null)
})

test('an empty file is a file', async () => {
  const id = await upload('')
  expect((await caller.read(`/files/${id}`))['bytes']).toBe(0)
  const { status, text, headers } = await caller.get(`/files/${id}/content`)
  expect([status, text, headers.get('content-length')]).toEqual([200, '', '0'])
})

const asPurpose =
  "'notes' is not one of ['fine-tune', 'assistants', 'batch', 'user_data', 'vision', 'evals'] - 'purpose'"
const seconds = 'expires_after.seconds'
test.each<[string, FormPart[], ReturnType<typeof refused>]>([
  ['without a file', [field('purpose', 'vision')], refused(400, "'file' is a required property")],
  ['without a purpose', [filePart('x')], refused(400, "'purpose' is a required property")],
  [
    'an unknown purpose',
    [filePart('x'), field('purpose', 'notes')],
    refused(400, asPurpose, 'purpose'),
  ],
  [
    'an unknown field',
    [filePart('x'), field('purpose', 'vision'), field('filename', 'y')],
    refused(400, "Additional properties are not allowed ('filename' was unexpected)"),
  ],
  [
    'a text in place of the file',
    [field('file', 'a.txt'), field('purpose', 'vision')],
    refused(
      400,
      "Invalid type for 'file': expected a file, but got a string instead.",
      'file',
      'invalid_type',
    ),
  ],
  [
    'a lifetime below an hour',
    [
      filePart('x'),
      field('purpose', 'vision'),
      field('expires_after[anchor]', 'created_at'),
      field('expires_after[seconds]', '3599'),
    ],
    refused(
      400,
      `Invalid '${seconds}': integer below minimum value. Expected a value >= 3600, but got 3599 instead.`,
      seconds,
      'integer_below_min_value',
    ),
  ],
  [
    'a lifetime above 30 days',
    [
      filePart('x'),
      field('purpose', 'vision'),
      field('expires_after[anchor]', 'created_at'),
      field('expires_after[seconds]', '2592001'),
    ],
    refused(
      400,
      `Invalid '${seconds}': integer above maximum value. Expected a value <= 2592000, but got 2592001 instead.`,
      seconds,
      'integer_above_max_value',
    ),
  ],
  [
    'another anchor',
    [
      filePart('x'),
      field('purpose', 'vision'),
      field('expires_after[anchor]', 'last_active_at'),
      field('expires_after[seconds]', '3600'),
    ],
    refused(
      400,
      "Invalid value: 'last_active_at'. Supported values are: 'created_at'.",
      'expires_after.anchor',
      'invalid_value',
    ),
  ],
  [
    'a name too long for file systems',
    [filePart('x', 'n'.repeat(256)), field('purpose', 'vision')],
    refused(
      400,
      "Invalid 'file': string too long. Expected a string with maximum length 255, but got a string with length 256 instead.",
      'file',
      'string_above_max_length',
    ),
  ],
])('%s is refused, and nothing stays', async (_, parts, expected) => {
  expect(refusal(await post(parts))).toEqual(expected)
  await settled()
})

const broken = refused(400, 'We could not parse the multipart form data of your request.')
test('a form that cannot be read is refused, and nothing stays', async () => {
  const { raw, headers } = form([field('purpose', 'vision'), filePart('x'.repeat(1000))])
  const send = (bytes: Uint8Array<ArrayBuffer>, type = headers['content-type']) =>
    caller.post('/files', undefined, { raw: bytes, headers: { ...headers, 'content-type': type } })
  expect(refusal(await send(raw.slice(0, -100)))).toEqual(broken)
  expect(refusal(await send(raw, 'multipart/form-data'))).toEqual(broken)
  expect(refusal(await send(raw, 'multipart/form-data; boundary=another'))).toEqual(broken)
  expect(refusal(await post([filePart('x'), filePart('y'), field('purpose', 'vision')]))).toEqual(
    broken,
  )
  await settled()
})

test('a body that is no form is refused with what it should be', async () => {
  const answer = await caller.post('/files', { purpose: 'assistants' })
  expect(answer.status).toBe(415)
  expect(answer.body.error.message).toContain("only accepts 'multipart/form-data' requests")
})

test('the boundary may be quoted, as .NET sends it', async () => {
  const { status } = await post(
    [field('purpose', 'assistants'), filePart('x')],
    `multipart/form-data; boundary="${boundary}"`,
  )
  expect(status).toBe(200)
})

test.each([
  ['raw UTF-8', 'filename="grün 日本語 🦊.txt"', 'grün 日本語 🦊.txt'],
  ['RFC 5987', "filename*=UTF-8''gr%C3%BCn%20%E6%97%A5.txt", 'grün 日.txt'],
  [
    'both, as .NET',
    `filename="=?utf-8?B?Z3LDvG4udHh0?="; filename*=utf-8''gr%C3%BCn.txt`,
    'grün.txt',
  ],
  ['as in mail', 'filename="=?utf-8?B?Z3LDvG4udHh0?="', 'grün.txt'],
  ['an escaped quote', 'filename="the %22best%22.txt"', 'the "best".txt'],
  ['a percent sign', 'filename="100%.txt"', '100%.txt'],
  ['folders', 'filename="../../etc/passwd"', 'passwd'],
  ['folders of Windows', String.raw`filename="C:\\Users\\me\\notes.txt"`, 'notes.txt'],
])('a name is kept as it was meant: %s', async (_, parameter, expected) => {
  const { body } = await post([
    field('purpose', 'assistants'),
    { disposition: `name="file"; ${parameter}`, content: 'x' },
  ])
  expect(body['filename']).toBe(expected)
  const { headers } = await caller.get(`/files/${body.id}/content`)
  const star = /filename\*=UTF-8''([^;]+)/.exec(headers.get('content-disposition') ?? '')?.[1]
  const plain = /filename="?((?:[^"\\]|\\.)+?)"?(;|$)/.exec(
    headers.get('content-disposition') ?? '',
  )?.[1]
  expect(star ? decodeURIComponent(star) : plain?.replaceAll('\\"', '"')).toBe(expected)
})

test('what is larger than 512 MB by its own account is refused before it is read', async () => {
  const { call, answer } = startUpload({ 'content-length': String(513 * 1024 * 1024) })
  const { status, body } = await answer
  expect(status).toBe(413)
  expect(body).toContain('Maximum content size limit (536870912) exceeded')
  call.destroy()
  await settled()
})

test('an upload that its client cuts leaves nothing', async () => {
  const { call } = startUpload({ 'transfer-encoding': 'chunked' })
  call.write(`--${boundary}\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n`)
  call.write('x'.repeat(1_000_000))
  const [begun] = await eventually(async () => {
    const loose = await sql<{ blob: string }>('SELECT blob FROM loose_blobs')
    return loose.some(({ blob }) => onDisk().includes(blob)) && loose
  })
  call.on('error', () => {})
  call.destroy()
  await settled()
  expect(onDisk()).not.toContain(begun?.blob)
})

function startUpload(headers: Record<string, string>) {
  const call: ClientRequest = request(`${server.baseUrl}/files`, {
    method: 'POST',
    headers: {
      authorization: 'Bearer any',
      'content-type': `multipart/form-data; boundary=${boundary}`,
      ...headers,
    },
  })
  call.flushHeaders()
  const answer = once(call, 'response').then(async ([response]: IncomingMessage[]) => {
    let body = ''
    for await (const chunk of response ?? []) body += String(chunk)
    return { status: response?.statusCode, body }
  })
  answer.catch(() => {})
  return { call, answer }
}

test('lists have the newest first, by purpose and in pages', async () => {
  const own = await ownProject()
  const ids: string[] = []
  for (const purpose of ['assistants', 'vision', 'assistants']) {
    const { raw, headers } = form([field('purpose', purpose), filePart('x')])
    ids.push((await own.post('/files', undefined, { raw, headers })).body.id)
  }
  const [first, second, third] = ids
  const idsOf = async (query: string) => (await own.read(`/files${query}`)).data.map(({ id }) => id)
  expect(await own.read('/files')).toMatchObject({
    object: 'list',
    first_id: third,
    last_id: first,
    has_more: false,
  })
  expect(await idsOf('?order=asc')).toEqual([first, second, third])
  expect(await idsOf('?purpose=assistants')).toEqual([third, first])
  expect(await idsOf('?purpose=unheard-of')).toEqual([])
  expect(await idsOf(`?limit=1&after=${third}`)).toEqual([second])
  expect((await own.read('/files?limit=2'))['has_more']).toBe(true)
  expect(refusal(await own.get('/files?limit=10001'))).toMatchObject({
    status: 400,
    param: 'limit',
  })
  expect(refusal(await own.get('/files?before=x'))).toMatchObject({ code: 'unknown_parameter' })
})

/** The one server is open to all; a key makes it another's. */
async function ownProject(): Promise<Caller> {
  const own = await startServer({ FILES_DIR: join(dir.path, 'other'), RECONCILE_S: '0.2' })
  owned.push(own)
  return createCaller(own)
}
const owned: TestServer[] = []
afterAll(async () => {
  for (const one of owned) await one[Symbol.asyncDispose]()
})

test('a file that is not there is refused in the words of the original', async () => {
  const id = 'file-doesnotexist'
  const missing = refused(404, `No such File object: ${id}`, 'id')
  expect(refusal(await caller.get(`/files/${id}`))).toEqual(missing)
  expect(refusal(await caller.get(`/files/${id}/content`))).toEqual(missing)
  expect(refusal(await caller.delete(`/files/${id}`))).toEqual(missing)
  expect(refusal(await caller.get('/files/undefined'))).toEqual(
    refused(
      400,
      "Invalid 'file_id': 'undefined'. Expected an ID that begins with 'file'.",
      'file_id',
      'invalid_value',
    ),
  )
})

test('content comes back byte for byte, to be saved and not to be shown', async () => {
  const bytes = Uint8Array.from({ length: 100_000 }, (_, i) => i % 251)
  const { body } = await post([
    field('purpose', 'assistants'),
    filePart(bytes, 'page.html', 'text/html'),
  ])
  const answer = await fetch(`${server.baseUrl}/files/${body.id}/content`, {
    headers: { authorization: 'Bearer any' },
  })
  expect(Object.fromEntries(answer.headers)).toMatchObject({
    'content-type': 'text/html',
    'content-length': '100000',
    'content-disposition': 'attachment; filename="page.html"',
    'x-content-type-options': 'nosniff',
    'accept-ranges': 'bytes',
  })
  expect(Buffer.from(await answer.arrayBuffer()).equals(bytes)).toBe(true)
})

test.each([
  ['what the client said', 'data.bin', 'image/png', 'image/png'],
  ['the name, where it said nothing', 'data.csv', '', 'text/csv'],
  ['the name, where it said nothing of use', 'data.CSV', 'application/octet-stream', 'text/csv'],
  ['neither', 'data', 'not a type', 'application/octet-stream'],
])('the type of content is %s', async (_, filename, type, expected) => {
  const { body } = await post([field('purpose', 'vision'), filePart('x', filename, type)])
  const { headers } = await caller.get(`/files/${body.id}/content`)
  expect(headers.get('content-type')).toBe(expected)
})

test.each<[string, number, string | null, string]>([
  ['bytes=0-3', 206, 'bytes 0-3/10', '0123'],
  ['bytes=7-', 206, 'bytes 7-9/10', '789'],
  ['bytes=-2', 206, 'bytes 8-9/10', '89'],
  ['bytes=-20', 206, 'bytes 0-9/10', '0123456789'],
  ['bytes=4-100', 206, 'bytes 4-9/10', '456789'],
  ['bytes=5-4', 200, null, '0123456789'],
  ['bytes=0-1,4-5', 200, null, '0123456789'],
  ['lines=1-2', 200, null, '0123456789'],
])('Range: %s is answered with %s', async (range, status, contentRange, text) => {
  const id = await upload('0123456789')
  const answer = await caller.get(`/files/${id}/content`, { headers: { range } })
  expect(answer.status).toBe(status)
  expect(answer.text).toBe(text)
  expect(answer.headers.get('content-range')).toBe(contentRange)
  expect(answer.headers.get('content-length')).toBe(String(text.length))
})

test.each(['bytes=10-', 'bytes=-0'])('Range: %s is not within 10 bytes', async (range) => {
  const id = await upload('0123456789')
  const answer = await caller.get(`/files/${id}/content`, { headers: { range } })
  expect(answer.status).toBe(416)
  expect(answer.headers.get('content-range')).toBe('bytes */10')
  expect(answer.headers.get('content-type')).toContain('application/json')
})

test('a range is of the bytes that the client has a part of, else it gets all', async () => {
  const id = await upload('0123456789')
  const path = `/files/${id}/content`
  const { headers } = await caller.get(path)
  const [etag, date] = [headers.get('etag') ?? '', headers.get('last-modified') ?? '']
  const asked = async (version: string) =>
    (await caller.get(path, { headers: { range: 'bytes=0-0', 'if-range': version } })).status
  expect(await asked(etag)).toBe(206)
  expect(await asked(date)).toBe(206)
  expect(await asked('"another"')).toBe(200)
  // Node's fetch would ask not to be told so.
  const fresh = { 'if-none-match': etag, 'cache-control': 'max-age=0' }
  const known = await caller.get(path, { headers: fresh })
  expect([known.status, known.text]).toEqual([304, ''])
})

test('HEAD tells the size without the bytes', async () => {
  const id = await upload('0123456789')
  // A range is for GET alone.
  const headers = { range: 'bytes=0-3' }
  const answer = await caller.send('HEAD', `/files/${id}/content`, undefined, { headers })
  expect([answer.status, answer.headers.get('content-length')]).toEqual([200, '10'])
})

// Only Linux tells the memory of another process. What is 512 MB large is in files.full.test.ts.
test.runIf(process.platform === 'linux')('a large file is never in memory as a whole', async () => {
  const trip = await roundTrip(160, { FILES_DIR: join(dir.path, 'large') })
  expect(trip).toMatchObject({ status: 200, isWhole: true })
  expect(Math.max(trip.grownMb.up, trip.grownMb.down)).toBeLessThan(120)
})

// Only Linux tells which files are open.
test.runIf(process.platform === 'linux')(
  'a client that leaves in the middle of a download keeps no file open',
  async () => {
    const id = await upload(new Uint8Array(20_000_000))
    const call = request(`${server.baseUrl}/files/${id}/content`, {
      headers: { authorization: 'Bearer any' },
    })
    call.end()
    const [response] = (await once(call, 'response')) as [IncomingMessage]
    await once(response, 'data')
    expect(openBlobs()).toHaveLength(1)
    call.on('error', () => {})
    call.destroy()
    await eventually(() => openBlobs().length === 0)
  },
)

/** The server runs in this process. */
function openBlobs(): string[] {
  return readdirSync('/proc/self/fd').flatMap((fd) => {
    try {
      const path = readlinkSync(join('/proc/self/fd', fd))
      return path.startsWith(dir.path) ? [path] : []
    } catch {
      // Closed since.
      return []
    }
  })
}

test('an operator can have inputs refused as the original refused them', async () => {
  await using strict = await startServer({
    FILES_DIR: join(dir.path, 'strict'),
    FILES_DOWNLOAD: 'outputs',
  })
  const own = createCaller(strict)
  const contentOf = async (purpose: string) => {
    const { raw, headers } = form([field('purpose', purpose), filePart('x')])
    const { body } = await own.post('/files', undefined, { raw, headers })
    return own.get(`/files/${body.id}/content`)
  }
  const refusedFor = (purpose: string) =>
    refused(400, `Not allowed to download files of purpose: ${purpose}`)
  expect(refusal(await contentOf('assistants'))).toEqual(refusedFor('assistants'))
  expect(refusal(await contentOf('user_data'))).toEqual(refusedFor('user_data'))
  expect((await contentOf('vision')).text).toBe('x')
})

test('a deleted file is gone, with its bytes', async () => {
  const id = await upload('to be deleted')
  const { body } = await caller.delete(`/files/${id}`)
  expect(body).toEqual({ id, object: 'file', deleted: true })
  expect((await caller.get(`/files/${id}`)).status).toBe(404)
  expect((await caller.delete(`/files/${id}`)).status).toBe(404)
  await settled()
})

test('a deleted file is in no list that named it', async () => {
  const [gone, kept] = [await upload('gone'), await upload('kept')]
  const tool_resources = { code_interpreter: { file_ids: [gone, kept] } }
  const assistant = await caller.make('/assistants', {
    model: 'gpt-4o',
    tools: [{ type: 'code_interpreter' }],
    tool_resources,
  })
  const thread = await caller.make('/threads', { tool_resources })
  const [store] = await sql<{ id: string }>(
    `INSERT INTO vector_stores (id, project_id, metadata) SELECT 'vs_1', project_id, '{}' FROM files WHERE id = $1 RETURNING id`,
    [gone],
  )
  await sql(
    `INSERT INTO vector_store_files (vector_store_id, file_id, status, attributes, chunking_strategy)
     SELECT $1, id, 'completed', '{}', '{}' FROM files WHERE id = ANY ($2)`,
    [store?.id, [gone, kept]],
  )
  await caller.delete(`/files/${gone}`)
  const left = { code_interpreter: { file_ids: [kept] } }
  expect((await caller.read(`/assistants/${assistant.id}`))['tool_resources']).toEqual(left)
  expect((await caller.read(`/threads/${thread.id}`))['tool_resources']).toEqual(left)
  expect(await sql('SELECT file_id FROM vector_store_files')).toEqual([{ file_id: kept }])
  await settled()
})

test('files are deleted while others name them: nobody fails, and nothing dangles', async () => {
  const ids = await Promise.all(Array.from({ length: 6 }, () => upload('x')))
  const assistant = await caller.make('/assistants', {
    model: 'gpt-4o',
    tools: [{ type: 'code_interpreter' }],
    tool_resources: { code_interpreter: { file_ids: ids } },
  })
  const naming = ids.flatMap((_, i) => [
    caller.post(`/assistants/${assistant.id}`, {
      tool_resources: { code_interpreter: { file_ids: ids.slice(i) } },
    }),
    caller.post('/threads', { tool_resources: { code_interpreter: { file_ids: ids.slice(i) } } }),
  ])
  const deleting = ids.map((id) => caller.delete(`/files/${id}`))
  const answers = await Promise.all([...naming, ...deleting])
  expect(answers.filter(({ status }) => status >= 500)).toEqual([])
  expect((await Promise.all(deleting)).every(({ status }) => status === 200)).toBe(true)
  expect(
    await sql(
      `SELECT id FROM assistants WHERE tool_resources -> 'code_interpreter' -> 'file_ids' ?| $1
       UNION ALL SELECT id FROM threads WHERE tool_resources -> 'code_interpreter' -> 'file_ids' ?| $1`,
      [ids],
    ),
  ).toEqual([])
})

test('an expired file is gone at once, and is taken out of every list soon', async () => {
  const id = await upload('for an hour', [
    field('expires_after[anchor]', 'created_at'),
    field('expires_after[seconds]', '3600'),
  ])
  const thread = await caller.make('/threads', {
    tool_resources: { code_interpreter: { file_ids: [id] } },
  })
  await sql(`UPDATE files SET expires_at = now() WHERE id = $1`, [id])
  expect((await caller.get(`/files/${id}`)).status).toBe(404)
  expect((await caller.get(`/files/${id}/content`)).status).toBe(404)
  const list = await caller.read('/files')
  expect(list.data.map((file) => file.id)).not.toContain(id)
  await eventually(async () => (await sql('SELECT id FROM files WHERE id = $1', [id])).length === 0)
  expect((await caller.read(`/threads/${thread.id}`))['tool_resources']).toEqual({
    code_interpreter: { file_ids: [] },
  })
  await settled()
})

test('with its project go its files and their bytes', async () => {
  const projectId = 'proj_ofTheTest'
  await sql(`INSERT INTO projects (id, name) VALUES ($1, 'of the test')`, [projectId])
  const id = await upload('of a project')
  await sql('UPDATE files SET project_id = $2 WHERE id = $1', [id, projectId])
  expect((await caller.get(`/files/${id}`)).status).toBe(404)
  await sql('DELETE FROM projects WHERE id = $1', [projectId])
  await settled()
})

test.each(['text/pl\0ain', 'text/pl\u0001ain', `text/${'x'.repeat(251)}`])(
  'a type that is none is not kept: %j',
  async (type) => {
    const { status, body } = await post([
      field('purpose', 'assistants'),
      filePart('a,b', 'table.csv', type),
    ])
    expect(status).toBe(200)
    expect(await sql('SELECT mime_type FROM files WHERE id = $1', [body.id])).toEqual([
      { mime_type: null },
    ])
    const { headers } = await caller.get(`/files/${body.id}/content`)
    expect(headers.get('content-type')).toBe('text/csv')
  },
)

test.each([
  { title: 'by our fault', toldToClient: 'terminated', errors: ['an answer broke off'] },
  { title: 'since its client left', toldToClient: 'This operation was aborted', errors: [] },
])('of a download that breaks off $title these errors are logged: $errors', async (given) => {
  const { toldToClient, errors } = given
  using own = scratchDir()
  await using database = await createDatabase()
  await using blobs = await openStorage({ dir: own.path, s3: undefined })
  const half = new Readable({ read() {} })
  half.push('01234')
  const logged: { level: string; msg: string }[] = []
  const log = pino(
    { level: 'debug', formatters: { level: (label) => ({ level: label }) } },
    { write: (line) => void logged.push(JSON.parse(line) as { level: string; msg: string }) },
  )
  await using store = await openStore({
    databaseUrl: database.url,
    log,
    maxConnections: 4,
    blobs: { ...blobs, get: async () => half },
  })
  const { id: defaultProjectId } = await store.keys.defaultProject()
  await using api = await startApi({
    store,
    // No route of files asks for it.
    engine: {} as Engine,
    models: createModels({
      file: undefined,
      upstream: { baseUrl: 'http://127.0.0.1:9/v1', apiKey: undefined },
      defaultModel: undefined,
      env: {},
    }),
    log,
    access: { keys: store.keys, defaultProjectId, adminKey: undefined, isLoopback: true },
    host: '127.0.0.1',
    port: 0,
    graceMs: 1000,
    runExpiresAfterS: 600,
    maxSteps: 50,
    downloadsInputs: true,
    inspectUrl: () => undefined,
  })
  const { raw, headers } = form([field('purpose', 'assistants'), filePart('0123456789')])
  const { body } = await createCaller({ baseUrl: api.url }).post('/files', undefined, {
    raw,
    headers,
  })
  const leaving = new AbortController()
  const answer = await fetch(`${api.url}/files/${body.id}/content`, {
    headers: { authorization: 'Bearer any' },
    signal: leaving.signal,
  })
  const pieces = answer.body?.getReader()
  expect(Buffer.from((await pieces?.read())?.value ?? []).toString()).toBe('01234')
  if (errors.length > 0) half.destroy(new Error('the disk broke'))
  else leaving.abort()
  await expect(pieces?.read()).rejects.toThrow(toldToClient)
  await eventually(() => logged.some(({ msg }) => msg === 'a connection broke'))
  expect(logged.filter((line) => line.level === 'error').map(({ msg }) => msg)).toEqual(errors)
})

test('a file that is sent again under its key is one file; without one it may be another', async () => {
  const { raw, headers } = form([field('purpose', 'assistants'), filePart('once only')])
  const send = (more: Record<string, string>) =>
    caller.post('/files', undefined, { raw, headers: { ...headers, ...more } })
  const first = await send({})
  // As the official clients mark a repetition.
  const again = await send({ 'x-stainless-retry-count': '1' })
  expect(again.body.id).not.toBe(first.body.id)
  const key = { 'idempotency-key': 'one-file' }
  expect((await send(key)).body).toEqual((await send(key)).body)
  await settled()
})

test.runIf(hasS3Server)(`files are kept in S3${withoutS3Server}`, async () => {
  await using s3 = await startS3Server()
  await using own = await startServer(s3.env)
  const { client } = own
  const made = await client.files.create({
    file: await toFile(Buffer.from('0123456789'), 'a.txt'),
    purpose: 'assistants',
  })
  const objects = () =>
    readdirSync(s3.bucketDir, { recursive: true, withFileTypes: true }).filter((entry) =>
      entry.isFile(),
    )
  expect(objects()).toHaveLength(1)
  expect(await (await client.files.content(made.id)).text()).toBe('0123456789')
  const part = await client.files.content(made.id, { headers: { range: 'bytes=3-5' } })
  expect([part.status, await part.text()]).toEqual([206, '345'])
  await client.files.delete(made.id)
  await eventually(() => objects().length === 0)
})

test('the official client uploads what its users give it, and reads it back', async () => {
  const { client } = server
  const path = join(dir.path, 'from disk.txt')
  writeFileSync(path, 'from disk')
  const sources: [OpenAI.FileCreateParams['file'], string][] = [
    [createReadStream(path), 'from disk.txt'],
    [
      await toFile(Buffer.from('from memory'), 'größe "1".txt', { type: 'text/plain' }),
      'größe "1".txt',
    ],
  ]
  for (const [file, filename] of sources) {
    const made = await client.files.create({
      file,
      purpose: 'assistants',
      expires_after: { anchor: 'created_at', seconds: 3600 },
    })
    expect(made.filename).toBe(filename)
    expect(made.expires_at).toBe(made.created_at + 3600)
    expect(await (await client.files.content(made.id)).text()).toMatch(/^from/)
    expect((await client.files.delete(made.id)).deleted).toBe(true)
  }
})
