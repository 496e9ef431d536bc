import { afterAll, beforeAll, expect, test } from 'vitest'

import {
  InvalidError,
  type Sandbox,
  SandboxStartError,
  SandboxTimeoutError,
} from '../../sandbox/index.ts'
import { describeProviders, openTestSandbox } from './support.ts'

describeProviders('programs beside the interpreter', (provider) => {
  let sandbox: Sandbox

  beforeAll(async () => {
    sandbox = await openTestSandbox(provider)
  })
  afterAll(async () => await sandbox.terminate())

  test('a program has its output, its errors and its exit code', async () => {
    const program = await sandbox.exec(['sh', '-c', 'echo out; echo err >&2; exit 3'])
    expect(await program.stdout.readText()).toBe('out\n')
    expect(await program.stderr.readText()).toBe('err\n')
    expect(await program.wait()).toBe(3)
  })

  test('a program that a signal ends has 128 and its number', async () => {
    const program = await sandbox.exec(['sh', '-c', 'kill -TERM $$'])
    expect(await program.wait()).toBe(128 + 15)
  })

  test('directory and environment are as they were given', async () => {
    const program = await sandbox.exec(['sh', '-c', 'pwd; echo $A $HOME'], {
      workdir: '/tmp',
      env: { A: 'ü' },
    })
    expect(await program.stdout.readText()).toBe('/tmp\nü /home/sandbox\n')
    const plain = await sandbox.exec(['pwd'])
    expect(await plain.stdout.readText()).toBe('/mnt/data\n')
  })

  test('what is written to a program comes back, ten megabytes of it', async () => {
    const program = await sandbox.exec(['cat'])
    const sent = Buffer.alloc(10 * 1024 * 1024, 'abc\u0000\u0003\u00ff')
    program.stdin.end(sent)
    expect((await program.stdout.readBytes()).equals(sent)).toBe(true)
    expect(await program.wait()).toBe(0)
  })

  test('a program that writes waits until it is read, and the interpreter does not wait for it', async () => {
    const program = await sandbox.exec(['sh', '-c', 'yes | head -c 5000000'])
    expect(await sandbox.runCode('1', { timeoutMs: 5000 })).toMatchObject({ status: 'ok' })
    expect((await program.stdout.readBytes()).length).toBe(5_000_000)
  })

  test('a program that takes too long is killed', async () => {
    const program = await sandbox.exec(['sleep', '1000'], { timeoutMs: 300 })
    await expect(program.wait()).rejects.toThrow(SandboxTimeoutError)
  })

  test('a program can be killed', async () => {
    const program = await sandbox.exec(['sleep', '1000'])
    program.kill()
    expect(await program.wait()).toBe(128 + 9)
  })

  test('programs that are killed at once harm nothing', async () => {
    const programs = await Promise.all(
      Array.from({ length: 5 }, async () => {
        const program = await sandbox.exec(['sleep', '1000'])
        program.kill()
        return await program.wait()
      }),
    )
    expect(programs).toEqual([137, 137, 137, 137, 137])
    expect(await sandbox.runCode('1', { timeoutMs: 5000 })).toMatchObject({ status: 'ok' })
  })

  test('programs run while code runs', async () => {
    const stop = new AbortController()
    const cell = sandbox.runCode('while True: pass', { timeoutMs: 60_000, signal: stop.signal })
    const program = await sandbox.exec(['echo', 'x'])
    expect(await program.stdout.readText()).toBe('x\n')
    stop.abort()
    expect(await cell).toMatchObject({ status: 'interrupted' })
  })

  test('what cannot be started is an error', async () => {
    await expect(sandbox.exec(['no-such-program'])).rejects.toThrow(SandboxStartError)
    await expect(sandbox.exec(['true'], { workdir: '/nowhere' })).rejects.toThrow('nowhere')
    await expect(sandbox.exec([])).rejects.toThrow(InvalidError)
    await expect(sandbox.exec(['a\0b'])).rejects.toThrow(InvalidError)
  })

  test('a program that closes its input ends the writing', async () => {
    const program = await sandbox.exec(['true'])
    await program.wait()
    const failed = await new Promise((done) => program.stdin.write('x', done))
    expect(failed).toBeInstanceOf(Error)
  })

  test('a program has the limits of the sandbox', async () => {
    // Docker counts processes of the container, and this limit would count those of a user of the whole machine.
    const which = provider.name === 'docker' ? 'r.RLIMIT_CORE' : 'r.RLIMIT_NPROC, r.RLIMIT_CORE'
    const limits = `import resource as r; print([r.getrlimit(which) for which in (${which},)])`
    const program = await sandbox.exec(['python3', '-c', limits])
    const expected = provider.name === 'docker' ? '[(0, 0)]\n' : '[(64, 64), (0, 0)]\n'
    expect(await program.stdout.readText()).toBe(expected)
  })
})
