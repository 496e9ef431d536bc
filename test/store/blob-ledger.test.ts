import { randomUUID } from 'node:crypto'
import { readdirSync } from 'node:fs'
import { text } from 'node:stream/consumers'

import { pino } from 'pino'
import { afterAll, beforeAll, expect, test } from 'vitest'

import { createLogger } from '../../log.ts'
import { openBlobs, type Blobs } from '../../store/blobs.ts'
import type { NewFile } from '../../store/files.ts'
import { openStore, type Store } from '../../store/index.ts'
import { idFrom } from '../../wire/ids.ts'
import { eventually, scratchDir } from '../local/scratch.ts'
import { createDatabase } from '../support/server.ts'

const dir = scratchDir()
let database: Awaited<ReturnType<typeof createDatabase>>
let blobs: Blobs
let store: Store
beforeAll(async () => {
  database = await createDatabase()
  blobs = await openBlobs({ dir: dir.path, s3: undefined })
  store = await open(blobs)
})
afterAll(async () => {
  await store[Symbol.asyncDispose]()
  await database[Symbol.asyncDispose]()
  dir[Symbol.dispose]()
})

const open = (given: Blobs) =>
  openStore({
    databaseUrl: database.url,
    log: createLogger('silent'),
    maxConnections: 8,
    blobs: given,
  })

async function* bytes(...contents: string[]): AsyncGenerator<Uint8Array> {
  for (const content of contents) yield Buffer.from(content)
}

async function newFile(given: Partial<NewFile> = {}): Promise<NewFile> {
  const { id } = await store.keys.defaultProject()
  return {
    id: idFrom('file', randomUUID()),
    project_id: id,
    filename: 'a.txt',
    purpose: 'assistants_output',
    mime_type: null,
    expiresAfterS: null,
    ...given,
  }
}

const loose = () => store.db.sql<{ blob: string }>('SELECT blob FROM loose_blobs')

function onDisk(): string[] {
  const entries = readdirSync(dir.path, { recursive: true, withFileTypes: true })
  return entries.filter((entry) => entry.isFile() && entry.name !== 'id').map(({ name }) => name)
}

/** Bytes go behind the caller's back, in the order of their keys: once the last of all keys is gone, so are the others. */
async function sweep(by: Store): Promise<void> {
  const last = `zz-${randomUUID()}`
  await store.db.sql('INSERT INTO loose_blobs (blob) VALUES ($1)', [last])
  await by.files.sweep()
  await eventually(async () => !(await loose()).some(({ blob }) => blob === last))
}

/** As if the process that writes them had died long ago. */
const endLeases = () =>
  store.db.sql(`UPDATE loose_blobs SET written_until = now() - interval '1 second'`)

test('a file is made of a stream, and read back by whoever has its row', async () => {
  const file = await newFile()
  const row = await store.files.create(file, bytes('red, ', 'green'))
  expect(row).toMatchObject({ id: file.id, bytes: '10', filename: 'a.txt', expires_at: null })
  expect(await text(await store.files.content(row))).toBe('red, green')
  expect(await store.files.get(file.project_id, file.id)).toEqual(row)
  expect(await loose()).toEqual([])
})

test('made twice, as by a worker that was asked again, it is one file', async () => {
  const file = await newFile()
  const first = await store.files.create(file, bytes('first'))
  const before = onDisk().length
  expect(await store.files.create(file, bytes('second'))).toEqual(first)
  expect(await text(await store.files.content(first))).toBe('first')
  expect(onDisk()).toHaveLength(before)
  expect(await loose()).toEqual([])
})

test('bytes that are written are somebody’s until they are disposed', async () => {
  const before = onDisk().length
  {
    await using written = await store.files.write(bytes('x'))
    expect(await loose()).toEqual([{ blob: written.key }])
    await sweep(store)
    expect(onDisk()).toHaveLength(before + 1)
  }
  expect(onDisk()).toHaveLength(before)
  expect(await loose()).toEqual([])
})

test('what a process that died was writing is removed by another', async () => {
  const before = onDisk().length
  const blocked = Promise.withResolvers<void>()
  async function* endless(): AsyncGenerator<Uint8Array> {
    yield Buffer.alloc(2_000_000)
    await blocked.promise
  }
  const writing = store.files.write(endless())
  const ended = writing.then(String, (error: NodeJS.ErrnoException) => error.code)
  await eventually(() => onDisk().length > before)
  await endLeases()
  await using otherBlobs = await openBlobs({ dir: dir.path, s3: undefined })
  await using other = await open(otherBlobs)
  await sweep(other)
  expect(onDisk()).toHaveLength(before)
  expect(await loose()).toEqual([])
  // It was not dead after all.
  blocked.resolve()
  expect(await ended).toBe('ENOENT')
})

test('a writer that was taken for dead cannot make a file of what was removed', async () => {
  await using written = await store.files.write(bytes('x'))
  await endLeases()
  await sweep(store)
  const file = await newFile()
  await expect(store.files.create(file, written)).rejects.toThrow('were given up')
  expect(await store.files.get(file.project_id, file.id)).toBe(undefined)
})

test('bytes that arrive after their writer was taken for dead are removed by it', async () => {
  const before = onDisk()
  const arriving = Promise.withResolvers<void>()
  await using late = await open({
    ...blobs,
    async put(key, source) {
      await arriving.promise
      await blobs.put(key, source)
    },
  })
  const writing = late.files.write(bytes('x'))
  await eventually(async () => (await loose()).length === 1)
  await endLeases()
  await sweep(store)
  arriving.resolve()
  {
    await using written = await writing
    expect(onDisk()).toContain(written.key)
    const file = await newFile()
    await expect(late.files.create(file, written)).rejects.toThrow('were given up')
  }
  expect(onDisk()).toEqual(before)
})

test('a process that stops does not wait until all bytes are removed', async () => {
  const removing = Promise.withResolvers<void>()
  const goOn = Promise.withResolvers<void>()
  const stopping = await open({
    ...blobs,
    async delete(key) {
      removing.resolve()
      await goOn.promise
      await blobs.delete(key)
    },
  })
  await store.db.sql(`INSERT INTO loose_blobs (blob) VALUES ('a1'), ('a2'), ('a3')`)
  await stopping.files.sweep()
  await removing.promise
  const stopped = stopping[Symbol.asyncDispose]()
  goOn.resolve()
  await stopped
  expect(await loose()).toEqual([{ blob: 'a2' }, { blob: 'a3' }])
  await sweep(store)
  expect(await loose()).toEqual([])
})

test('two processes sweep at once', async () => {
  await using otherBlobs = await openBlobs({ dir: dir.path, s3: undefined })
  await using other = await open(otherBlobs)
  const before = onDisk().length
  const rows = await Promise.all(
    Array.from({ length: 20 }, async () =>
      store.files.create(await newFile({ expiresAfterS: 3600 }), bytes('x')),
    ),
  )
  await store.db.sql('UPDATE files SET expires_at = now() WHERE id = ANY ($1::text[])', [
    rows.map(({ id }) => id),
  ])
  await Promise.all([store.files.sweep(), other.files.sweep()])
  await eventually(async () => (await loose()).length === 0)
  expect(onDisk()).toHaveLength(before)
  expect(await loose()).toEqual([])
})

test('a process that would look for the files elsewhere does not start', async () => {
  await store.files.create(await newFile(), bytes('x'))
  using elsewhere = scratchDir()
  await using others = await openBlobs({ dir: elsewhere.path, s3: undefined })
  await expect(open(others)).rejects.toThrow(
    `The files of this database are in ${blobs.place.name}, and this process is to look for them in ${others.place.name}.`,
  )
})

test('without files the place may change', async () => {
  await using empty = await createDatabase()
  const options = { databaseUrl: empty.url, log: createLogger('silent'), maxConnections: 2 }
  using elsewhere = scratchDir()
  await using others = await openBlobs({ dir: elsewhere.path, s3: undefined })
  await using _first = await openStore({ ...options, blobs })
  await using second = await openStore({ ...options, blobs: others })
  expect(await second.db.sql('SELECT id FROM blob_place')).toEqual([{ id: others.place.id }])
})

test('of two processes that start before there are files, with places of their own, one writes them', async () => {
  await using empty = await createDatabase()
  const options = { databaseUrl: empty.url, log: createLogger('silent'), maxConnections: 2 }
  using elsewhere = scratchDir()
  await using others = await openBlobs({ dir: elsewhere.path, s3: undefined })
  await using first = await openStore({ ...options, blobs })
  await using second = await openStore({ ...options, blobs: others })
  await expect(first.files.write(bytes('x'))).rejects.toThrow(
    `This process keeps files in ${blobs.place.name}, and the database has been given another place since`,
  )
  await using written = await second.files.write(bytes('x'))
  expect(await second.db.sql('SELECT blob FROM loose_blobs')).toEqual([{ blob: written.key }])
})

test('what another place holds is not struck out by who cannot remove it', async () => {
  await using empty = await createDatabase()
  using elsewhere = scratchDir()
  await using others = await openBlobs({ dir: elsewhere.path, s3: undefined })
  const logged: string[] = []
  const log = pino({}, { write: (line) => void logged.push(line) })
  const options = { databaseUrl: empty.url, maxConnections: 2 }
  await using first = await openStore({ ...options, log, blobs })
  await using second = await openStore({ ...options, log: createLogger('silent'), blobs: others })
  await second.db.sql(`INSERT INTO loose_blobs (blob) VALUES ('a1')`)
  await first.files.sweep()
  await eventually(() => logged.some((line) => line.includes('has been given another place')))
  expect(await second.db.sql('SELECT blob FROM loose_blobs')).toEqual([{ blob: 'a1' }])
})
