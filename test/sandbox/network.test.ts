import { once } from 'node:events'
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { createServer, request, type Server } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'

import { type Door, InvalidError } from '../../sandbox/index.ts'
import { openDoor } from '../../sandbox/network.ts'
import { describeProviders, openTestSandbox, printed, testRoot } from './support.ts'

let server: Server
let port: number
let seen: string[]

beforeAll(async () => {
  server = createServer((incoming, answer) => {
    seen.push(`${incoming.method} ${incoming.headers.host}${incoming.url}`)
    answer.end('answered')
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  port = typeof address === 'object' && address ? address.port : 0
})
afterAll(() => server.close())
beforeEach(() => {
  seen = []
})

describe('the way out', () => {
  const addresses: Record<string, string[]> = {
    'public.test': ['93.184.216.34'],
    'rebound.test': ['127.0.0.1'],
    'metadata.test': ['169.254.169.254', '::ffff:10.0.0.1', 'fd00::1', '64:ff9b::a00:1'],
  }

  async function ask(allow: string[], path: string, method = 'GET') {
    const directory = mkdtempSync(join(tmpdir(), 'longrun-door-'))
    const resolve = async (host: string) => addresses[host] ?? []
    const { root } = testRoot()
    await using door = (await openDoor({ network: { allow }, directory, root, resolve })) as Door
    const outgoing = request({ socketPath: join(door.directory, 'proxy.sock'), path, method }).end()
    const [response] = await Promise.race([once(outgoing, 'response'), once(outgoing, 'connect')])
    response.resume()
    outgoing.destroy()
    rmSync(directory, { recursive: true, force: true })
    return response.statusCode as number
  }

  test('what is on the list is reached', async () => {
    const here = `127.0.0.1:${port}`
    expect(await ask([here], `http://${here}/path?q=1`)).toBe(200)
    expect(seen).toEqual([`GET ${here}/path?q=1`])
    expect(await ask([here], here, 'CONNECT')).toBe(200)
  })

  test.each([
    ['another port', () => `127.0.0.1:${port + 1}`],
    ['a name that leads there', () => `localhost:${port}`],
    ['another host', () => 'example.com:443'],
  ])('what is not on the list is refused: %s', async (_, target) => {
    expect(await ask([`127.0.0.1:${port}`], target(), 'CONNECT')).toBe(403)
    expect(await ask([`127.0.0.1:${port}`], `http://${target()}/`)).toBe(403)
  })

  test('a name that leads into a private network is not followed', async () => {
    for (const name of ['rebound.test', 'metadata.test']) {
      expect(await ask([`${name}:${port}`], `${name}:${port}`, 'CONNECT')).toBe(502)
      expect(await ask([`${name}:${port}`], `http://${name}:${port}/`)).toBe(502)
    }
    expect(seen).toEqual([])
  })

  test('what is no proxy request is refused', async () => {
    expect(await ask(['a:1'], '/path')).toBe(400)
    expect(await ask(['a:1'], 'ftp://a:1/')).toBe(400)
  })

  test('an entry without a port is an error', async () => {
    await expect(ask(['example.com'], '/')).rejects.toThrow(InvalidError)
    await expect(ask(['example.com:99999'], '/')).rejects.toThrow(InvalidError)
  })

  test('the socket goes with the door', async () => {
    const directory = join(mkdtempSync(join(tmpdir(), 'longrun-door-')), 'network')
    const { root } = testRoot()
    const door = await openDoor({ network: { allow: ['a:1'] }, directory, root })
    expect(existsSync(join(directory, 'proxy.sock'))).toBe(true)
    await door?.[Symbol.asyncDispose]()
    expect(existsSync(directory)).toBe(false)
  })
})

describeProviders('a sandbox with a list of what it may reach', (provider) => {
  test('reaches that and nothing else', async () => {
    const here = `127.0.0.1:${port}`
    await using sandbox = await openTestSandbox(provider, { network: { allow: [here] } })
    const get = [
      'import urllib.request, urllib.error, os, socket',
      // Addresses of this machine are its own, so that clients are told to take the proxy for them.
      'for name in ("no_proxy", "NO_PROXY"): os.environ.pop(name)',
      'def get(url):',
      '    try: return urllib.request.urlopen(url, timeout=5).read().decode()',
      '    except urllib.error.HTTPError as error: return error.code',
      '    except OSError as error: return type(error).__name__',
    ].join('\n')
    await printed(sandbox, get)
    expect(await printed(sandbox, `get("http://${here}/x")`)).toBe("'answered'")
    expect(seen).toEqual([`GET ${here}/x`])
    expect(await printed(sandbox, `get("http://127.0.0.1:${port + 1}/")`)).toBe('403')
    expect(await printed(sandbox, 'get("http://169.254.169.254/")')).toBe('403')
    expect(await printed(sandbox, 'get("https://example.com/")')).toMatch(/403|URLError|OSError/)
    // The forwarder comes back when code has killed it.
    await printed(sandbox, '!pkill -f forwarder.py; true')
    await expect
      .poll(async () => await printed(sandbox, `get("http://${here}/y")`), { timeout: 10_000 })
      .toBe("'answered'")
    // Around the proxy there is nothing.
    const direct = `try:\n    print(socket.create_connection(("127.0.0.1", ${port}), 2))\nexcept OSError as e: print(type(e).__name__)`
    expect(await printed(sandbox, direct)).toBe('ConnectionRefusedError\n')
  })
})
