import type { Router } from '@koa/router'
import { randomUUID } from 'node:crypto'

import { missingFormField, unknownFormField } from '../wire/errors.ts'
import { idFrom, type Id } from '../wire/ids.ts'
import { MAX_PART_BYTES, UPLOAD_EXPIRES_AFTER_SECONDS } from '../wire/limits.ts'
import { presentUpload, presentUploadPart } from '../wire/present/upload.ts'
import type { ApiDeps } from './app.ts'
import { pathId, readBody, type Context, type State } from './context.ts'
import { lifetimeS } from './files.schema.ts'
import { idempotentUpload } from './middleware/idempotency.ts'
import { readForm } from './multipart.ts'
import { CompleteUpload, CreateUpload } from './uploads.schema.ts'

export function uploadRoutes(router: Router<State>, deps: ApiDeps): void {
  const { uploads, files } = deps.store
  router.post('/uploads', create)
  router.post('/uploads/:upload_id/parts', addPart)
  router.post('/uploads/:upload_id/complete', complete)
  router.post('/uploads/:upload_id/cancel', cancel)

  async function create(ctx: Context): Promise<void> {
    const body = await readBody(ctx, CreateUpload)
    const now = Date.now()
    const row = await uploads.create({
      id: idFrom('upload', ctx.state.work?.id ?? randomUUID()),
      project_id: ctx.state.projectId,
      created_at: new Date(now),
      expires_at: new Date(now + UPLOAD_EXPIRES_AFTER_SECONDS * 1000),
      filename: body.filename,
      bytes: String(body.bytes),
      purpose: body.purpose,
      mime_type: body.mime_type,
      file_expires_after_s: lifetimeS(body.purpose, body.expires_after),
    })
    ctx.body = presentUpload(row)
  }

  async function addPart(ctx: Context): Promise<void> {
    const uploadId = idOf(ctx)
    const { projectId } = ctx.state
    await uploads.assertPending(projectId, uploadId, 'add parts to')
    const form = readForm(ctx, { file: 'data', maxFileBytes: MAX_PART_BYTES })
    const part = await form.file
    if (!part) throw missingFormField('data')
    await using bytes = await files.write(part.bytes)
    const [unknown] = Object.keys(await form.fields)
    if (unknown !== undefined) throw unknownFormField(unknown)
    await idempotentUpload(deps, ctx, bytes.digest, async () => {
      const id = idFrom('part', ctx.state.work?.id ?? randomUUID())
      const row = { id, upload_id: uploadId }
      ctx.body = presentUploadPart(await uploads.addPart(projectId, row, bytes))
    })
  }

  async function complete(ctx: Context): Promise<void> {
    const uploadId = idOf(ctx)
    const { projectId } = ctx.state
    const body = await readBody(ctx, CompleteUpload, () =>
      uploads.assertPending(projectId, uploadId, 'complete'),
    )
    const { upload, file } = await uploads.complete(projectId, uploadId, {
      fileId: idFrom('file', randomUUID()),
      partIds: body.part_ids,
      md5: body.md5?.toLowerCase(),
    })
    ctx.body = presentUpload(upload, file)
  }

  async function cancel(ctx: Context): Promise<void> {
    ctx.body = presentUpload(await uploads.cancel(ctx.state.projectId, idOf(ctx)))
  }

  function idOf(ctx: Context): Id<'upload'> {
    // `pathId` has seen the prefix.
    return pathId(ctx, 'upload_id', 'upload') as Id<'upload'>
  }
}
