import { randomUUID } from 'node:crypto'

/**
 * A form as `multipart/form-data`. Not by `new Response(form)`, which turns every line break of a text into CRLF, as
 * browsers do, and so would change what people wrote.
 */
export async function multipartBytes(
  form: FormData,
): Promise<{ bytes: Buffer; contentType: string }> {
  const boundary = `longrun-${randomUUID()}`
  const parts: Buffer[] = []
  for (const [name, value] of form) {
    parts.push(Buffer.from(`--${boundary}\r\n${headOf(name, value)}\r\n\r\n`))
    parts.push(
      typeof value === 'string' ? Buffer.from(value) : Buffer.from(await value.arrayBuffer()),
    )
    parts.push(Buffer.from('\r\n'))
  }
  parts.push(Buffer.from(`--${boundary}--\r\n`))
  return {
    bytes: Buffer.concat(parts),
    contentType: `multipart/form-data; boundary=${boundary}`,
  }
}

function headOf(name: string, value: string | File): string {
  const disposition = `Content-Disposition: form-data; name="${escaped(name)}"`
  if (typeof value === 'string') return disposition
  const type = value.type || 'application/octet-stream'
  return `${disposition}; filename="${escaped(value.name)}"\r\nContent-Type: ${type}`
}

/** As browsers escape it, and the parsers of forms expect it. */
function escaped(text: string): string {
  return text.replaceAll('\r', '%0D').replaceAll('\n', '%0A').replaceAll('"', '%22')
}
