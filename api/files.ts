import type { Router } from '@koa/router'
import { createHash, randomUUID } from 'node:crypto'
import type { Readable } from 'node:stream'

import type { ByteRange } from '../store/blobs.ts'
import { MissingBlob } from '../store/blobs/missing-blob.ts'
import type { NewFile } from '../store/files.ts'
import type { FileRow } from '../store/rows.ts'
import {
  contentRefused,
  missingFormField,
  noSuchFile,
  rangeNotSatisfiable,
  unknownFormField,
} from '../wire/errors.ts'
import { mediaType } from '../wire/file-types.ts'
import { idFrom } from '../wire/ids.ts'
import { MAX_FILE_BYTES } from '../wire/limits.ts'
import { page } from '../wire/page.ts'
import { presentDeletedFile, presentFile } from '../wire/present/file.ts'
import type { ApiDeps } from './app.ts'
import { askedRange } from './byte-range.ts'
import { pathId, type Context, type State } from './context.ts'
import { CreateFile, lifetimeS, ListFilesQuery } from './files.schema.ts'
import { idempotentUpload } from './middleware/idempotency.ts'
import { readForm, type FormFile } from './multipart.ts'
import { parse, parseQuery } from './validation.ts'

/** The original refused the content of what people had given to these purposes. */
const inputPurposes = ['assistants', 'user_data']

export function fileRoutes(router: Router<State>, deps: ApiDeps): void {
  const { store } = deps
  router.get('/files', list)
  router.post('/files', create)
  router.get('/files/:file_id', get)
  router.delete('/files/:file_id', remove)
  router.get('/files/:file_id/content', content)

  async function list(ctx: Context): Promise<void> {
    const { purpose, ...query } = parseQuery(ListFilesQuery, ctx.query)
    const found = await store.files.list(ctx.state.projectId, purpose, query)
    ctx.body = page(found.rows.map(presentFile), found.hasMore)
  }

  async function create(ctx: Context): Promise<void> {
    const form = readForm(ctx, { file: 'file', maxFileBytes: MAX_FILE_BYTES })
    const part = await form.file
    if (!part) throw missingFormField('file')
    await using bytes = await store.files.write(part.bytes)
    const body = createBody(await form.fields, part)
    const said = JSON.stringify([part.mimeType, body])
    const digest = createHash('sha256').update(bytes.digest).update(said).digest()
    await idempotentUpload(deps, ctx, digest, async () => {
      const file: NewFile = {
        id: idFrom('file', ctx.state.work?.id ?? randomUUID()),
        project_id: ctx.state.projectId,
        filename: body.file,
        purpose: body.purpose,
        mime_type: part.mimeType,
        expiresAfterS: lifetimeS(body.purpose, body.expires_after),
      }
      ctx.body = presentFile(await store.files.create(file, bytes))
    })
  }

  async function get(ctx: Context): Promise<void> {
    ctx.body = presentFile(await find(ctx))
  }

  async function remove(ctx: Context): Promise<void> {
    const id = pathId(ctx, 'file_id', 'file')
    if (!(await store.files.delete(ctx.state.projectId, id))) throw noSuchFile(id)
    ctx.body = presentDeletedFile(id)
  }

  /** Conditions and ranges as in RFC 9110. The bytes of an id never change, so the id is their tag. */
  async function content(ctx: Context): Promise<void> {
    const file = await find(ctx)
    if (!deps.downloadsInputs && inputPurposes.includes(file.purpose)) {
      throw contentRefused(file.purpose)
    }
    const size = Number(file.bytes)
    ctx.status = 200
    ctx.set('accept-ranges', 'bytes')
    ctx.etag = file.id
    ctx.lastModified = file.created_at
    if (ctx.fresh) {
      ctx.status = 304
      return
    }
    const asked = ctx.method === 'HEAD' ? undefined : askedRange(ctx, size)
    if (asked === 'outside') {
      ctx.set('content-range', `bytes */${size}`)
      throw rangeNotSatisfiable(size)
    }
    const bytes = ctx.method === 'HEAD' ? undefined : await open(ctx, file, asked)
    ctx.set('content-type', mediaType(file.filename, file.mime_type))
    // Browsers must not open what strangers have uploaded as a page of this server.
    ctx.attachment(file.filename)
    if (asked) {
      ctx.status = 206
      ctx.set('content-range', `bytes ${asked.start}-${asked.end}/${size}`)
    }
    ctx.length = asked ? asked.end - asked.start + 1 : size
    if (bytes) ctx.body = bytes
  }

  async function open(
    ctx: Context,
    file: FileRow,
    range: ByteRange | undefined,
  ): Promise<Readable> {
    try {
      return await store.files.content(file, range)
    } catch (error) {
      // It may have been deleted since it was looked up.
      if (error instanceof MissingBlob) await find(ctx)
      throw error
    }
  }

  async function find(ctx: Context): Promise<FileRow> {
    const id = pathId(ctx, 'file_id', 'file')
    const row = await store.files.get(ctx.state.projectId, id)
    if (!row) throw noSuchFile(id)
    return row
  }
}

const expiryFields = ['expires_after[anchor]', 'expires_after[seconds]'] as const

/** The form as a body; what it must have and may have is asked for in the original's words. */
function createBody(fields: Record<string, string>, part: FormFile): CreateFile {
  const known = new Set<string>(['purpose', ...expiryFields])
  const unknown = Object.keys(fields).find((name) => !known.has(name))
  if (unknown !== undefined) throw unknownFormField(unknown)
  if (fields['purpose'] === undefined) throw missingFormField('purpose')
  const [anchor, seconds] = expiryFields.map((name) => fields[name])
  const hasExpiry = anchor !== undefined || seconds !== undefined
  return parse(CreateFile, {
    file: part.name,
    purpose: fields['purpose'],
    ...(hasExpiry && { expires_after: { anchor, seconds } }),
  })
}
