import type { FileRow, UploadPartRow, UploadRow } from '../../store/rows.ts'
import type { Upload, UploadPart } from '../openai.ts'
import { seconds } from '../time.ts'
import { presentFile, type PresentedFile } from './file.ts'

export type PresentedUpload = Omit<Upload, 'file'> & { file: PresentedFile | null }

export function presentUpload(row: UploadRow, file: FileRow | null = null): PresentedUpload {
  return {
    id: row.id,
    object: 'upload',
    bytes: Number(row.bytes),
    created_at: seconds(row.created_at),
    expires_at: seconds(row.expires_at),
    filename: row.filename,
    purpose: row.purpose,
    status: row.status,
    file: file && presentFile(file),
  }
}

export function presentUploadPart(row: UploadPartRow): UploadPart {
  return {
    id: row.id,
    object: 'upload.part',
    created_at: seconds(row.created_at),
    upload_id: row.upload_id,
  }
}
