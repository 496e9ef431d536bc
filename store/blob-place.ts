import type { Blobs } from './blobs.ts'
import type { Db } from './db.ts'

/**
 * The database remembers where the bytes of its files are. A process that looked elsewhere would find no file, and would
 * strike out as removed what it never had, so it does not start. Without files the place may change.
 */
export async function settlePlace(db: Db, { place }: Blobs): Promise<void> {
  await db.tx(async (tx) => {
    await tx.sql('INSERT INTO blob_place (id, name) VALUES ($1, $2) ON CONFLICT DO NOTHING', [
      place.id,
      place.name,
    ])
    const [known] = await tx.sql<{ id: string; name: string }>(
      'SELECT id, name FROM blob_place FOR UPDATE',
    )
    // A statement of its own: who wrote a key while the row was waited for must be seen.
    const [files] = await tx.sql<{ used: boolean }>(
      `SELECT EXISTS (SELECT FROM files) OR EXISTS (SELECT FROM upload_parts) OR EXISTS (SELECT FROM loose_blobs) AS used`,
    )
    if (known && known.id !== place.id && files?.used) {
      if (known.name === place.name) {
        throw new Error(
          `The files of this database were in ${place.name}, which has lost its file \`id\` or is another one now: bring back what was there, with that file.`,
        )
      }
      throw new Error(
        `The files of this database are in ${known.name}, and this process is to look for them in ${place.name}. ` +
          'Every process needs the same place: share one directory (FILES_DIR, or `files` in DATA_DIR) or one bucket (FILES_S3_BUCKET).',
      )
    }
    await tx.sql('UPDATE blob_place SET id = $1, name = $2', [place.id, place.name])
  })
}

/** For a process that started while there were no files, and meanwhile the place has become another's. */
export function placeTaken({ place }: Blobs): Error {
  return new Error(
    `This process keeps files in ${place.name}, and the database has been given another place since: a process with other ` +
      'settings was started. Every process needs the same FILES_DIR (or DATA_DIR) or FILES_S3_BUCKET.',
  )
}
