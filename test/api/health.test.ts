import { once } from 'node:events'
import { createServer, type AddressInfo } from 'node:net'

import { Client } from 'pg'
import { expect, inject, test, vi } from 'vitest'

import { startServer } from '../support/server.ts'
import { createCaller } from './caller.ts'

/** What a load balancer asks: without a key, and outside of `/v1`. */
function probe({ baseUrl }: { baseUrl: string }) {
  const caller = createCaller({ baseUrl: baseUrl.replace(/\/v1$/, '') })
  const headers = { authorization: undefined, 'openai-beta': undefined }
  return (path: string) => caller.get(path, { headers })
}

test('a server with a worker lives and is ready', async () => {
  await using server = await startServer()
  const ask = probe(server)
  expect(await ask('/healthz')).toMatchObject({ status: 200, body: { status: 'ok' } })
  await expect
    .poll(() => ask('/readyz'), { timeout: 20_000 })
    .toMatchObject({ status: 200, body: { status: 'ready', missing: [] } })
})

test('without a worker it lives, is not ready, and says why', async () => {
  await using server = await startServer({ ROLE: 'api' })
  const ask = probe(server)
  expect((await ask('/healthz')).status).toBe(200)
  await expect
    .poll(() => ask('/readyz'), { timeout: 20_000 })
    .toMatchObject({
      status: 503,
      body: {
        status: 'not ready',
        missing: ['No worker is polling; runs stay queued until one does.'],
      },
    })
})

test('a request while the database is away is a 503 that may be repeated', async () => {
  vi.stubEnv('TEST_LOG_LEVEL', 'silent')
  await using server = await startServer({ ROLE: 'api' })
  vi.unstubAllEnvs()
  const ask = probe(server)
  const api = createCaller(server)
  expect((await api.get('/assistants')).status).toBe(200)
  const { pathname } = new URL(server.databaseUrl)
  const name = pathname.slice(1)
  const admin = new Client({ connectionString: inject('postgresUrl') })
  await admin.connect()
  try {
    await admin.query(`ALTER DATABASE ${name} ALLOW_CONNECTIONS false`)
    await admin.query('SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1', [
      name,
    ])
    await expect
      .poll(() => api.get('/assistants'), { timeout: 20_000 })
      .toMatchObject({ status: 503, body: { error: { type: 'server_error' } } })
    expect((await api.get('/assistants')).headers.get('retry-after')).toBe('1')
    expect((await ask('/healthz')).status).toBe(200)
    const { status, body } = await ask('/readyz')
    expect(status).toBe(503)
    expect(body['missing']).toContain('Postgres cannot be reached.')
  } finally {
    await admin.query(`ALTER DATABASE ${name} ALLOW_CONNECTIONS true`)
    await admin.end()
  }
  await expect
    .poll(async () => (await api.get('/assistants')).status, { timeout: 20_000 })
    .toBe(200)
})

test('a server whose port is taken says so, and ends what it has begun', async () => {
  const taken = createServer().listen(0, '127.0.0.1')
  await once(taken, 'listening')
  const { port } = taken.address() as AddressInfo
  await expect(startServer({ PORT: String(port) })).rejects.toThrow(
    `Port ${port} of 127.0.0.1 is taken by another program`,
  )
  taken.close()
})
