import {
  AbortMultipartUploadCommand,
  DeleteObjectCommand,
  GetObjectCommand,
  HeadBucketCommand,
  ListMultipartUploadsCommand,
  PutObjectCommand,
  S3Client,
  S3ServiceException,
} from '@aws-sdk/client-s3'
import { Upload } from '@aws-sdk/lib-storage'
import { randomUUID } from 'node:crypto'
import { PassThrough, pipeline, Readable } from 'node:stream'

import { unavailable } from '../../wire/errors.ts'
import type { Blobs } from '../blobs.ts'
import { MissingBlob } from './missing-blob.ts'

/** Without `credentials` and `region` the AWS SDK looks for them where it always does. */
export interface S3Options {
  bucket: string
  /** Put before every key: `longrun/`. */
  prefix: string
  region: string | undefined
  /** A server other than AWS. */
  endpoint: string | undefined
  credentials: { accessKeyId: string; secretAccessKey: string } | undefined
}

/** A part of an upload; two are in memory at a time. S3 takes 10,000 of them. */
const partBytes = 8 * 1024 * 1024

/** A download holds its socket for as long as its client takes, so they have sockets of their own. */
const maxDownloads = 1000
const maxSockets = 200
const connectionTimeoutMs = 10_000
/** Until the answer begins; a part of an upload has gone by then, over a slow line too. */
const requestTimeoutMs = 120_000

export async function openS3Blobs(options: S3Options): Promise<Blobs> {
  const { bucket, prefix, region, endpoint, credentials } = options
  const open = (sockets: number): S3Client =>
    new S3Client({
      requestHandler: {
        connectionTimeout: connectionTimeoutMs,
        requestTimeout: requestTimeoutMs,
        throwOnRequestTimeout: true,
        httpAgent: { keepAlive: true, maxSockets: sockets },
        httpsAgent: { keepAlive: true, maxSockets: sockets },
      },
      ...(endpoint && {
        endpoint,
        forcePathStyle: true,
        // Servers other than AWS do not all know the checksums that the SDK adds by itself.
        requestChecksumCalculation: 'WHEN_REQUIRED',
        responseChecksumValidation: 'WHEN_REQUIRED',
      }),
      ...((region ?? endpoint) && { region: region ?? 'us-east-1' }),
      ...(credentials && { credentials }),
    })
  const client = open(maxSockets)
  const downloads = open(maxDownloads)
  const close = (): void => {
    client.destroy()
    downloads.destroy()
  }
  const at = (key: string) => ({ Bucket: bucket, Key: `${prefix}${key}` })
  const place = { id: `s3://${bucket}/${prefix}`, name: `s3://${bucket}/${prefix}` }

  const blobs: Blobs = {
    place,
    async put(key, bytes) {
      const upload = new Upload({
        client,
        params: { ...at(key), Body: Readable.from(bytes, { objectMode: false }) },
        queueSize: 2,
        partSize: partBytes,
      })
      await upload.done().catch(told)
    },
    async get(key, range) {
      try {
        const { Body } = await downloads.send(
          new GetObjectCommand({
            ...at(key),
            ...(range && { Range: `bytes=${range.start}-${range.end}` }),
          }),
        )
        // An answer of HTTP does not close its connection when a loop over it is left: what is put behind it does. In Node
        // a body is a stream; its type is the union of all platforms.
        return pipeline(Body as Readable, new PassThrough(), () => {})
      } catch (error) {
        if (statusOf(error) === 404) throw new MissingBlob(key, place.name, { cause: error })
        return told(error)
      }
    },
    async delete(key) {
      await client.send(new DeleteObjectCommand(at(key))).catch(told)
      await abortUploads(client, at(key))
    },
    async [Symbol.asyncDispose]() {
      close()
    },
  }
  await assertUsable(blobs, client, options).catch((error: unknown) => {
    close()
    throw error
  })
  return blobs
}

/** Parts of an upload that was cut are in no list of objects and are paid for. */
async function abortUploads(
  client: S3Client,
  { Bucket, Key }: { Bucket: string; Key: string },
): Promise<void> {
  const { Uploads = [] } = await client
    .send(new ListMultipartUploadsCommand({ Bucket, Prefix: Key }))
    .catch(told)
  for (const { UploadId } of Uploads) {
    await client.send(new AbortMultipartUploadCommand({ Bucket, Key, UploadId })).catch(told)
  }
}

/** Does once what will be done with every file. */
async function assertUsable(blobs: Blobs, client: S3Client, options: S3Options): Promise<void> {
  const { bucket, prefix, endpoint } = options
  const probe = `probe-${randomUUID()}`
  const steps: [string, () => Promise<unknown>][] = [
    ['reach the bucket', () => client.send(new HeadBucketCommand({ Bucket: bucket }))],
    [
      'write to it',
      () =>
        client.send(
          new PutObjectCommand({ Bucket: bucket, Key: `${prefix}${probe}`, Body: probe }),
        ),
    ],
    ['read from it', async () => (await blobs.get(probe)).resume()],
    ['delete from it', () => blobs.delete(probe)],
  ]
  for (const [what, step] of steps) {
    try {
      await step()
    } catch (error) {
      const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error
      throw new Error(
        `Files are to be kept in ${blobs.place.name}${endpoint ? ` at ${endpoint}` : ''}, but this process cannot ${what}: ` +
          `${reason(cause, bucket)}. See FILES_S3_BUCKET and what belongs to it.`,
        { cause: error },
      )
    }
  }
}

function reason(error: unknown, bucket: string): string {
  if (!(error instanceof Error)) return String(error)
  const status = statusOf(error)
  if (status === 404) return `there is no bucket ${bucket}`
  if (status === 403) return `the credentials are refused or lack the permission (${error.name})`
  if (status === 301) return 'the bucket is in another region: set FILES_S3_REGION'
  return `${error.name}: ${error.message}`
}

function statusOf(error: unknown): number | undefined {
  return error instanceof S3ServiceException ? error.$metadata.httpStatusCode : undefined
}

/** What S3 answers is our fault, or nobody's for a while; what our own source throws is passed on. */
function told(error: unknown): never {
  const status = statusOf(error)
  const isAway =
    (status !== undefined && status >= 500) ||
    (error instanceof Error &&
      /^(TimeoutError|ETIMEDOUT|ECONN|ENOTFOUND|EAI_AGAIN|EPIPE)/.test(codeOf(error)))
  if (!isAway) throw error
  throw Object.assign(unavailable('the storage of files'), { cause: error })
}

function codeOf(error: Error): string {
  return 'code' in error ? String(error.code) : error.name
}
