import { createHash } from 'node:crypto'
import type { IncomingHttpHeaders } from 'node:http'

/** What of a request's headers an endpoint is sent: not whose request it is, nor how it came. */
export function sentHeaders(
  given: IncomingHttpHeaders,
  { projectId, contentType }: { projectId: string; contentType?: string | undefined },
) {
  // Which version of the Assistants API is meant, an endpoint of models need not know.
  const beta = [given['openai-beta'] ?? []]
    .flat()
    .flatMap((value) => value.split(','))
    .map((value) => value.trim())
    .filter((value) => value !== '' && !value.startsWith('assistants='))
  const idempotencyKey = [given['idempotency-key'] ?? []].flat()[0]
  return {
    accept: given.accept ?? '*/*',
    ...(contentType && { 'content-type': contentType }),
    ...(idempotencyKey && { 'idempotency-key': keyOf(projectId, idempotencyKey) }),
    ...(beta.length > 0 && { 'openai-beta': beta.join(',') }),
  }
}

/** To an endpoint all projects are one caller: where two choose the same key, neither may get the other's answer. */
function keyOf(projectId: string, idempotencyKey: string): string {
  return createHash('sha256')
    .update(JSON.stringify([projectId, idempotencyKey]))
    .digest('hex')
}

/** What of an answer's headers the client is given. The request id on the answer is ours; the endpoint's has its own name. */
export function answerHeaders(given: IncomingHttpHeaders): Record<string, string | string[]> {
  const handedOn = Object.entries(given).filter(
    (entry): entry is [string, string | string[]] =>
      entry[1] !== undefined && (names.has(entry[0]) || entry[0].startsWith('x-ratelimit-')),
  )
  const requestId = given['x-request-id']
  return {
    ...Object.fromEntries(handedOn),
    ...(requestId && { 'x-upstream-request-id': requestId }),
  }
}

const names = new Set([
  'cache-control',
  'content-disposition',
  'content-encoding',
  'content-type',
  'openai-processing-ms',
  'retry-after',
  'retry-after-ms',
  'x-should-retry',
])
