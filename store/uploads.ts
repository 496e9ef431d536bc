import type { Readable } from 'node:stream'

import {
  bytesOfPartsDiffer,
  md5Differs,
  notFound,
  partNotFound,
  uploadNotPending,
  uploadTooLarge,
} from '../wire/errors.ts'
import { MAX_UPLOAD_BYTES } from '../wire/limits.ts'
import type { BlobLedger, Source, Written } from './blob-ledger.ts'
import { MissingBlob } from './blobs/missing-blob.ts'
import type { Db, Tx } from './db.ts'
import { createFile, type NewFile } from './files.ts'
import type { FileRow, UploadPartRow, UploadRow } from './rows.ts'
import { insert } from './sql.ts'

/** Files that arrive in parts. Where an upload is not there they throw notFound, in the wrong state uploadNotPending. */
export interface Uploads {
  /** An id that is there already keeps what it has. */
  create(upload: NewUpload): Promise<UploadRow>
  /** Throws unless parts may be added: before their bytes are read. */
  assertPending(projectId: string, id: string, action: string): Promise<void>
  /** The same; then the bytes stay loose. */
  addPart(
    projectId: string,
    part: Pick<UploadPartRow, 'id' | 'upload_id'>,
    bytes: Written,
  ): Promise<UploadPartRow>
  /**
   * Joins the parts in this order. Nothing is locked while bytes are copied: what dies meanwhile leaves a pending upload,
   * and of two that complete it one makes the file. The same request sent again has the same answer.
   */
  complete(projectId: string, id: string, request: Completion): Promise<CompletedUpload>
  /** Sent again it has the same answer. */
  cancel(projectId: string, id: string): Promise<UploadRow>
  /** Closes what has expired and removes its parts. */
  sweep(): Promise<void>
}

export type NewUpload = Omit<UploadRow, 'status' | 'file_id' | 'part_ids' | 'md5'>

export interface Completion {
  /** Of the file that it makes. */
  fileId: FileRow['id']
  partIds: string[]
  /** Hexadecimal, in lower case. */
  md5: string | undefined
}

export interface CompletedUpload {
  upload: UploadRow
  /** Null once the file has been deleted. */
  file: FileRow | null
}

/** An upload that is being completed when it expires may be finished. */
const sweepGrace = '15 minutes'

export function createUploads(db: Db, ledger: BlobLedger): Uploads {
  return {
    async create(upload) {
      const [row] = await db.sql<UploadRow>(
        `INSERT INTO uploads (id, project_id, created_at, expires_at, filename, bytes, purpose, mime_type,
           file_expires_after_s, status)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 'pending') ON CONFLICT (id) DO NOTHING RETURNING *`,
        [
          upload.id,
          upload.project_id,
          upload.created_at,
          upload.expires_at,
          upload.filename,
          upload.bytes,
          upload.purpose,
          upload.mime_type,
          upload.file_expires_after_s,
        ],
      )
      return row ?? (await find(db, upload.project_id, upload.id))
    },
    async assertPending(projectId, id, action) {
      assertOpen(await find(db, projectId, id), action)
    },
    addPart: (projectId, part, written) =>
      db.tx(async (tx) => {
        const upload = await find(tx, projectId, part.upload_id, 'FOR NO KEY UPDATE')
        const [before] = await tx.sql<UploadPartRow>(
          'SELECT * FROM upload_parts WHERE id = $1 AND upload_id = $2',
          [part.id, part.upload_id],
        )
        if (before) return before
        assertOpen(upload, 'add parts to')
        const [sum] = await tx.sql<{ bytes: string }>(
          'SELECT coalesce(sum(bytes), 0) AS bytes FROM upload_parts WHERE upload_id = $1',
          [part.upload_id],
        )
        const total = Number(sum?.bytes) + written.bytes
        if (total > MAX_UPLOAD_BYTES) throw uploadTooLarge(MAX_UPLOAD_BYTES, total)
        const [row] = await insert<UploadPartRow>(tx.sql, 'upload_parts', [
          { ...part, bytes: String(written.bytes), blob: written.key },
        ])
        if (!row) throw new Error('INSERT INTO upload_parts returned no row')
        await ledger.adopt(tx, written)
        return row
      }),
    async complete(projectId, id, request) {
      const before = await find(db, projectId, id)
      if (isRepetition(before, request)) return completed(db, before)
      assertOpen(before, 'complete')
      try {
        return await join(db, ledger, before, request)
      } catch (error) {
        // Another request may have completed or cancelled it meanwhile, and its parts are gone.
        const now = await find(db, projectId, id)
        if (isRepetition(now, request)) return completed(db, now)
        if (error instanceof MissingBlob) assertOpen(now, 'complete')
        throw error
      }
    },
    cancel: (projectId, id) =>
      db.tx(async (tx) => {
        const upload = await find(tx, projectId, id, 'FOR UPDATE')
        if (upload.status === 'cancelled') return upload
        assertOpen(upload, 'cancel')
        await dropParts(tx, ledger, id)
        const [row] = await tx.sql<UploadRow>(
          `UPDATE uploads SET status = 'cancelled' WHERE id = $1 RETURNING *`,
          [id],
        )
        return row ?? upload
      }),
    async sweep() {
      const expired = await db.sql<Pick<UploadRow, 'id'>>(
        `SELECT id FROM uploads WHERE status = 'pending' AND expires_at < now() - interval '${sweepGrace}'`,
      )
      for (const { id } of expired) {
        await db.tx(async (tx) => {
          const [closed] = await tx.sql(
            `UPDATE uploads SET status = 'expired' WHERE id = $1 AND status = 'pending' RETURNING id`,
            [id],
          )
          if (closed) await dropParts(tx, ledger, id)
        })
      }
    },
  }
}

async function find(
  { sql }: Pick<Db, 'sql'>,
  projectId: string,
  id: string,
  lock = '',
): Promise<UploadRow> {
  const [upload] = await sql<UploadRow>(
    `SELECT * FROM uploads WHERE id = $1 AND project_id = $2 ${lock}`,
    [id, projectId],
  )
  if (!upload) throw notFound('upload', id)
  return upload
}

/** One whose time is over has expired, whether it has been swept yet or not. */
function assertOpen({ status, expires_at }: UploadRow, action: string): void {
  if (status !== 'pending') throw uploadNotPending(action, status)
  if (expires_at.getTime() <= Date.now()) throw uploadNotPending(action, 'expired')
}

function isRepetition(upload: UploadRow, { partIds, md5 }: Completion): boolean {
  if (upload.status !== 'completed') return false
  return (
    JSON.stringify(upload.part_ids) === JSON.stringify(partIds) &&
    (md5 === undefined || md5 === upload.md5)
  )
}

async function completed({ sql }: Pick<Db, 'sql'>, upload: UploadRow): Promise<CompletedUpload> {
  const [file] = await sql<FileRow>('SELECT * FROM files WHERE id = $1', [upload.file_id])
  return { upload, file: file ?? null }
}

async function join(
  db: Db,
  ledger: BlobLedger,
  upload: UploadRow,
  request: Completion,
): Promise<CompletedUpload> {
  const parts = await partsOf(db, upload, request)
  await using written = await ledger.write(joined(ledger, parts), 'md5')
  const md5 = written.digest.toString('hex')
  if (request.md5 !== undefined && request.md5 !== md5) throw md5Differs(request.md5, md5)
  return await db.tx(async (tx) => {
    const now = await find(tx, upload.project_id, upload.id, 'FOR UPDATE')
    // Begun in time, it may have expired since.
    if (now.status !== 'pending') throw uploadNotPending('complete', now.status)
    const file = await createFile(tx, ledger, fileOf(now, request), written)
    return { upload: await close(tx, ledger, now, { fileId: file.id, md5, request }), file }
  })
}

/** The parts in the order asked for. Each may stand there once, and together they must be as long as was announced. */
async function partsOf(
  { sql }: Db,
  upload: UploadRow,
  { partIds }: Completion,
): Promise<UploadPartRow[]> {
  const rows = await sql<UploadPartRow>(
    'SELECT * FROM upload_parts WHERE upload_id = $1 AND id = ANY ($2::text[])',
    [upload.id, partIds],
  )
  const unused = new Map<string, UploadPartRow>(rows.map((row) => [row.id, row]))
  const parts = partIds.map((id) => {
    const part = unused.get(id)
    if (!part) throw partNotFound(id, upload.id, partIds)
    unused.delete(id)
    return part
  })
  const total = parts.reduce((sum, { bytes }) => sum + Number(bytes), 0)
  if (total !== Number(upload.bytes)) throw bytesOfPartsDiffer(Number(upload.bytes), total)
  return parts
}

async function* joined(ledger: BlobLedger, parts: UploadPartRow[]): Source {
  for (const { blob } of parts) {
    const part: Readable = await ledger.read(blob)
    yield* part as AsyncIterable<Uint8Array>
  }
}

function fileOf(upload: UploadRow, { fileId }: Completion): NewFile {
  return {
    id: fileId,
    project_id: upload.project_id,
    filename: upload.filename,
    purpose: upload.purpose,
    mime_type: upload.mime_type,
    expiresAfterS: upload.file_expires_after_s,
  }
}

async function close(
  tx: Tx,
  ledger: BlobLedger,
  upload: UploadRow,
  { fileId, md5, request }: { fileId: FileRow['id']; md5: string; request: Completion },
): Promise<UploadRow> {
  await dropParts(tx, ledger, upload.id)
  const [row] = await tx.sql<UploadRow>(
    `UPDATE uploads SET status = 'completed', file_id = $2, part_ids = $3, md5 = $4 WHERE id = $1 RETURNING *`,
    [upload.id, fileId, JSON.stringify(request.partIds), md5],
  )
  if (!row) throw new Error(`Upload ${upload.id} is gone although it is locked`)
  return row
}

async function dropParts(tx: Tx, ledger: BlobLedger, uploadId: string): Promise<void> {
  await tx.sql('DELETE FROM upload_parts WHERE upload_id = $1', [uploadId])
  tx.afterCommit(() => ledger.sweepSoon())
}
