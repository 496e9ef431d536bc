import { randomUUID } from 'node:crypto'

import { expect, test } from 'vitest'

import { createLogger } from '../../log.ts'
import { openBlobs, type Blobs } from '../../store/blobs.ts'
import { openStore, type Store } from '../../store/index.ts'
import { idFrom } from '../../wire/ids.ts'
import { eventually, scratchDir } from '../local/scratch.ts'
import { createDatabase } from '../support/server.ts'

async function* bytes(content: string): AsyncGenerator<Uint8Array> {
  yield Buffer.from(content)
}

/** An upload of two parts. */
async function pendingUpload(store: Store) {
  const { id: project_id } = await store.keys.defaultProject()
  const upload = await store.uploads.create({
    id: idFrom('upload', randomUUID()),
    project_id,
    created_at: new Date(),
    expires_at: new Date(Date.now() + 3_600_000),
    filename: 'a.txt',
    bytes: '7',
    purpose: 'assistants',
    mime_type: 'text/plain',
    file_expires_after_s: null,
  })
  const partIds: string[] = []
  for (const content of ['one ', 'two']) {
    await using written = await store.files.write(bytes(content))
    const part = { id: idFrom('part', randomUUID()), upload_id: upload.id }
    partIds.push((await store.uploads.addPart(project_id, part, written)).id)
  }
  return { upload, partIds }
}

const completion = (partIds: string[]) => ({
  fileId: idFrom('file', randomUUID()),
  partIds,
  md5: undefined,
})

/** A second process, which comes to reading the parts only once `until` has happened. */
async function slowly(blobs: Blobs, until: Promise<void>, databaseUrl: string) {
  const begun = Promise.withResolvers<void>()
  const slow: Blobs = {
    ...blobs,
    async get(key, range) {
      begun.resolve()
      await until
      return blobs.get(key, range)
    },
  }
  const log = createLogger('silent')
  const store = await openStore({ databaseUrl, log, maxConnections: 4, blobs: slow })
  return { store, begun: begun.promise }
}

test.each([
  ['completed by another with the same request, it has the same file', 'complete'],
  ['cancelled by another, it says so', 'cancel'],
] as const)('an upload whose parts go while they are read: %s', async (_, action) => {
  using dir = scratchDir()
  await using database = await createDatabase()
  await using blobs = await openBlobs({ dir: dir.path, s3: undefined })
  const log = createLogger('silent')
  await using store = await openStore({
    databaseUrl: database.url,
    log,
    maxConnections: 4,
    blobs,
  })
  const gone = Promise.withResolvers<void>()
  const slow = await slowly(blobs, gone.promise, database.url)
  await using other = slow.store
  const { upload, partIds } = await pendingUpload(store)

  const late = other.uploads
    .complete(upload.project_id, upload.id, completion(partIds))
    .catch((error: Error) => error.message)
  await slow.begun
  const expected =
    action === 'complete'
      ? await store.uploads.complete(upload.project_id, upload.id, completion(partIds))
      : await store.uploads
          .cancel(upload.project_id, upload.id)
          .then(() => "Cannot complete upload with status 'cancelled'.")
  await store.files.sweep()
  const swept = 'SELECT FROM loose_blobs WHERE written_until IS NULL'
  await eventually(async () => (await store.db.sql(swept)).length === 0)
  gone.resolve()
  expect(await late).toEqual(expected)
})
