/** A form of `multipart/form-data` as it goes over the wire, so that a test decides about every byte. */
export interface FormPart {
  /** The parameters of Content-Disposition after `form-data; `: `name="file"; filename="a.txt"`. */
  disposition: string
  type?: string
  content: string | Uint8Array
}

export const boundary = 'one-and-the-same-boundary'

export function form(
  parts: FormPart[],
  contentType = `multipart/form-data; boundary=${boundary}`,
): { raw: Uint8Array<ArrayBuffer>; headers: Record<string, string | undefined> } {
  const chunks = parts.flatMap(({ disposition, type, content }) => [
    `--${boundary}\r\nContent-Disposition: form-data; ${disposition}\r\n`,
    ...(type ? [`Content-Type: ${type}\r\n`] : []),
    '\r\n',
    content,
    '\r\n',
  ])
  const raw = Buffer.concat([...chunks, `--${boundary}--\r\n`].map((chunk) => Buffer.from(chunk)))
  // No header of the Assistants API: files and uploads do not need it.
  return {
    raw: new Uint8Array(raw),
    headers: { 'content-type': contentType, 'openai-beta': undefined },
  }
}

export function field(name: string, content: string): FormPart {
  return { disposition: `name="${name}"`, content }
}

export function filePart(content: string | Uint8Array, filename = 'a.txt', type = ''): FormPart {
  return { disposition: `name="file"; filename="${filename}"`, type, content }
}
