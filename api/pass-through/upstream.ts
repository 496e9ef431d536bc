import { request as askPlain, type IncomingMessage } from 'node:http'
import { request as askSecurely } from 'node:https'
import { pipeline, type Readable } from 'node:stream'
import {
  createBrotliDecompress,
  createGunzip,
  createInflate,
  createZstdDecompress,
} from 'node:zlib'

import type { Endpoint } from '../../models.ts'
import { brokenUpstream, clientGone, unavailable } from '../../wire/errors.ts'

export interface UpstreamRequest {
  method: string
  /** Below the endpoint's base URL, with its query. */
  path: string
  headers: Record<string, string>
  body: Buffer | undefined
}

export interface UpstreamAnswer {
  status: number
  headers: IncomingMessage['headers']
  /** Unpacked. Whoever gets it must read or destroy it. */
  body: Readable
}

const connectTimeoutMs = 10_000

/**
 * Asks an endpoint, with its own key. Not by `fetch`, which gives up after five minutes without an answer; models may think
 * longer. Throws an ApiError, a 503 where the endpoint cannot be reached and a 502 where it breaks off, whose cause says
 * why.
 */
export async function askUpstream(
  endpoint: Endpoint,
  { method, path, headers, body }: UpstreamRequest,
  signal: AbortSignal,
): Promise<UpstreamAnswer> {
  const url = new URL(`${endpoint.baseUrl}/${path}`)
  const ask = url.protocol === 'https:' ? askSecurely : askPlain
  const answered = Promise.withResolvers<IncomingMessage>()
  let isConnected = false
  const request = ask(url, {
    method,
    signal,
    headers: {
      ...headers,
      authorization: `Bearer ${endpoint.apiKey}`,
      'user-agent': 'longrun',
      // What is packed must be unpacked here to be counted.
      'accept-encoding': 'identity',
      ...(body && { 'content-length': body.length }),
    },
  })
  request.on('response', answered.resolve)
  request.on('error', answered.reject)
  request.on('socket', (socket) => {
    isConnected = !socket.connecting
    if (isConnected) return
    const late = new Error(`no connection within ${connectTimeoutMs / 1000} s`)
    const timer = setTimeout(() => request.destroy(late), connectTimeoutMs)
    socket.once('connect', () => {
      isConnected = true
      clearTimeout(timer)
    })
    socket.once('close', () => clearTimeout(timer))
  })
  request.end(body)
  const answer = await answered.promise.catch((cause: unknown) => {
    if (signal.aborted) throw clientGone()
    const told = isConnected
      ? brokenUpstream('broke off without an answer')
      : unavailable('the endpoint of the model')
    throw Object.assign(told, { cause })
  })
  return unpacked(answer)
}

/** What an endpoint says of a request that it refuses, without its key; some repeat it. What is too long is cut. */
export async function refusalText(body: Readable, apiKey: string): Promise<string> {
  const chunks: Buffer[] = []
  let size = 0
  try {
    for await (const chunk of body as AsyncIterable<Buffer>) {
      chunks.push(chunk)
      size += chunk.length
      if (size > refusalLimitBytes) break
    }
  } catch (cause) {
    throw Object.assign(brokenUpstream('broke off in the middle of an error'), { cause })
  }
  const text = Buffer.concat(chunks).toString('utf8')
  return apiKey.length < shortestSecret ? text : text.replaceAll(apiKey, '***')
}

const refusalLimitBytes = 1024 * 1024
/** What is shorter is a word that stands for no key, and would be missing from sentences. */
const shortestSecret = 8

const unpackers: Record<string, () => NodeJS.ReadWriteStream & Readable> = {
  gzip: createGunzip,
  'x-gzip': createGunzip,
  deflate: createInflate,
  br: createBrotliDecompress,
  zstd: createZstdDecompress,
}

/** There are servers that pack without being asked to. */
function unpacked(answer: IncomingMessage): UpstreamAnswer {
  const { statusCode: status = 502, headers } = answer
  const unpack = unpackers[headers['content-encoding']?.toLowerCase() ?? '']
  if (!unpack) return { status, headers, body: answer }
  const { 'content-encoding': _, 'content-length': __, ...others } = headers
  // An error of the one destroys the other, whose reader is told.
  return { status, headers: others, body: pipeline(answer, unpack(), () => {}) }
}
