import type { Readable } from 'node:stream'

import { openDiskBlobs } from './blobs/disk.ts'
import { openS3Blobs, type S3Options } from './blobs/s3.ts'

/** Bytes under keys, which are 32 hexadecimal digits that nobody uses twice. What is stored never changes. */
export interface Blobs extends AsyncDisposable {
  /** Where the bytes are: `id` is compared with what the database remembers, `name` is for people. */
  place: { id: string; name: string }
  /** Resolves once the bytes are safe. When it throws, which it does with what `bytes` throws, nothing stays. */
  put(key: string, bytes: AsyncIterable<Uint8Array>): Promise<void>
  /** The bytes from `start` to `end`, both included. Destroying the stream ends the reading. Throws MissingBlob. */
  get(key: string, range?: ByteRange): Promise<Readable>
  /** Removes it, and what a writer that died has left of it. Nothing happens where there is nothing. */
  delete(key: string): Promise<void>
}

export interface ByteRange {
  start: number
  end: number
}

export interface BlobOptions {
  dir: string
  s3: S3Options | undefined
}

/** For a process that has to do with rows only. */
export const noBlobs: Blobs = {
  place: { id: 'none', name: 'none' },
  put: refuse,
  get: refuse,
  delete: refuse,
  async [Symbol.asyncDispose]() {},
}

async function refuse(): Promise<never> {
  throw new Error('This process was not given a storage of files')
}

/** Throws an Error that says what to set where the place cannot be used. */
export function openBlobs({ dir, s3 }: BlobOptions): Promise<Blobs> {
  return s3 ? openS3Blobs(s3) : openDiskBlobs(dir)
}
