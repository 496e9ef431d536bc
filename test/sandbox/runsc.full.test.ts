import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'

import { afterEach, beforeEach, expect, test, vi } from 'vitest'

import { createLogger } from '../../log.ts'
import { createRunsc } from '../../sandbox/runsc.ts'
import { eventually, isAlive } from '../local/scratch.ts'
import {
  descendantsOf,
  describeProviders,
  openTestSandbox,
  printed,
  testProviders,
  testRoot,
} from './support.ts'

// Before the imports.
vi.hoisted(() => (process.env['TEST_SANDBOX_PROVIDER'] = 'runsc'))

let dir: string
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'longrun-runsc-'))
})
afterEach(() => rmSync(dir, { recursive: true, force: true, maxRetries: 10 }))

test('an image is no root file system for it', async () => {
  const root = { ...testRoot().root, image: 'name' }
  const provider = createRunsc({ root, stateDir: dir, log: createLogger('silent') })
  expect(await provider.probe()).toMatchObject({ ok: false, why: expect.stringMatching(/docker/) })
})

/** Where gVisor differs: what its kernel does not bound, the host does, and the whole sandbox goes. */
describeProviders('beyond what gVisor bounds', (provider) => {
  const isOther = provider.name !== 'runsc'

  test.skipIf(isOther)('too much for one process is a MemoryError', async () => {
    await using sandbox = await openTestSandbox(provider)
    const output = await printed(
      sandbox,
      'try: b"x" * 10**9\nexcept MemoryError: print("MemoryError")',
    )
    expect(output).toBe('MemoryError\n')
  })

  test.skipIf(isOther)(
    'too much for all processes together ends the sandbox, and no other',
    async () => {
      await using other = await openTestSandbox(provider)
      await using sandbox = await openTestSandbox(provider)
      const { status } = await sandbox.runCode(
        'import os, time\nfor _ in range(3): os.fork()\nx = b"x" * (200 << 20)\ntime.sleep(30)',
        { timeoutMs: 20_000 },
      )
      expect(status).toBe('gone')
      expect(isAlive(sandbox.hostPid)).toBe(false)
      expect(await printed(other, 'print("here")')).toBe('here\n')
    },
  )

  test.skipIf(isOther)(
    'what it consists of on the host has no rights, but for what hands out files',
    async () => {
      await using sandbox = await openTestSandbox(provider)
      const statuses = descendantsOf(sandbox.hostPid).map((pid) =>
        readFileSync(`/proc/${pid}/status`, 'utf8'),
      )
      const ofCode = statuses.filter((status) => !/^Uid:\s+0\s/m.test(status))
      expect(ofCode.length).toBeGreaterThan(1)
      for (const status of ofCode) {
        expect(status).toMatch(/^NoNewPrivs:\s1$/m)
        expect(status).toMatch(/^Seccomp:\s2$/m)
      }
      expect(statuses.length - ofCode.length).toBeLessThanOrEqual(1)
    },
  )

  test.skipIf(isOther)('a fork bomb ends, at the latest with its sandbox', async () => {
    await using sandbox = await openTestSandbox(provider)
    const result = await sandbox.runCode(
      'import os\nwhile True:\n    try: os.fork()\n    except OSError: pass',
      { timeoutMs: 1000 },
    )
    expect(['timeout', 'crashed', 'gone']).toContain(result.status)
    await sandbox.terminate()
    expect(isAlive(sandbox.hostPid)).toBe(false)
  })

  test.skipIf(isOther)(
    'kill -9 of the server ends its sandboxes, and the next one clears up',
    async () => {
      const server = spawn(
        process.execPath,
        [resolve('test/sandbox/container-main.ts'), 'runsc', dir],
        { stdio: ['ignore', 'pipe', 'inherit'] },
      )
      const [line] = (await once(server.stdout, 'data')) as [Buffer]
      const { hostPid } = JSON.parse(line.toString()) as { hostPid: number }
      expect(isAlive(hostPid)).toBe(true)
      server.kill('SIGKILL')
      await eventually(() => !isAlive(hostPid))
      const state = join(dir, 'state')
      await testProviders(state)
        .find(({ name }) => name === 'runsc')
        ?.reap()
      expect(readdirSync(join(state, 'runsc-processes'))).toEqual([])
      expect(readdirSync(state).filter((name) => name.endsWith('.runsc'))).toEqual([])
    },
  )
})
