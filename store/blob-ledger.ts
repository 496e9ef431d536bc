import { createHash, randomUUID } from 'node:crypto'
import type { Readable } from 'node:stream'

import type { Logger } from '../log.ts'
import { placeTaken } from './blob-place.ts'
import type { Blobs, ByteRange } from './blobs.ts'
import type { Db, Tx } from './db.ts'

/** Any source of bytes: a stream of the file system or of a request, or a generator. */
export type Source = AsyncIterable<Uint8Array>

/** Bytes that are safe and that no row names yet. Disposing removes them unless a row has been made for them. */
export interface Written extends AsyncDisposable {
  key: string
  /** How many. */
  bytes: number
  /** Of the bytes; sha256 unless another was asked for. */
  digest: Buffer
}

/**
 * Which bytes belong to nobody. A key is written down before its bytes are and struck out in the transaction that makes the
 * row which names it, so whatever dies in between leaves a note of what to remove.
 */
export interface BlobLedger extends AsyncDisposable {
  /** Throws what `source` throws; nothing stays then. */
  write(source: Source, hash?: 'sha256' | 'md5'): Promise<Written>
  /** To be called in the transaction that names the key. */
  adopt(tx: Tx, written: Written): Promise<void>
  /** Throws MissingBlob. */
  read(key: string, range?: ByteRange): Promise<Readable>
  /** Removes what belongs to nobody, off the caller's path; several processes may do so at once. Disposing stops it. */
  sweepSoon(): void
}

/** A writer that is not heard for this long has died. */
const leaseMs = 300_000
const renewMs = leaseMs / 5
const batch = 500

export function createBlobLedger(db: Db, blobs: Blobs, log: Logger): BlobLedger {
  let sweeping: Promise<void> | undefined
  let again = false
  let isStopped = false
  const adopted = new WeakSet<Written>()

  async function remove(key: string): Promise<void> {
    await blobs.delete(key)
    await db.sql('DELETE FROM loose_blobs WHERE blob = $1 AND written_until IS NULL', [key])
  }

  /** Not where a row has been made after all: whether a commit that was not heard took place shows in the ledger. */
  async function giveUp(key: string, wasAdopted: boolean): Promise<void> {
    const [loose] = await db.sql(
      'UPDATE loose_blobs SET written_until = NULL WHERE blob = $1 RETURNING blob',
      [key],
    )
    if (loose) await remove(key)
    // It was swept before the bytes arrived: nobody else knows of them any more.
    else if (!wasAdopted) await blobs.delete(key)
  }

  async function sweep(): Promise<void> {
    // What is elsewhere cannot be removed here, and must not be struck out.
    const [ours] = await db.sql('SELECT id FROM blob_place WHERE id = $1', [blobs.place.id])
    if (!ours) throw placeTaken(blobs)
    await db.sql('UPDATE loose_blobs SET written_until = NULL WHERE written_until < now()')
    let kept = 0
    let reason: unknown
    for (let last = ''; ;) {
      const rows = await db.sql<{ blob: string }>(
        `SELECT blob FROM loose_blobs WHERE written_until IS NULL AND blob > $1 ORDER BY blob LIMIT ${batch}`,
        [last],
      )
      for (const { blob } of rows) {
        if (isStopped) return
        // One that cannot be removed must not keep the others from it.
        await remove(blob).catch((error: unknown) => {
          kept += 1
          reason = error
        })
      }
      if (rows.length < batch) break
      last = rows.at(-1)?.blob ?? last
    }
    if (kept > 0) {
      log.warn({ err: reason, kept }, 'bytes of files could not be removed; it is tried again')
    }
  }

  return {
    async write(source, hash = 'sha256') {
      const key = randomUUID().replaceAll('-', '')
      // Locked, so that no other process makes the place its own between the look and the commit.
      const [noted] = await db.sql(
        `INSERT INTO loose_blobs (blob, written_until) SELECT $1, ${leaseEnd} FROM blob_place WHERE id = $2 FOR SHARE
         RETURNING blob`,
        [key, blobs.place.id],
      )
      if (!noted) throw placeTaken(blobs)
      const renewal = setInterval(() => {
        const renew = `UPDATE loose_blobs SET written_until = ${leaseEnd} WHERE blob = $1 AND written_until IS NOT NULL`
        // Where none gets through for the length of the lease the bytes cannot be adopted, which says so.
        db.sql(renew, [key]).catch(() => {})
      }, renewMs)
      const dispose = async (wasAdopted: boolean): Promise<void> => {
        clearInterval(renewal)
        // The sweep does it where this fails, and the caller has better news to tell.
        await giveUp(key, wasAdopted).catch(() => {})
      }
      const measure = createMeasure(source, hash)
      try {
        await blobs.put(key, measure.bytes)
      } catch (error) {
        await dispose(false)
        throw error
      }
      const written: Written = {
        key,
        ...measure.result(),
        [Symbol.asyncDispose]: () => dispose(adopted.has(written)),
      }
      return written
    },
    async adopt(tx, written) {
      const { key } = written
      const [mine] = await tx.sql(
        'DELETE FROM loose_blobs WHERE blob = $1 AND written_until IS NOT NULL RETURNING blob',
        [key],
      )
      if (!mine) throw new Error(`The bytes ${key} were given up before a row named them`)
      adopted.add(written)
    },
    read: (key, range) => blobs.get(key, range),
    sweepSoon() {
      if (isStopped) return
      again = true
      sweeping ??= (async () => {
        while (again && !isStopped) {
          again = false
          await sweep().catch((error: unknown) =>
            log.warn({ err: error }, 'the bytes of files could not be swept; it is tried again'),
          )
        }
        sweeping = undefined
      })()
    },
    async [Symbol.asyncDispose]() {
      isStopped = true
      await sweeping
    },
  }
}

const leaseEnd = `now() + interval '${leaseMs} milliseconds'`

/** Counts and hashes on the way through. */
function createMeasure(source: Source, algorithm: string) {
  const hash = createHash(algorithm)
  let bytes = 0
  async function* through(): AsyncGenerator<Uint8Array> {
    for await (const chunk of source) {
      bytes += chunk.length
      hash.update(chunk)
      yield chunk
    }
  }
  return {
    bytes: through(),
    result: () => ({ bytes, digest: hash.digest() }),
  }
}
