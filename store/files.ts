import { Op } from 'sequelize'
import type { Readable } from 'node:stream'

import type { BlobLedger, Source, Written } from './blob-ledger.ts'
import type { ByteRange } from './blobs.ts'
import type { Db, Tx } from './db.ts'
import { rememberGone } from './gone.ts'
import { listPage, type ListQuery, type Rows } from './lists.ts'
import type { TableOf } from './models/index.ts'
import type { FileRow } from './rows.ts'
import { insert } from './sql.ts'

/** Files of a project. One that has expired is gone, whether it has been swept yet or not. */
export interface Files {
  /** Stores bytes for a file that is made later: `await using bytes = await files.write(stream)`. Throws what `source` throws. */
  write(source: Source): Promise<Written>
  /** Makes a file of a stream, or of bytes that have been written. An id that is there already keeps what it has. */
  create(file: NewFile, bytes: Source | Written): Promise<FileRow>
  get(projectId: string, id: string): Promise<FileRow | undefined>
  list(projectId: string, purpose: string | undefined, query: ListQuery): Promise<Rows<FileRow>>
  /** The bytes, or a part of them, from the row of a `get`. Destroying the stream ends the reading. Throws MissingBlob. */
  content(file: Pick<FileRow, 'blob'>, range?: ByteRange): Promise<Readable>
  /** Takes it out of every list that names it as well. False where there is none. */
  delete(projectId: string, id: string): Promise<boolean>
  /**
   * Deletes what has expired; several processes may do so at once. Bytes that belong to nobody go behind the caller's back,
   * so that a process that stops need not wait for all of them.
   */
  sweep(): Promise<void>
}

export interface NewFile extends Pick<
  FileRow,
  'id' | 'project_id' | 'filename' | 'purpose' | 'mime_type'
> {
  /** Seconds after its creation; null for ever. */
  expiresAfterS: number | null
}

const unexpired = '(expires_at IS NULL OR expires_at > now())'
const batch = 100

export function createFiles(db: Db, table: TableOf<FileRow>, ledger: BlobLedger): Files {
  return {
    write: (source) => ledger.write(source),
    async create(file, bytes) {
      await using own = 'key' in bytes ? undefined : await ledger.write(bytes)
      const written = own ?? (bytes as Written)
      return await db.tx((tx) => createFile(tx, ledger, file, written))
    },
    async get(projectId, id) {
      const [row] = await db.sql<FileRow>(
        `SELECT * FROM files WHERE id = $1 AND project_id = $2 AND ${unexpired}`,
        [id, projectId],
      )
      return row
    },
    list: (projectId, purpose, query) =>
      listPage(
        db,
        table,
        {
          project_id: projectId,
          ...(purpose !== undefined && { purpose }),
          expires_at: { [Op.or]: [{ [Op.is]: null }, { [Op.gt]: new Date() }] },
        },
        query,
      ),
    content: (file, range) => ledger.read(file.blob, range),
    delete: (projectId, id) =>
      db.tx((tx) => deleteFile(tx, ledger, id, `project_id = $2 AND ${unexpired}`, [projectId])),
    async sweep() {
      for (;;) {
        const expired = await db.sql<Pick<FileRow, 'id'>>(
          `SELECT id FROM files WHERE expires_at <= now() ORDER BY expires_at LIMIT ${batch}`,
        )
        for (const { id } of expired) {
          await db.tx((tx) => deleteFile(tx, ledger, id, 'expires_at <= now()', []))
        }
        if (expired.length < batch) break
      }
      ledger.sweepSoon()
    },
  }
}

/** The row of bytes that have been written; where the id is there already, its row, and the bytes stay loose. */
export async function createFile(
  tx: Tx,
  ledger: BlobLedger,
  { expiresAfterS, ...file }: NewFile,
  written: Written,
): Promise<FileRow> {
  const [before] = await tx.sql<FileRow>('SELECT * FROM files WHERE id = $1', [file.id])
  if (before) return before
  const now = Date.now()
  const [row] = await insert<FileRow>(tx.sql, 'files', [
    {
      ...file,
      created_at: new Date(now),
      expires_at: expiresAfterS === null ? null : new Date(now + expiresAfterS * 1000),
      bytes: String(written.bytes),
      blob: written.key,
    },
  ])
  if (!row) throw new Error('INSERT INTO files returned no row')
  await ledger.adopt(tx, written)
  return row
}

/**
 * The file is locked before those who name it, as everywhere: who is about to name it has locked it first, and is either
 * seen here or finds it gone. Vector stores and the lists of v1 follow by their foreign keys.
 */
async function deleteFile(
  tx: Tx,
  ledger: BlobLedger,
  id: string,
  condition: string,
  values: unknown[],
): Promise<boolean> {
  const [file] = await tx.sql<Pick<FileRow, 'id'>>(
    `SELECT id FROM files WHERE id = $1 AND ${condition} FOR UPDATE`,
    [id, ...values],
  )
  if (!file) return false
  for (const table of ['assistants', 'threads']) {
    await tx.sql(
      `WITH naming AS (
         SELECT id FROM ${table} WHERE tool_resources ? 'code_interpreter'
           AND tool_resources -> 'code_interpreter' -> 'file_ids' ? $1::text ORDER BY id FOR NO KEY UPDATE)
       UPDATE ${table} t SET tool_resources = jsonb_set(t.tool_resources, '{code_interpreter,file_ids}',
           (t.tool_resources -> 'code_interpreter' -> 'file_ids') - $1::text)
         FROM naming WHERE t.id = naming.id`,
      [id],
    )
  }
  await tx.sql(
    `WITH deleted AS (DELETE FROM files WHERE id = $1 RETURNING *) ${rememberGone('files')}`,
    [id],
  )
  tx.afterCommit(() => ledger.sweepSoon())
  return true
}
