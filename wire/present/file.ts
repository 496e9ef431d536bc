import type { FileRow } from '../../store/rows.ts'
import type { FileDeleted, FileObject } from '../openai.ts'
import { seconds, secondsOrNull } from '../time.ts'

/** The live answers had every field, with null for what there is not, and `processed` at once (spec D18). */
export type PresentedFile = Omit<FileObject, 'purpose' | 'expires_at' | 'status_details'> & {
  purpose: string
  expires_at: number | null
  status_details: null
}

export function presentFile(row: FileRow): PresentedFile {
  return {
    id: row.id,
    object: 'file',
    bytes: Number(row.bytes),
    created_at: seconds(row.created_at),
    expires_at: secondsOrNull(row.expires_at),
    filename: row.filename,
    purpose: row.purpose,
    status: 'processed',
    status_details: null,
  }
}

export function presentDeletedFile(id: string): FileDeleted {
  return { id, object: 'file', deleted: true }
}
