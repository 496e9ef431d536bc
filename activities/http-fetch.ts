import { request as askPlain, type IncomingMessage } from 'node:http'
import { request as askSecurely } from 'node:https'
import { pipeline, type Readable } from 'node:stream'
import { createBrotliDecompress, createUnzip, createZstdDecompress } from 'node:zlib'

/** A `fetch` for a client that sends text. */
export interface HttpFetch {
  /** Rejects with what the connection failed of, and with a TypeError where the address cannot be used. */
  fetch: typeof fetch
  /** The body of a response, for whoever reads it here and not there. */
  bodyOf: (response: Response) => AsyncIterable<Uint8Array> | null
}

/**
 * By `node:http`: the global `fetch` gives up after five minutes without a byte, while models may think longer, and its
 * streams take a quarter more CPU for each piece of an answer. The agents are Node's own, which keep connections and know
 * proxies where Node was told to use them.
 */
export function createHttpFetch(): HttpFetch {
  const bodies = new WeakMap<Response, Readable>()
  return {
    async fetch(input, init = {}) {
      const asked = new URL(input instanceof Request ? input.url : input)
      const answer = await askAt(asked, init)
      const status = answer.statusCode ?? 0
      const body = unpacked(answer)
      // Its own stream begins to read when it is asked to, so that the body is still whole for `bodyOf`.
      const response = new Response(bodiless.has(status) ? null : body, {
        status,
        headers: headersOf(answer),
      })
      if (response.body) bodies.set(response, body)
      else body.resume()
      return response
    },
    bodyOf: (response) => bodies.get(response) ?? null,
  }
}

const connectTimeoutMs = 10_000
const mostRedirects = 5
/** Those that ask for the same request at another place. */
const redirects = new Set([307, 308])
const bodiless = new Set([204, 205, 304])

/** Follows within the server, as to a path with a slash at its end: the key is for nobody else. */
async function askAt(url: URL, init: RequestInit, left = mostRedirects): Promise<IncomingMessage> {
  const answer = await ask(url, init)
  const { location } = answer.headers
  if (!location || !redirects.has(answer.statusCode ?? 0) || left === 0) return answer
  const next = new URL(location, url)
  if (next.origin !== url.origin) return answer
  answer.resume()
  return askAt(next, init, left - 1)
}

async function ask(url: URL, { method, headers, body, signal }: RequestInit) {
  if (url.username !== '' || url.password !== '') {
    throw new TypeError('its address holds a user or a password')
  }
  signal?.throwIfAborted()
  const isSecure = url.protocol === 'https:'
  const answered = Promise.withResolvers<IncomingMessage>()
  const request = (isSecure ? askSecurely : askPlain)(url, {
    ...(method && { method }),
    // Packed, the words of an answer would come together.
    headers: { ...Object.fromEntries(new Headers(headers)), 'accept-encoding': 'identity' },
  })
  request.on('response', answered.resolve)
  request.on('error', answered.reject)
  // Not by Node's own `signal`, which destroys with an error: where the answer ends in the same tick, nobody listens to its
  // connection any more, and the error ends the process (https://github.com/nodejs/node/issues/65938).
  const stop = (): void => {
    answered.reject(signal?.reason)
    request.destroy()
  }
  signal?.addEventListener('abort', stop, { once: true })
  request.once('close', () => signal?.removeEventListener('abort', stop))
  request.on('socket', (socket) => {
    if (!socket.connecting) return
    const late = new Error(`no connection within ${connectTimeoutMs / 1000} s`)
    const timer = setTimeout(() => request.destroy(late), connectTimeoutMs)
    socket.once(isSecure ? 'secureConnect' : 'connect', () => clearTimeout(timer))
    socket.once('close', () => clearTimeout(timer))
  })
  request.end(body)
  return answered.promise
}

const unpackers: Record<string, () => NodeJS.ReadWriteStream & Readable> = {
  gzip: createUnzip,
  'x-gzip': createUnzip,
  deflate: createUnzip,
  br: createBrotliDecompress,
  zstd: createZstdDecompress,
}

/** There are servers that pack without being asked to. */
function unpacked(answer: IncomingMessage): Readable {
  const unpack = unpackers[answer.headers['content-encoding']?.toLowerCase() ?? '']
  // An error of the one destroys the other, whose reader is told.
  return unpack ? pipeline(answer, unpack(), () => {}) : answer
}

function headersOf({ headersDistinct }: IncomingMessage): Headers {
  const headers = new Headers()
  for (const [name, values = []] of Object.entries(headersDistinct)) {
    for (const value of values) headers.append(name, value)
  }
  return headers
}
