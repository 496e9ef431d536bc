import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'

import { afterEach, beforeEach, expect, test } from 'vitest'

import { Sandbox, type SandboxProvider } from '../../sandbox/index.ts'
import { eventually, isAlive } from '../local/scratch.ts'
import { describeProviders, TEST_LIMITS, testProviders } from './support.ts'

let dir: string
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'longrun-sandbox-'))
})
afterEach(() => rmSync(dir, { recursive: true, force: true, maxRetries: 10 }))

describeProviders('from one process to the next', (provider) => {
  test.skipIf(provider.name !== 'bubblewrap')(
    '11: after kill -9 of the server no process is left, and no group after the next start',
    async () => {
      const server = spawn(process.execPath, [resolve('test/sandbox/server-main.ts'), dir], {
        stdio: ['ignore', 'pipe', 'inherit'],
      })
      const [line] = (await once(server.stdout, 'data')) as [Buffer]
      const { hostPid } = JSON.parse(line.toString()) as { hostPid: number }
      expect(isAlive(hostPid)).toBe(true)
      server.kill('SIGKILL')
      await eventually(() => !isAlive(hostPid) && processesIn(join(dir, 'data')) === 0)
      const next = testProviders(dir).find(({ name }) => name === provider.name)
      await next?.reap()
      expect(readdirSync(join(dir, 'processes'))).toEqual([])
      expect(readdirSync(dir).filter((name) => name.endsWith('.args'))).toEqual([])
    },
  )

  test('reap ends what an earlier process has left, and leaves others alone', async () => {
    const mine = providerIn(join(dir, 'mine'), provider.name)
    const others = providerIn(join(dir, 'others'), provider.name)
    const left = await Sandbox.create(mine, optionsIn(join(dir, 'a')))
    await using kept = await Sandbox.create(others, optionsIn(join(dir, 'b')))
    await providerIn(join(dir, 'mine'), provider.name).reap()
    expect(await left.died).toMatch(/unexpectedly/)
    expect(await kept.runCode('1', { timeoutMs: 5000 })).toMatchObject({ status: 'ok' })
  })

  test('what was in the data directory before belongs to the sandbox', async () => {
    const options = optionsIn(join(dir, 'a'))
    writeFileSync(join(options.dataDir, 'old'), 'x')
    mkdirSync(join(options.dataDir, 'deep'))
    await using sandbox = await provider.create(options)
    const { status } = await sandbox.runCode('open("old", "a").write("y"); open("deep/new", "w")', {
      timeoutMs: 5000,
    })
    expect(status).toBe('ok')
    expect(await sandbox.filesystem.readText('old')).toBe('xy')
  })

  test('nothing is left of a sandbox that was closed', async () => {
    const mine = providerIn(join(dir, 'mine'), provider.name)
    const sandbox = await Sandbox.create(mine, optionsIn(join(dir, 'a')))
    await sandbox.terminate()
    expect(isAlive(sandbox.hostPid)).toBe(false)
    const written = join(dir, 'mine', 'processes')
    expect(existsSync(written) ? readdirSync(written) : []).toEqual([])
  })
})

function providerIn(stateDir: string, name: SandboxProvider['name']): SandboxProvider {
  const provider = testProviders(stateDir).find((one) => one.name === name)
  if (!provider) throw new Error(`There is no ${name}.`)
  return provider
}

function optionsIn(dataDir: string) {
  mkdirSync(dataDir, { recursive: true })
  return { dataDir, limits: TEST_LIMITS, network: 'none' as const }
}

/** How many processes have the directory mounted. */
function processesIn(path: string): number {
  const { stdout } = spawnSync('sh', [
    '-c',
    'cat /proc/[0-9]*/mountinfo | grep -cF "$1"',
    'sh',
    path,
  ])
  return Number(stdout.toString())
}
