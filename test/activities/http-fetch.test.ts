import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { buffer, text } from 'node:stream/consumers'
import { brotliCompressSync, deflateSync, gzipSync, zstdCompressSync } from 'node:zlib'

import { describe, expect, test } from 'vitest'

import { createHttpFetch } from '../../activities/http-fetch.ts'

type Answer = (request: IncomingMessage, response: ServerResponse) => unknown

/** A server that answers so, and how many connections came to it. */
async function served(answer: Answer) {
  const server = createServer((request, response) => void answer(request, response))
  let connections = 0
  server.on('connection', () => (connections += 1))
  await once(server.listen(0, '127.0.0.1'), 'listening')
  const address = server.address()
  const port = typeof address === 'object' && address ? address.port : 0
  return {
    url: `http://127.0.0.1:${port}`,
    connections: () => connections,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      await once(server.close(), 'close')
    },
  }
}

const asked = { method: 'POST', body: '{"a": "ä"}', headers: { authorization: 'Bearer key' } }

describe('a request', () => {
  test('arrives as it was given, and asks for an answer that is not packed', async () => {
    const told = Promise.withResolvers<object>()
    await using server = await served(async (request, response) => {
      const { method, url, headers } = request
      told.resolve({ method, url, headers, body: await text(request) })
      response.end()
    })
    await createHttpFetch().fetch(`${server.url}/v1/a?b=c`, asked)
    expect(await told.promise).toMatchObject({
      method: 'POST',
      url: '/v1/a?b=c',
      body: asked.body,
      headers: {
        authorization: 'Bearer key',
        'accept-encoding': 'identity',
        'content-length': String(Buffer.byteLength(asked.body)),
      },
    })
  })

  test('takes the connection that another has left', async () => {
    await using server = await served((_, response) => response.end('Yes.'))
    const { fetch, bodyOf } = createHttpFetch()
    for (let n = 0; n < 3; n += 1) {
      // As a client does that is through with an answer.
      const over = new AbortController()
      const response = await fetch(server.url, { ...asked, signal: over.signal })
      expect(await text(bodyOf(response) ?? noBytes())).toBe('Yes.')
      over.abort()
    }
    expect(server.connections()).toBe(1)
  })

  test.each([307, 308])(
    'follows a %s on the same server, once more with its body',
    async (code) => {
      await using server = await served(async ({ url, headers }, response) => {
        if (url === '/a') return response.writeHead(code, { location: '/a/' }).end('Over there.')
        return response.end(`${url} ${headers.authorization} ${headers['content-length']}`)
      })
      const response = await createHttpFetch().fetch(`${server.url}/a`, asked)
      expect(await response.text()).toBe('/a/ Bearer key 11')
    },
  )

  test('does not follow to another server, which is not to have the key', async () => {
    let isAsked = false
    await using other = await served((_, response) => {
      isAsked = true
      response.end()
    })
    await using server = await served((_, response) =>
      response.writeHead(307, { location: other.url }).end('Over there.'),
    )
    const response = await createHttpFetch().fetch(server.url, asked)
    expect(response.status).toBe(307)
    expect(await response.text()).toBe('Over there.')
    expect(isAsked).toBe(false)
  })

  test('that is sent round and round is given up', async () => {
    let times = 0
    await using server = await served((_, response) => {
      times += 1
      response.writeHead(307, { location: '/' }).end()
    })
    expect((await createHttpFetch().fetch(server.url, asked)).status).toBe(307)
    expect(times).toBe(6)
  })

  test('is not made with a user and a password, as by fetch', async () => {
    const url = 'http://user:secret@models.example/v1'
    await expect(createHttpFetch().fetch(url, asked)).rejects.toThrow(
      new TypeError('its address holds a user or a password'),
    )
    await expect(fetch(url, asked)).rejects.toThrow(TypeError)
  })
})

describe('an answer', () => {
  test('has its status and all of its headers', async () => {
    await using server = await served((_, response) =>
      response.writeHead(429, { 'retry-after': '7', 'x-many': ['a', 'b'] }).end('Busy.'),
    )
    const response = await createHttpFetch().fetch(server.url, asked)
    expect(response.ok).toBe(false)
    expect(response.status).toBe(429)
    expect(response.headers.get('retry-after')).toBe('7')
    expect(response.headers.get('x-many')).toBe('a, b')
    expect(await response.text()).toBe('Busy.')
  })

  test.each([204, 304])('of the status %s has no body', async (status) => {
    await using server = await served((_, response) => response.writeHead(status).end())
    const { fetch, bodyOf } = createHttpFetch()
    const response = await fetch(server.url, asked)
    expect(response.status).toBe(status)
    expect(bodyOf(response)).toBe(null)
  })

  test.each([
    ['gzip', gzipSync],
    ['deflate', deflateSync],
    ['br', brotliCompressSync],
    ['zstd', zstdCompressSync],
  ])('that is packed by %s without being asked to is unpacked', async (encoding, pack) => {
    await using server = await served((_, response) =>
      response.writeHead(200, { 'content-encoding': encoding }).end(pack('Yes.')),
    )
    const { fetch, bodyOf } = createHttpFetch()
    expect(await text(bodyOf(await fetch(server.url, asked)) ?? noBytes())).toBe('Yes.')
    expect(await (await fetch(server.url, asked)).text()).toBe('Yes.')
  })

  test.each<[string, Record<string, string>]>([
    ['as it is', {}],
    ['packed', { 'content-encoding': 'gzip' }],
  ])('that is cut, %s, fails where it is read', async (_, headers) => {
    await using server = await served((_, response) => {
      response.writeHead(200, headers)
      response.write(gzipSync('Yes.').subarray(0, 12), () => response.destroy())
    })
    const { fetch, bodyOf } = createHttpFetch()
    const response = await fetch(server.url, asked)
    await expect(buffer(bodyOf(response) ?? noBytes())).rejects.toMatchObject({
      code: 'ECONNRESET',
    })
  })

  test('that is aborted is over, before it began and in its middle', async () => {
    const left = Promise.withResolvers<void>()
    const silentLeft = Promise.withResolvers<void>()
    const isThere = Promise.withResolvers<void>()
    await using server = await served(({ url }, response) => {
      const isSilent = url === '/silent'
      response.once('close', isSilent ? silentLeft.resolve : left.resolve)
      if (isSilent) isThere.resolve()
      else response.write('One')
    })
    const { fetch, bodyOf } = createHttpFetch()
    const early = new AbortController()
    const silent = fetch(`${server.url}/silent`, { ...asked, signal: early.signal })
    await isThere.promise
    early.abort()
    await expect(silent).rejects.toMatchObject({ name: 'AbortError' })
    await silentLeft.promise
    const again = fetch(`${server.url}/silent`, { ...asked, signal: early.signal })
    await expect(again).rejects.toMatchObject({ name: 'AbortError' })

    const late = new AbortController()
    const response = await fetch(server.url, { ...asked, signal: late.signal })
    const pieces = (bodyOf(response) ?? noBytes())[Symbol.asyncIterator]()
    expect(Buffer.from((await pieces.next()).value).toString()).toBe('One')
    const next = pieces.next()
    late.abort()
    await expect(next).rejects.toThrow('aborted')
    await left.promise
  })
})

async function* noBytes(): AsyncGenerator<Uint8Array> {}
