import { request } from 'node:http'

import { afterEach, describe, expect, test } from 'vitest'

import { createLogger } from '../../log.ts'
import { openStore } from '../../store/index.ts'
import { startServer, type TestServer } from '../support/server.ts'
import { createCaller, refusal } from './caller.ts'

const stack: AsyncDisposable[] = []
afterEach(async () => {
  for (const one of stack.splice(0).toReversed()) await one[Symbol.asyncDispose]()
})

async function start(env: Record<string, string> = {}): Promise<TestServer> {
  const server = await startServer({ ROLE: 'api', ...env })
  stack.push(server)
  return server
}

/** The store that `npm run admin` would open. */
async function keysOf({ databaseUrl }: TestServer) {
  const store = await openStore({ databaseUrl, log: createLogger('error'), maxConnections: 2 })
  stack.push(store)
  return store.keys
}

const adminKey = 'an-admin-key-for-tests'

describe('a loopback server without keys', () => {
  test('lets every key in, and none without', async () => {
    const server = await start()
    for (const key of ['a', 'sk-proj-b']) {
      expect((await createCaller(server, key).get('/assistants')).status).toBe(200)
    }
    const headers = { authorization: undefined }
    expect((await createCaller(server).get('/assistants', { headers })).status).toBe(401)
  })

  test.each(['evil.example', 'evil.example:3000', '192.168.0.9:3000', '127.0.0.1.evil.example'])(
    'refuses a request whose Host is %s',
    async (host) => {
      const answer = await raw(await start(), { host })
      expect(answer.status).toBe(403)
      expect(answer.error).toMatchObject({ type: 'invalid_request_error', code: 'forbidden' })
      expect(answer.error.message).toContain(host.replace(/:\d+$/, ''))
    },
  )

  test.each(['http://evil.example', 'https://localhost', 'null', 'http://127.0.0.1:1'])(
    'refuses a page of the origin %s',
    async (origin) => {
      const answer = await raw(await start(), { origin })
      expect(answer.status).toBe(403)
      expect(answer.error.message).toContain(origin)
    },
  )

  test('answers pages of its own origin, and programs under every loopback name', async () => {
    const server = await start()
    const { port, host } = new URL(server.baseUrl)
    expect((await raw(server, { origin: `http://${host}` })).status).toBe(200)
    for (const name of ['localhost', '127.0.0.1', '127.0.0.2', '[::1]', 'LOCALHOST']) {
      expect((await raw(server, { host: `${name}:${port}` })).status).toBe(200)
    }
  })
})

describe('a server with keys', () => {
  test('answers to its keys only, and to none after it is revoked', async () => {
    const server = await start({ ADMIN_KEY: adminKey })
    const keys = await keysOf(server)
    const project = await keys.createProject('one')
    const { key, row } = await keys.createKey(project.id, 'laptop')
    const caller = createCaller(server, key)
    const fine = await caller.get('/assistants')
    expect(fine.status).toBe(200)
    expect(fine.headers.get('openai-project')).toBe(project.id)

    const wrong = `${key.slice(0, -1)}${key.endsWith('A') ? 'B' : 'A'}`
    const answer = await createCaller(server, wrong).get('/assistants')
    expect(refusal(answer)).toMatchObject({ status: 401, code: 'invalid_api_key', param: null })
    expect(answer.body.error.message).toMatch(/^Incorrect API key provided: sk-\S+\*\*\*/)
    expect(answer.text).not.toContain(wrong)

    expect((await keys.revokeKey(row.id))?.revoked_at).toBeInstanceOf(Date)
    expect((await caller.get('/assistants')).status).toBe(401)
  })

  test('keeps no key, only what is made of it', async () => {
    const server = await start()
    const keys = await keysOf(server)
    const { key, row } = await keys.createKey((await keys.defaultProject()).id, 'laptop')
    expect(JSON.stringify([row, await keys.listKeys()])).not.toContain(key)
    expect(key).toMatch(/^sk-.{30,}$/)
    expect(key.endsWith(row.tail)).toBe(true)
  })

  test('closes soon after its first key was made', async () => {
    const server = await start()
    const anybody = createCaller(server, 'anybody')
    expect((await anybody.get('/assistants')).status).toBe(200)
    const keys = await keysOf(server)
    const { key } = await keys.createKey((await keys.defaultProject()).id, 'laptop')
    await expect
      .poll(async () => (await anybody.get('/assistants')).status, { timeout: 10_000 })
      .toBe(401)
    expect((await createCaller(server, key).get('/assistants')).status).toBe(200)
  })

  test('asks for the admin key where only that is set', async () => {
    const server = await start({ ADMIN_KEY: adminKey })
    expect((await createCaller(server, adminKey).get('/assistants')).status).toBe(200)
    for (const key of ['any', `${adminKey}x`, adminKey.slice(1)]) {
      expect((await createCaller(server, key).get('/assistants')).status).toBe(401)
    }
  })

  test('answers under any name and to any origin that has a key', async () => {
    const server = await start({ ADMIN_KEY: adminKey })
    const authorization = `Bearer ${adminKey}`
    const headers = { host: 'longrun.example', origin: 'https://app.example', authorization }
    expect((await raw(server, headers)).status).toBe(200)
  })
})

describe('on an address that others can reach', () => {
  test.each(['0.0.0.0', '::'])(
    '%s: it does not start without keys, and says what to do',
    async (HOST) => {
      await expect(start({ HOST })).rejects.toThrow(
        new RegExp(`HOST is ${HOST}, .*npm run admin -- key create.*ADMIN_KEY`, 's'),
      )
    },
  )

  test('it starts with an admin key, and lets in nobody else', async () => {
    const server = await start({ HOST: '0.0.0.0', ADMIN_KEY: adminKey })
    const local = { baseUrl: server.baseUrl.replace('0.0.0.0', '127.0.0.1') }
    expect((await createCaller(local, adminKey).get('/assistants')).status).toBe(200)
    expect((await createCaller(local, 'any').get('/assistants')).status).toBe(401)
  })
})

/** `fetch` would not send these headers. */
async function raw({ baseUrl }: TestServer, headers: Record<string, string>) {
  const { hostname, port, host } = new URL(baseUrl)
  return new Promise<{ status: number; error: { message: string } }>((resolve, reject) => {
    request(
      {
        hostname,
        port,
        path: '/v1/assistants',
        headers: { host, authorization: 'Bearer any', 'openai-beta': 'assistants=v2', ...headers },
      },
      (answer) => {
        let text = ''
        answer.on('data', (data: Buffer) => (text += data.toString()))
        answer.on('end', () => {
          const { error } = JSON.parse(text) as { error: { message: string } }
          resolve({ status: answer.statusCode ?? 0, error })
        })
      },
    )
      .on('error', reject)
      .end()
  })
}
