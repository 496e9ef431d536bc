import { createHash, randomUUID } from 'node:crypto'
import { existsSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import { buffer, text } from 'node:stream/consumers'

import { ListMultipartUploadsCommand, S3Client } from '@aws-sdk/client-s3'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'

import { openBlobs, type Blobs } from '../../store/blobs.ts'
import { MissingBlob } from '../../store/blobs/missing-blob.ts'
import { scratchDir } from '../local/scratch.ts'
import { hasS3Server, startS3Server, withoutS3Server, type S3Server } from '../support/s3.ts'

const dir = scratchDir()
let s3: S3Server | undefined
beforeAll(async () => {
  if (hasS3Server) s3 = await startS3Server()
})
afterAll(async () => {
  await s3?.[Symbol.asyncDispose]()
  dir[Symbol.dispose]()
})

const onDisk = () => openBlobs({ dir: dir.path, s3: undefined })
const inS3 = () => openBlobs({ dir: dir.path, s3: s3?.options })

const newKey = (): string => randomUUID().replaceAll('-', '')

async function* chunks(...contents: (string | Uint8Array)[]): AsyncGenerator<Uint8Array> {
  for (const content of contents) yield Buffer.from(content)
}

/** More than one part of an upload to S3, in pieces that fit nowhere, without ever being in memory as a whole. */
async function* pattern(pieces: number): AsyncGenerator<Uint8Array> {
  for (let i = 0; i < pieces; i += 1) yield Buffer.alloc(1_000_003, i % 251)
}

async function digest(bytes: AsyncIterable<Uint8Array>): Promise<string> {
  const hash = createHash('sha256')
  for await (const chunk of bytes) hash.update(chunk)
  return hash.digest('hex')
}

/** Every file below a folder, whoever put it there. */
function filesBelow(path: string): string[] {
  return readdirSync(path, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name !== 'id')
    .map(({ name }) => name)
}

describe.each([
  {
    name: 'on disk',
    isThere: true,
    open: onDisk,
    below: () => dir.path,
    unfinished: async () => [] as unknown[],
  },
  {
    name: `in S3${withoutS3Server}`,
    isThere: hasS3Server,
    open: inS3,
    below: () => s3?.bucketDir ?? '',
    unfinished: unfinishedUploads,
  },
])('$name', ({ isThere, open, below, unfinished }) => {
  let blobs: Blobs
  beforeAll(async () => {
    if (isThere) blobs = await open()
  })
  afterAll(async () => {
    await blobs?.[Symbol.asyncDispose]()
  })

  test.runIf(isThere)('bytes come back as they went in, all or a part of them', async () => {
    const key = newKey()
    await blobs.put(key, chunks('red, ', 'green ', 'and blue'))
    expect(await text(await blobs.get(key))).toBe('red, green and blue')
    expect(await text(await blobs.get(key, { start: 5, end: 9 }))).toBe('green')
    expect(await text(await blobs.get(key, { start: 0, end: 0 }))).toBe('r')
  })

  test.runIf(isThere)('nothing at all can be kept', async () => {
    const key = newKey()
    await blobs.put(key, chunks())
    expect(await text(await blobs.get(key))).toBe('')
  })

  test.runIf(isThere)('what is larger than a part of an upload comes back whole', async () => {
    const key = newKey()
    await blobs.put(key, pattern(20))
    expect(await digest(await blobs.get(key))).toBe(await digest(pattern(20)))
    const inTheMiddle = { start: 10_000_000, end: 10_000_029 }
    const part = await buffer(await blobs.get(key, inTheMiddle))
    // Piece 9 ends at byte 10,000,029.
    expect([...part]).toEqual(Array<number>(30).fill(9))
    await blobs.delete(key)
  })

  test.runIf(isThere)('what is not there is missed by name', async () => {
    await expect(blobs.get(newKey())).rejects.toThrow(MissingBlob)
    await expect(blobs.delete(newKey())).resolves.toBe(undefined)
  })

  test.runIf(isThere)('what has been deleted is gone', async () => {
    const key = newKey()
    await blobs.put(key, chunks('x'))
    expect(filesBelow(below())).toContain(key)
    await blobs.delete(key)
    await expect(blobs.get(key)).rejects.toThrow(MissingBlob)
    expect(filesBelow(below())).not.toContain(key)
  })

  test.runIf(isThere).each([1, 30])(
    'a source that breaks after %d MB leaves nothing, and its error is told',
    async (pieces) => {
      const before = filesBelow(below())
      const key = newKey()
      async function* broken(): AsyncGenerator<Uint8Array> {
        yield* pattern(pieces)
        throw new Error('the source broke')
      }
      await expect(blobs.put(key, broken())).rejects.toThrow('the source broke')
      await expect(blobs.get(key)).rejects.toThrow(MissingBlob)
      expect(filesBelow(below())).toEqual(before)
      expect(await unfinished()).toEqual([])
    },
  )

  test.runIf(isThere)('a reader that leaves early ends the reading', async () => {
    const key = newKey()
    await blobs.put(key, pattern(20))
    const stream: Readable = await blobs.get(key)
    for await (const _ of stream) break
    expect(stream.destroyed).toBe(true)
    await blobs.delete(key)
  })

  test.runIf(isThere)('opened again it is the same place', async () => {
    await using again = await open()
    expect(again.place).toEqual(blobs.place)
  })
})

/** What S3 keeps, in no list of objects, of uploads that were cut. */
async function unfinishedUploads(): Promise<unknown[]> {
  const { endpoint = '', credentials, bucket = '' } = s3?.options ?? {}
  const client = new S3Client({
    endpoint,
    region: 'us-east-1',
    forcePathStyle: true,
    ...(credentials && { credentials }),
  })
  const { Uploads = [] } = await client.send(new ListMultipartUploadsCommand({ Bucket: bucket }))
  client.destroy()
  return Uploads
}

test.runIf(hasS3Server)(
  `downloads whose clients have stopped reading do not keep others from files${withoutS3Server}`,
  async () => {
    await using blobs = await inS3()
    const [large, small] = [newKey(), newKey()]
    await blobs.put(large, pattern(20))
    // More than the AWS SDK would have connections by itself, and more bytes than those hold.
    const paused = await Promise.all(Array.from({ length: 60 }, () => blobs.get(large)))
    await blobs.put(small, chunks('x'))
    expect(await text(await blobs.get(small))).toBe('x')
    for (const stream of paused) stream.destroy()
  },
)

test('two processes that make the folder at once agree about its name', async () => {
  using fresh = scratchDir()
  const all = await Promise.all(
    Array.from({ length: 5 }, () => openBlobs({ dir: join(fresh.path, 'new'), s3: undefined })),
  )
  expect(new Set(all.map(({ place }) => place.id)).size).toBe(1)
  expect(existsSync(join(fresh.path, 'new', 'id'))).toBe(true)
})

test('a folder that cannot be used is refused with what to set', async () => {
  const path = join(dir.path, 'a-file')
  writeFileSync(path, '')
  await expect(openBlobs({ dir: path, s3: undefined })).rejects.toThrow(
    /Files cannot be kept in .*a-file \(.*\); set FILES_DIR to a directory/,
  )
})

describe(`a wrong configuration of S3 is told at boot${withoutS3Server}`, () => {
  test.runIf(hasS3Server).each([
    ['a bucket that is not there', { bucket: 'another' }, 'there is no bucket another'],
    [
      'credentials that nobody knows',
      { credentials: { accessKeyId: 'tester', secretAccessKey: 'wrong' } },
      'the credentials are refused or lack the permission',
    ],
  ])('%s', async (_, wrong, reason) => {
    const { options } = s3 ?? {}
    if (!options) throw new Error('there is no S3 server')
    await expect(openBlobs({ dir: '', s3: { ...options, ...wrong } })).rejects.toThrow(reason)
  })

  test('a server that is not there', async () => {
    const credentials = { accessKeyId: 'tester', secretAccessKey: 'any' }
    const options = { bucket: 'b', prefix: '', region: undefined, credentials }
    await expect(
      openBlobs({ dir: '', s3: { ...options, endpoint: 'http://127.0.0.1:9' } }),
    ).rejects.toThrow(
      /s3:\/\/b\/ at http:\/\/127.0.0.1:9, but this process cannot reach the bucket/,
    )
  })
})
