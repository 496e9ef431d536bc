import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from 'node:http'

import { checkAnswer, dialectOf, type Exchange } from '../contract/answers.ts'
import { hasDocuments, type Dialect, type Operation } from '../contract/document.ts'

/** A call that was answered as the documents say, and the client that made it. */
export interface Answered {
  operation: Operation
  /** As the request named it; not all paths ask for one. */
  dialect: Dialect | undefined
  isStream: boolean
  /** `js 7.57.0`; undefined for clients that do not say. */
  client: string | undefined
}

/** Every sound answer of the servers of this process. */
export const answered: Answered[] = []

const ports = new Set<number>()
const violations = new Map<string, number>()

/** From now on the answers of this server are held against the OpenAPI documents, whoever asks. */
export function captureServer(baseUrl: string): void {
  ports.add(Number(new URL(baseUrl).port))
}

/** Listens to all HTTP servers of this process, of which those that `captureServer` names are looked at. */
export function startCapture(): () => void {
  if (!hasDocuments) return () => {}
  const channel = 'http.server.request.start'
  subscribe(channel, onRequest)
  return () => unsubscribe(channel, onRequest)
}

/** The violations since the last call, each with how often it was seen. */
export function takeViolations(): string[] {
  const found = [...violations].map(([text, count]) => (count > 1 ? `${text} (${count}×)` : text))
  violations.clear()
  return found
}

// What the channel tells is documented by Node.
function onRequest(message: unknown): void {
  const { request, response } = message as { request: IncomingMessage; response: ServerResponse }
  if (!ports.has(request.socket.localPort ?? 0)) return
  const chunks: Buffer[] = []
  const keep = (chunk: unknown, encoding: unknown): void => {
    if (typeof chunk === 'string') {
      chunks.push(Buffer.from(chunk, typeof encoding === 'string' ? (encoding as 'utf8') : 'utf8'))
    } else if (chunk instanceof Uint8Array) chunks.push(Buffer.from(chunk))
  }
  const write = response.write.bind(response)
  const end = response.end.bind(response)
  // Both have several forms, which are handed on as they came.
  response.write = (...args: unknown[]) => {
    keep(args[0], args[1])
    return (write as (...args: unknown[]) => boolean)(...args)
  }
  response.end = (...args: unknown[]) => {
    keep(args[0], args[1])
    return (end as (...args: unknown[]) => ServerResponse)(...args)
  }
  response.once('close', () => {
    if (!response.headersSent) return
    take({
      method: request.method ?? '',
      url: request.url ?? '',
      requestHeaders: request.headers,
      status: response.statusCode,
      contentType: String(response.getHeader('content-type') ?? ''),
      body: Buffer.concat(chunks),
      isComplete: response.writableFinished,
    })
  })
}

function take(exchange: Exchange): void {
  const { method, url, status } = exchange
  const at = `${method} ${pathOf(url)}: ${status}`
  let verdict
  try {
    verdict = checkAnswer(exchange)
  } catch (error) {
    verdict = { violations: [`cannot be checked: ${String(error)}`] }
  }
  for (const one of verdict.violations) {
    const text = `${at}: ${one}`
    violations.set(text, (violations.get(text) ?? 0) + 1)
  }
  if (verdict.violations.length > 0 || !verdict.answered) return
  answered.push({
    ...verdict.answered,
    dialect: exchange.requestHeaders['openai-beta'] ? dialectOf(exchange) : undefined,
    client: clientOf(exchange.requestHeaders),
  })
}

/** Without what differs from one test to the next. */
function pathOf(url: string): string {
  return url
    .split('?', 1)
    .join('')
    .replaceAll(/_[A-Za-z0-9]{16,}/g, '_...')
}

function clientOf(headers: IncomingHttpHeaders): string | undefined {
  const [language, version] = ['x-stainless-lang', 'x-stainless-package-version'].map((name) =>
    [headers[name]].flat().join(),
  )
  return language ? `${language} ${version}` : undefined
}
