import { Busboy } from '@fastify/busboy'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Readable } from 'node:stream'

import {
  badMultipart,
  invalidType,
  tooLarge,
  unknownFormField,
  wrongContentType,
} from '../wire/errors.ts'
import { isMediaType } from '../wire/file-types.ts'

/** A form of `multipart/form-data` with one file, read as it arrives: the bytes of the file are never held in memory. */
export interface Form {
  /** Resolves when the bytes begin to arrive, to undefined where the form has no file. */
  file: Promise<FormFile | undefined>
  /** Resolves once the form has been read to its end: fields may stand before the file and after it. */
  fields: Promise<Record<string, string>>
}

export interface FormFile {
  /** Without its folders. */
  name: string
  /** Null where it is none, which may hold what the database cannot. */
  mimeType: string | null
  /** Throws ApiErrors: where the file is too large and where the form breaks off. */
  bytes: AsyncIterable<Uint8Array>
}

/** Names and values of a form's fields, and the headers of its parts. */
const overheadBytes = 64 * 1024

/** `file` names the field of the file. Both promises reject with an ApiError. What is not read is dropped after the answer. */
export function readForm(
  { req: request, res: response }: { req: IncomingMessage; res: ServerResponse },
  { file: fileField, maxFileBytes }: { file: string; maxFileBytes: number },
): Form {
  const contentType = request.headers['content-type'] ?? ''
  if (!/^multipart\/form-data\b/i.test(contentType)) {
    throw wrongContentType(contentType, 'multipart/form-data')
  }
  if (Number(request.headers['content-length']) > maxFileBytes + overheadBytes) {
    throw tooLarge(maxFileBytes)
  }
  const file = Promise.withResolvers<FormFile | undefined>()
  const fields = Promise.withResolvers<Record<string, string>>()
  // Whoever waits for the one may never come to the other.
  file.promise.catch(() => {})
  fields.promise.catch(() => {})
  const values: Record<string, string> = {}
  let stream: Readable | undefined
  let failure: Error | undefined

  const parser = createParser(contentType, fileField)
  const fail = (error: Error): void => {
    if (failure) return
    failure = error
    file.reject(error)
    fields.reject(error)
    stream?.destroy(error)
    request.unpipe(parser)
    // Many clients read the answer only once they have sent everything.
    request.resume()
  }

  async function* bytesOf(part: Readable): AsyncGenerator<Uint8Array> {
    let size = 0
    try {
      for await (const chunk of part as AsyncIterable<Uint8Array>) {
        size += chunk.length
        if (size > maxFileBytes) fail(tooLarge(maxFileBytes))
        if (failure) throw failure
        yield chunk
      }
    } catch (error) {
      throw failure ?? error
    }
  }

  parser.on('file', (field, part, filename: string | undefined, _encoding, mimeType) => {
    // Its errors are the parser's, which are heard below; without a listener one would end the process.
    part.on('error', () => {})
    if (field !== fileField || stream) {
      part.resume()
      return fail(field === fileField ? badMultipart() : unknownFormField(field))
    }
    stream = part
    const name = sentName(filename ?? '')
    if (name === '') return fail(invalidType(field, 'a file', 'a string'))
    file.resolve({
      name,
      mimeType: isMediaType(mimeType) ? mimeType : null,
      bytes: bytesOf(part),
    })
  })
  parser.on('field', (field, value, isNameCut, isValueCut) => {
    if (isNameCut || isValueCut) return fail(badMultipart())
    values[field] = value
  })
  for (const limit of ['partsLimit', 'filesLimit', 'fieldsLimit'] as const) {
    parser.on(limit, () => fail(badMultipart()))
  }
  parser.on('error', () => fail(badMultipart()))
  parser.on('finish', () => {
    file.resolve(undefined)
    fields.resolve(values)
  })
  request.on('error', () => fail(badMultipart()))
  request.on('close', () => {
    if (!request.complete) fail(badMultipart())
  })
  response.on('finish', () => fail(badMultipart()))
  request.pipe(parser)
  return { file: file.promise, fields: fields.promise }
}

function createParser(contentType: string, fileField: string) {
  try {
    return new Busboy({
      headers: { 'content-type': contentType },
      preservePath: true,
      isPartAFile: (field, _type, filename) => field === fileField || filename !== undefined,
      limits: { parts: 20, fieldSize: 4096, headerPairs: 100, headerSize: 16_384 },
    })
  } catch (error) {
    throw Object.assign(badMultipart(), { cause: error })
  }
}

/** Browsers and both official clients write a quote as `%22`; .NET encodes what is not ASCII as in mail. */
function sentName(name: string): string {
  const mail = /^=\?utf-8\?B\?([A-Za-z0-9+/=]+)\?=$/i.exec(name)?.[1]
  const decoded = mail === undefined ? name : Buffer.from(mail, 'base64').toString('utf8')
  return baseName(decoded).replaceAll('%22', '"')
}

/** A name without its folders, whatever system it is from. */
export function baseName(name: string): string {
  return name.split(/[\\/]/).at(-1) ?? ''
}
