import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'

import { createApp, type ApiDeps } from './app.ts'

export interface ApiServer extends AsyncDisposable {
  /** The base URL for clients, ending in `/v1`. */
  url: string
}

/** How often a draining server looks for connections that have become idle in the meantime. */
const idleCheckMs = 50

/**
 * Serves the API. Disposing drains: no new connections, held polls are answered, and what takes longer than `graceMs` is cut,
 * streams too: clients take one that ends in order for a whole one. Throws where the port is taken, naming it.
 */
export async function startApi(
  options: Omit<ApiDeps, 'draining'> & { host: string; port: number; graceMs: number },
): Promise<ApiServer> {
  const draining = new AbortController()
  const server = createServer(createApp({ ...options, draining: draining.signal }))
  // Uploads and streams take their time; a client that sends no headers does not get it.
  server.requestTimeout = 0
  server.headersTimeout = 30_000
  server.keepAliveTimeout = 65_000
  await listen(server, options.host, options.port)
  const { port } = server.address() as AddressInfo
  const name = options.host.includes(':') ? `[${options.host}]` : options.host
  return {
    url: `http://${name}:${port}/v1`,
    async [Symbol.asyncDispose]() {
      draining.abort()
      await close(server, options.graceMs)
    },
  }
}

async function listen(server: Server, host: string, port: number): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(port, host, resolve)
  }).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'EADDRINUSE') throw error
    throw new Error(`Port ${port} of ${host} is taken by another program; set PORT to a free one`, {
      cause: error,
    })
  })
}

/** A keep-alive connection becomes idle only after its last answer, so idle ones are closed again and again. */
async function close(server: Server, graceMs: number): Promise<void> {
  const idle = setInterval(() => server.closeIdleConnections(), idleCheckMs)
  const cut = setTimeout(() => server.closeAllConnections(), graceMs)
  await new Promise<void>((resolve) => server.close(() => resolve()))
  clearInterval(idle)
  clearTimeout(cut)
}
