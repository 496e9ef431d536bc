import { createHash, randomUUID } from 'node:crypto'
import { readdirSync } from 'node:fs'
import { rename } from 'node:fs/promises'
import { join } from 'node:path'

import { afterAll, beforeAll, expect, test } from 'vitest'

import { eventually, scratchDir } from '../local/scratch.ts'
import { queryOnce } from '../support/cluster.ts'
import { startServer, type TestServer } from '../support/server.ts'
import { createCaller, refusal, refused, type Answer, type Body, type Caller } from './caller.ts'
import { field, form, type FormPart } from './form.ts'

let server: TestServer
let caller: Caller
const dir = scratchDir()
beforeAll(async () => {
  server = await startServer({ FILES_DIR: dir.path, RECONCILE_S: '0.2' })
  caller = createCaller(server)
})
afterAll(async () => {
  await server[Symbol.asyncDispose]()
  dir[Symbol.dispose]()
})

const sql = <Row extends object>(text: string, values: unknown[] = []) =>
  queryOnce<Row>(server.databaseUrl, text, values)

const md5 = (text: string): string => createHash('md5').update(text).digest('hex')

function create(given: object = {}): Promise<Body> {
  return caller.make('/uploads', {
    filename: 'colours.txt',
    purpose: 'assistants',
    bytes: 9,
    mime_type: 'text/plain',
    ...given,
  })
}

const data = (content: string | Uint8Array): FormPart => ({
  disposition: 'name="data"; filename="upload"',
  content,
})

const postPart = (uploadId: string, parts: FormPart[]) => {
  const { raw, headers } = form(parts)
  return caller.post(`/uploads/${uploadId}/parts`, undefined, { raw, headers })
}

async function addPart(uploadId: string, content: string): Promise<string> {
  const { status, body, text } = await postPart(uploadId, [data(content)])
  if (status !== 200) throw new Error(text)
  return body.id
}

/** An upload with these parts, and their ids. */
async function withParts(...contents: string[]): Promise<{ id: string; parts: string[] }> {
  const { id } = await create({ bytes: Buffer.byteLength(contents.join('')) })
  const parts: string[] = []
  for (const content of contents) parts.push(await addPart(id, content))
  return { id, parts }
}

const complete = (id: string, part_ids: string[], rest: object = {}) =>
  caller.post(`/uploads/${id}/complete`, { part_ids, ...rest })

/** The disk holds the bytes of the rows that there are, and nothing else. */
async function settled(): Promise<void> {
  await eventually(async () => {
    const rows = await sql<{ blob: string }>(
      'SELECT blob FROM files UNION ALL SELECT blob FROM upload_parts ORDER BY blob',
    )
    const entries = readdirSync(dir.path, { recursive: true, withFileTypes: true })
    const keys = entries.filter((entry) => entry.isFile() && entry.name !== 'id')
    return String(keys.map(({ name }) => name).toSorted()) === String(rows.map(({ blob }) => blob))
  })
}

test('a new upload is pending for an hour', async () => {
  const upload = await create({ filename: 'größe.txt' })
  expect(upload).toEqual({
    id: expect.stringMatching(/^upload_[0-9A-Za-z]{24}$/),
    object: 'upload',
    bytes: 9,
    created_at: expect.any(Number),
    expires_at: Number(upload['created_at']) + 3600,
    filename: 'größe.txt',
    purpose: 'assistants',
    status: 'pending',
    file: null,
  })
})

test('of the name of an upload the folders are dropped', async () => {
  expect((await create({ filename: '/home/me/100%22.txt' }))['filename']).toBe('100%22.txt')
  const { status, body } = await caller.post('/uploads', {
    filename: 'folder/',
    purpose: 'vision',
    bytes: 1,
    mime_type: 'image/png',
  })
  expect([status, body.error.code]).toEqual([400, 'empty_string'])
})

test('parts come in any order and at once; the file has them in the order asked for', async () => {
  const { id } = await create()
  const [b, c, a] = await Promise.all([addPart(id, 'green'), addPart(id, 'x'), addPart(id, 'red')])
  const part = (await postPart(id, [data('unused')])).body
  expect(part).toEqual({
    id: expect.stringMatching(/^part_[0-9A-Za-z]{24}$/),
    object: 'upload.part',
    created_at: expect.any(Number),
    upload_id: id,
  })
  const { status, body } = await complete(id, [a, c, b], { md5: md5('redxgreen') })
  expect(status).toBe(200)
  expect(body).toMatchObject({ id, status: 'completed', bytes: 9 })
  const file = body['file'] as Body
  expect(file).toMatchObject({
    object: 'file',
    bytes: 9,
    filename: 'colours.txt',
    purpose: 'assistants',
    expires_at: null,
    status: 'processed',
  })
  const content = await caller.get(`/files/${file.id}/content`)
  expect(content.text).toBe('redxgreen')
  expect(content.headers.get('content-type')).toBe('text/plain')
  await settled()
})

test('the lifetime that an upload was given begins with its file', async () => {
  const { id } = await create({ expires_after: { anchor: 'created_at', seconds: 7200 } })
  await sql(`UPDATE uploads SET created_at = created_at - interval '10 minutes' WHERE id = $1`, [
    id,
  ])
  const { body } = await complete(id, [await addPart(id, 'redxgreen')])
  const file = body['file'] as Body
  expect(file['expires_at']).toBe(Number(file['created_at']) + 7200)
})

test('completed again, as after an answer that was lost, it is the same file', async () => {
  const { id, parts } = await withParts('one ', 'two')
  const first = await complete(id, parts, { md5: md5('one two') })
  expect((await complete(id, parts, { md5: md5('one two').toUpperCase() })).body).toEqual(
    first.body,
  )
  expect((await complete(id, parts)).body).toEqual(first.body)
  const { body } = await complete(id, parts.toReversed())
  expect(body.error.message).toBe("Cannot complete upload with status 'completed'.")
})

test('whose process died after the commit and before it could say so, it is made once, and so are its parts', async () => {
  /** Sent twice; after the first time all that such a process leaves behind is that the request came. */
  const twice = async (send: (headers: Record<string, string>) => Promise<Answer>) => {
    const key = randomUUID()
    const first = await send({ 'idempotency-key': key })
    await sql(
      `UPDATE requests SET status = NULL, body = NULL, alive_at = now() - interval '1 minute' WHERE key = $1`,
      [key],
    )
    const again = await send({ 'idempotency-key': key })
    expect(again.headers.has('idempotency-replayed')).toBe(false)
    expect([again.status, again.body]).toEqual([200, first.body])
    return first.body.id
  }
  const upload = { filename: 'a.txt', purpose: 'assistants', bytes: 3, mime_type: 'text/plain' }
  const id = await twice((headers) => caller.post('/uploads', upload, { headers }))
  const part = await twice((more) => {
    const { raw, headers } = form([data('red')])
    return caller.post(`/uploads/${id}/parts`, undefined, { raw, headers: { ...headers, ...more } })
  })
  expect(await sql('SELECT id FROM upload_parts WHERE upload_id = $1', [id])).toEqual([
    { id: part },
  ])
  expect((await complete(id, [part])).status).toBe(200)
  await settled()
})

test('of two that complete at once one makes the file', async () => {
  const { id, parts } = await withParts('one ', 'two')
  const answers = await Promise.all([complete(id, parts), complete(id, parts)])
  const [one, other] = answers.map(({ body }) => (body['file'] as Body).id)
  expect(one).toBe(other)
  expect(await sql('SELECT id FROM files WHERE id = $1', [one])).toHaveLength(1)
  await settled()
})

test('parts that are not what was announced are refused, and the upload stays pending', async () => {
  const { id, parts } = await withParts('one ', 'two')
  const [one = '', two = ''] = parts
  const { parts: foreign } = await withParts('foreign')
  const [stranger = ''] = foreign
  const invalid = (message: string, param: string) => refused(400, message, param, 'invalid_value')
  expect(refusal(await complete(id, [one]))).toEqual(
    invalid(
      'The upload was created for 7 bytes, but the parts named have 4 bytes in all.',
      'part_ids',
    ),
  )
  expect(refusal(await complete(id, [one, stranger]))).toEqual(
    invalid(`No part found with id '${stranger}' in upload '${id}'.`, 'part_ids[1]'),
  )
  expect(refusal(await complete(id, [one, one]))).toEqual(
    invalid(`Part '${one}' is named more than once.`, 'part_ids[0]'),
  )
  const wrong = '0'.repeat(32)
  expect(refusal(await complete(id, [one, two], { md5: wrong }))).toEqual(
    invalid(
      `The md5 checksum of the uploaded bytes is '${md5('one two')}', but '${wrong}' was expected.`,
      'md5',
    ),
  )
  expect(refusal(await complete(id, [one, two], { md5: 'no checksum' }))).toMatchObject({
    status: 400,
    param: 'md5',
  })
  expect((await complete(id, parts)).status).toBe(200)
  await settled()
})

test('a cancelled upload takes no parts and makes no file', async () => {
  const { id, parts } = await withParts('one ', 'two')
  const { body } = await caller.post(`/uploads/${id}/cancel`)
  expect(body).toMatchObject({ id, status: 'cancelled', file: null })
  await settled()
  const refusedTo = (action: string) =>
    refused(400, `Cannot ${action} upload with status 'cancelled'.`)
  expect(refusal(await postPart(id, [data('x')]))).toEqual(refusedTo('add parts to'))
  expect(refusal(await complete(id, parts))).toEqual(refusedTo('complete'))
  const again = await caller.post(`/uploads/${id}/cancel`)
  expect([again.status, again.body['status']]).toEqual([200, 'cancelled'])
})

test('a completed upload is neither cancelled nor added to', async () => {
  const { id, parts } = await withParts('one ', 'two')
  await complete(id, parts)
  const refusedTo = (action: string) =>
    refused(400, `Cannot ${action} upload with status 'completed'.`)
  expect(refusal(await postPart(id, [data('x')]))).toEqual(refusedTo('add parts to'))
  expect(refusal(await caller.post(`/uploads/${id}/cancel`))).toEqual(refusedTo('cancel'))
})

test('an expired upload says so, and its parts are removed', async () => {
  const { id, parts } = await withParts('one ', 'two')
  await sql('UPDATE uploads SET expires_at = now() WHERE id = $1', [id])
  const refusedTo = (action: string) =>
    refused(400, `Cannot ${action} upload with status 'expired'.`)
  expect(refusal(await postPart(id, [data('x')]))).toEqual(refusedTo('add parts to'))
  expect(refusal(await complete(id, parts))).toEqual(refusedTo('complete'))
  expect(refusal(await caller.post(`/uploads/${id}/cancel`))).toEqual(refusedTo('cancel'))
  // What has just expired may be in the middle of its completion.
  await sql(`UPDATE uploads SET expires_at = now() - interval '20 minutes' WHERE id = $1`, [id])
  await eventually(
    async () => (await sql('SELECT id FROM upload_parts WHERE upload_id = $1', [id])).length === 0,
  )
  expect(refusal(await complete(id, parts))).toEqual(refusedTo('complete'))
  await settled()
})

test('an upload that is not there, or is another project’s, is refused', async () => {
  const missing = refused(404, "No upload found with id 'upload_none'.")
  expect(refusal(await postPart('upload_none', [data('x')]))).toEqual(missing)
  expect(refusal(await complete('upload_none', []))).toEqual(missing)
  expect(refusal(await caller.post('/uploads/upload_none/complete', {}))).toEqual(missing)
  expect(refusal(await caller.post('/uploads/upload_none/cancel'))).toEqual(missing)
  const { id } = await create()
  await sql(`INSERT INTO projects (id, name) VALUES ('proj_other', 'other')`)
  await sql(`UPDATE uploads SET project_id = 'proj_other' WHERE id = $1`, [id])
  expect((await postPart(id, [data('x')])).status).toBe(404)
})

test.each<[string, object, ReturnType<typeof refused>]>([
  [
    'more than 8 GB',
    { bytes: 8 * 1024 ** 3 + 1 },
    refused(
      400,
      "Invalid 'bytes': integer above maximum value. Expected a value <= 8589934592, but got 8589934593 instead.",
      'bytes',
      'integer_above_max_value',
    ),
  ],
  [
    'an unknown purpose',
    { purpose: 'notes' },
    refused(
      400,
      "'notes' is not one of ['fine-tune', 'assistants', 'batch', 'user_data', 'vision', 'evals'] - 'purpose'",
      'purpose',
    ),
  ],
  [
    'no type',
    { mime_type: undefined },
    refused(
      400,
      "Missing required parameter: 'mime_type'.",
      'mime_type',
      'missing_required_parameter',
    ),
  ],
])('an upload with %s is refused', async (_, given, expected) => {
  const body = { filename: 'a', purpose: 'vision', bytes: 1, mime_type: 'image/png', ...given }
  expect(refusal(await caller.post('/uploads', body))).toEqual(expected)
})

test('a part is one file named data, of at most 64 MB', async () => {
  const { id } = await create()
  expect(refusal(await postPart(id, []))).toEqual(refused(400, "'data' is a required property"))
  expect(refusal(await postPart(id, [data('x'), field('size', '1')]))).toEqual(
    refused(400, "Additional properties are not allowed ('size' was unexpected)"),
  )
  const tooLarge = await postPart(id, [data(new Uint8Array(64 * 1024 ** 2 + 1))])
  expect(refusal(tooLarge)).toEqual(refused(413, 'Maximum content size limit (67108864) exceeded.'))
  await settled()
})

test('the parts of an upload have 8 GB at most', async () => {
  const { id } = await create()
  await addPart(id, 'x')
  await sql('UPDATE upload_parts SET bytes = $2 WHERE upload_id = $1', [id, 8 * 1024 ** 3])
  const { status, body } = await postPart(id, [data('y')])
  expect([status, body.error.param]).toEqual([400, 'data'])
  await settled()
})

test('a copy that fails in the middle leaves a pending upload, which can be completed', async () => {
  const { id, parts } = await withParts('one ', 'two')
  const rows = await sql<{ blob: string }>('SELECT blob FROM upload_parts WHERE id = $1', [
    parts[1],
  ])
  const key = rows[0]?.blob ?? ''
  const path = join(dir.path, key.slice(0, 2), key)
  await rename(path, `${path}.away`)
  expect((await complete(id, parts)).status).toBe(500)
  await rename(`${path}.away`, path)
  const { status, body } = await complete(id, parts)
  expect(status).toBe(200)
  const { text } = await caller.get(`/files/${(body['file'] as Body).id}/content`)
  expect(text).toBe('one two')
  await settled()
})

test('an upload whose file has been deleted shows none', async () => {
  const { id, parts } = await withParts('one ', 'two')
  const { body } = await complete(id, parts)
  await caller.delete(`/files/${(body['file'] as Body).id}`)
  expect((await complete(id, parts)).body['file']).toBe(null)
})

test('an upload of nothing is an empty file', async () => {
  const { id } = await create({ bytes: 0 })
  expect((await complete(id, [])).body['file']).toMatchObject({ bytes: 0 })
})

test('the official client uploads in parts', async () => {
  const { client } = server
  const upload = await client.uploads.create({
    filename: 'a.jsonl',
    purpose: 'batch',
    bytes: 4,
    mime_type: 'application/jsonl',
  })
  const one = await client.uploads.parts.create(upload.id, { data: new File(['{}'], 'part') })
  const two = await client.uploads.parts.create(upload.id, { data: new Blob(['\n\n']) as File })
  const done = await client.uploads.complete(upload.id, { part_ids: [one.id, two.id] })
  expect(done.status).toBe('completed')
  const file = await client.files.retrieve(done.file?.id ?? '')
  expect(file.expires_at).toBe(file.created_at + 2_592_000)
  expect(await (await client.files.content(file.id)).text()).toBe('{}\n\n')
})
