import { spawnSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'

import { afterAll, beforeAll, expect, test } from 'vitest'

import type { CodeResult, Sandbox } from '../../sandbox/index.ts'
import {
  descendantsOf,
  describeProviders,
  logsOf,
  openTestSandbox,
  TEST_LIMITS,
} from './support.ts'

/** The failure table: what code can do to its interpreter, what is said of it, and what is left. */
describeProviders('what code does to its session', (provider) => {
  let sandbox: Sandbox
  const run = async (code: string, timeoutMs = 20_000): Promise<CodeResult & { logs: string }> => {
    const result = await sandbox.runCode(code, { timeoutMs })
    return { ...result, logs: logsOf(result.outputs) }
  }

  beforeAll(async () => {
    sandbox = await openTestSandbox(provider)
  })
  afterAll(async () => await sandbox.terminate())

  // ---------------------------------------------------------------- what is shown

  test('the value of the last expression ends the logs', async () => {
    expect(await run('print("a")\n6 * 7')).toMatchObject({ status: 'ok', logs: 'a\n42' })
    expect(await run('None')).toMatchObject({ status: 'ok', outputs: [] })
  })

  test('a DataFrame is shown as text, by display() too', async () => {
    const { logs } = await run(
      'import pandas as pd\nd = pd.DataFrame({"a": [1, 2]})\ndisplay(d)\nd["a"].sum()',
    )
    expect(logs).toBe('   a\n0  1\n1  2\nnp.int64(3)')
  })

  test('what display() is given as HTML is shown as its source', async () => {
    const { logs } = await run('from IPython.display import HTML\ndisplay(HTML("<b>x</b>"))')
    expect(logs).toBe('<b>x</b>\n')
  })

  test('figures are images, where they were shown, and are closed', async () => {
    const { outputs } = await run(
      [
        'import matplotlib.pyplot as plt',
        'print("a")',
        'plt.plot([1, 2])',
        'plt.show()',
        'print("b")',
        'plt.figure()',
        'plt.plot([3])',
        'plt.figure()',
        'plt.plot([4]);',
      ].join('\n'),
    )
    const shapes = outputs.map((one) => (one.type === 'logs' ? one.logs : one.format))
    expect(shapes).toEqual(['a\n', 'png', 'b\n', 'png', 'png'])
    const [, image] = outputs
    expect(image?.type === 'image' && image.data.subarray(0, 8).toString('latin1')).toBe(
      '\u0089PNG\r\n\u001A\n',
    )
    expect(await run('plt.get_fignums()')).toMatchObject({ logs: '[]' })
  })

  /** Prints pictures of eight megabytes, whose first bytes are these. */
  const pictures = (count: number, beginning: string): string =>
    [
      'import os',
      'class Picture:',
      `    def _repr_png_(self): return (${beginning} + b"x" * 2**23)[:2**23]`,
      `for _ in range(${count}): display(Picture())`,
    ].join('\n')

  test('images have 32 MB a cell together, and what is beyond them is counted', async () => {
    const { status, outputs, droppedBytes } = await run(
      pictures(6, String.raw`b"\x89PNG\r\n\x1a\n"`),
    )
    expect(status).toBe('ok')
    expect(outputs.map((one) => one.type === 'image' && one.data.length)).toEqual(
      Array.from({ length: 4 }, () => 2 ** 23),
    )
    expect(droppedBytes).toBe(2 * 2 ** 23)
    expect(await run(pictures(1, String.raw`b"\x89PNG\r\n\x1a\n"`))).toMatchObject({
      outputs: [{ type: 'image' }],
      droppedBytes: 0,
    })
  })

  test('what says that it is an image and is none is dropped', async () => {
    const { outputs, droppedBytes } = await run(pictures(1, 'b"<html>"'))
    expect(outputs).toEqual([])
    expect(droppedBytes).toBe(2 ** 23)
  })

  test('a picture as the last expression is an image', async () => {
    const { outputs } = await run('from PIL import Image\nImage.new("RGB", (3, 3))')
    expect(outputs).toMatchObject([{ type: 'image', format: 'png' }])
  })

  test('an exception is a traceback without escape sequences', async () => {
    const { status, logs, stateLost } = await run('def f():\n    return 1 / 0\nf()')
    expect({ status, stateLost }).toEqual({ status: 'error', stateLost: false })
    expect(logs).toMatch(/^-+\nZeroDivisionError .*Traceback/)
    expect(logs).toMatch(/ZeroDivisionError: division by zero$/)
    expect(logs).not.toContain('\u001B')
  })

  test('a mistake in the syntax is told', async () => {
    const { status, logs } = await run('def f(:')
    expect(status).toBe('error')
    expect(logs).toMatch(/SyntaxError: /)
  })

  test('bytes of any value come through as text that can be stored', async () => {
    const { logs } = await run(
      String.raw`print("\x1b[31mred\x1b[0m", "\0", "\ud800", "ü😀", "\x03\x04\x11\x13")` +
        '\nimport sys\nsys.stdout.buffer.write(bytes(range(256)))\nsys.stdout.flush()\nNone',
    )
    expect(logs).toContain('red \uFFFD \\ud800 ü😀 \u0003\u0004\u0011\u0013\n')
    expect(logs).not.toContain('\u0000')
    expect(logs.isWellFormed()).toBe(true)
  })

  test('code of ten megabytes arrives whole', async () => {
    const text = 'ü'.repeat(5 * 1024 * 1024)
    expect(await run(`len("${text}")`)).toMatchObject({ logs: String(text.length) })
  })

  test('a megabyte of output arrives whole, and what is beyond the limit is counted', async () => {
    const limit = TEST_LIMITS.outputBytes
    const whole = await run(`print("x" * ${limit - 1})`)
    expect(whole.logs).toBe(`${'x'.repeat(limit - 1)}\n`)
    expect(whole.droppedBytes).toBe(0)
    const more = await run(`print("x" * ${limit + 999})`)
    expect(more.logs).toBe('x'.repeat(limit))
    expect(more.droppedBytes).toBe(1000)
    expect(more.note).toBe('[output truncated, 1000 bytes dropped]')
  })

  test('a flood is cut, and ends at its timeout', async () => {
    const { status, logs, droppedBytes, stateLost } = await run('!yes', 1500)
    expect({ status, stateLost }).toEqual({ status: 'timeout', stateLost: false })
    expect(logs.length).toBeLessThanOrEqual(TEST_LIMITS.outputBytes + 64 * 1024)
    expect(droppedBytes).toBeGreaterThan(TEST_LIMITS.outputBytes)
  })

  test('what is put out is told while the code runs', async () => {
    const stop = new AbortController()
    const { status, outputs } = await sandbox.runCode(
      'print("here")\nimport time\ntime.sleep(60)',
      {
        timeoutMs: 60_000,
        signal: stop.signal,
        onOutput: (piece) => piece.type === 'logs' && piece.logs.includes('here') && stop.abort(),
      },
    )
    expect(status).toBe('interrupted')
    expect(logsOf(outputs)).toMatch(/^here\n/)
  })

  // ---------------------------------------------------------------- what leaves the variables alone

  test.each([
    ['closing stdout and stderr', 'import os\nos.close(1)\nos.close(2)'],
    ['closing sys.stdout', 'import sys\nsys.stdout.close()'],
    ['replacing sys.stdout', 'import sys, io\nsys.stdout = sys.stderr = io.StringIO()'],
    ['sys.exit()', 'import sys\nsys.exit()'],
    ['exit()', 'exit()'],
    ['an exit handler', 'import atexit\natexit.register(print, "bye")\nNone'],
  ])('%s does nothing to the session', async (_, code) => {
    await run('kept = 41')
    expect(await run(code)).toMatchObject({ status: 'ok', stateLost: false })
    expect(await run('print("again")\nkept + 1')).toMatchObject({ logs: 'again\n42' })
  })

  test('an exit code that is not zero is told, and the session goes on', async () => {
    await run('kept = 41')
    expect(await run('import sys\nsys.exit(3)')).toMatchObject({
      status: 'error',
      logs: 'SystemExit: 3\n',
    })
    expect(await run('kept')).toMatchObject({ logs: '41' })
  })

  test('a fork in a cell is heard, and ends with its cell', async () => {
    const { logs } = await run(
      'import os\nif os.fork() == 0:\n    print("child")\nelse:\n    os.wait()\n    print("parent")',
    )
    expect(logs).toBe('child\nparent\n')
    expect(await run('1')).toMatchObject({ logs: '1' })
  })

  test('programs are heard, by subprocess and by an exclamation mark', async () => {
    expect(
      await run('import subprocess\nsubprocess.run(["echo", "a"])\n!echo b >&2'),
    ).toMatchObject({
      status: 'ok',
      logs: 'a\nb\n',
    })
  })

  test('what comes in the background after a cell belongs to no cell', async () => {
    await run('import subprocess\np = subprocess.Popen("sleep 0.3; echo late", shell=True)')
    await run('import time\ntime.sleep(0)')
    await expect.poll(async () => (await sandbox.exec(['pgrep', 'sleep'])).wait()).not.toBe(0)
    expect(await run('p.wait()')).toMatchObject({ logs: '0' })
  })

  test('input() says that it is not supported, and stdin is empty', async () => {
    const { status, logs } = await run('input("name?")')
    expect(status).toBe('error')
    expect(logs).toContain('input() is not supported')
    expect(await run('import sys\nsys.stdin.read()')).toMatchObject({ logs: "''" })
  })

  test.each([
    ['an endless loop', 'while True: pass'],
    ['a long sleep', 'import time\ntime.sleep(1000)'],
    ['a pattern that backtracks', 'import re\nre.match("(a+)+b", "a" * 60)'],
    ['a program that does not end', '!sleep 1000'],
    [
      'a program in a session of its own',
      'import subprocess\nsubprocess.run(["setsid", "-w", "sleep", "1000"])',
    ],
  ])('%s ends at its timeout, and variables are kept', async (_, code) => {
    await run('kept = 41')
    const result = await run(`print("begun")\n${code}`, 1000)
    expect(result).toMatchObject({
      status: 'timeout',
      stateLost: false,
      note: 'The code timed out after 1 s.',
    })
    expect(result.logs).toMatch(/^begun\n/)
    expect(result.durationMs).toBeLessThan(1000 + 3000)
    expect(await run('kept')).toMatchObject({ logs: '41' })
  })

  test('an aborted signal interrupts the cell, and variables are kept', async () => {
    await run('kept = 41')
    const result = await sandbox.runCode('while True: pass', {
      timeoutMs: 60_000,
      signal: AbortSignal.timeout(500),
    })
    expect(result).toMatchObject({
      status: 'interrupted',
      stateLost: false,
      note: 'The code was interrupted.',
    })
    expect(await run('kept')).toMatchObject({ logs: '41' })
  })

  test('a signal that is aborted right after the start interrupts all the same', async () => {
    const stop = new AbortController()
    const cell = sandbox.runCode('while True: pass', { timeoutMs: 10_000, signal: stop.signal })
    setImmediate(() => stop.abort())
    expect(await cell).toMatchObject({ status: 'interrupted', stateLost: false })
  })

  test('a cell that was taken back before its turn never runs', async () => {
    const first = sandbox.runCode('import time\ntime.sleep(0.5)', { timeoutMs: 5000 })
    const stop = new AbortController()
    const second = sandbox.runCode('taken_back = True', { timeoutMs: 5000, signal: stop.signal })
    stop.abort()
    expect(await first).toMatchObject({ status: 'ok' })
    expect(await second).toMatchObject({ status: 'interrupted', outputs: [] })
    expect(await run('"taken_back" in globals()')).toMatchObject({ logs: 'False' })
  })

  test('too large an allocation is a MemoryError', async () => {
    await run('kept = 41')
    expect((await run('b"x" * 10**10')).logs).toMatch(/MemoryError/)
    expect(await run('kept')).toMatchObject({ logs: '41' })
  })

  test('too many threads are an error', async () => {
    const { status, logs } = await run(
      [
        'import threading',
        'done = threading.Event()',
        'try:',
        '    for _ in range(1000): threading.Thread(target=done.wait).start()',
        'finally:',
        '    done.set()',
      ].join('\n'),
    )
    expect(status).toBe('error')
    expect(logs).toMatch(/can't start new thread/)
  })

  test('a full /tmp is an error, at its size', async () => {
    const { status, logs } = await run(
      'with open("/tmp/big", "wb") as f:\n    while True: f.write(b"x" * 2**20); f.flush()',
    )
    expect(status).toBe('error')
    expect(logs).toMatch(/No space left on device/)
    expect(await run('import os\nos.path.getsize("/tmp/big") <= 32 * 2**20')).toMatchObject({
      logs: 'True',
    })
    await run('os.remove("/tmp/big")')
  })

  test('one file that is too large is an error', async () => {
    const { status, logs } = await run(
      'with open("/mnt/data/sparse", "wb") as f: f.truncate(2**40)',
    )
    expect(status).toBe('error')
    expect(logs).toMatch(/File too large/)
  })

  test('many files that are too large together stop the code', async () => {
    const { status, note } = await run(
      [
        'import time',
        'n = 0',
        'while True:',
        '    n += 1',
        '    with open(f"/mnt/data/{n % 10}", "wb") as f: f.write(b"x" * 10**7)',
        '    time.sleep(0.05)',
      ].join('\n'),
    )
    expect(status).toBe('interrupted')
    expect(note).toContain('the files in /mnt/data are more than 64 MB')
    // Within the interpreter: it is stopped for as long as the files are too large.
    await run('import glob, os\nfor path in glob.glob("/mnt/data/*"): os.remove(path)')
  })

  // ---------------------------------------------------------------- what loses the variables

  test.each([
    ['os._exit()', 'import os\nos._exit(5)', 'exit code 5'],
    ['a segmentation fault', 'import ctypes\nctypes.string_at(0)', 'SIGSEGV'],
    ['abort()', 'import os\nos.abort()', 'SIGABRT'],
    ['closing all files', 'import os\nos.closerange(3, 10**5)', 'exit code 0'],
    ['killing itself', 'import os\nos.kill(os.getpid(), 9)', 'SIGKILL'],
  ])('%s is told, and another interpreter takes over', async (_, code, cause) => {
    await run('gone = 41')
    const result = await run(`print("begun")\n${code}`)
    expect(result).toMatchObject({
      status: 'crashed',
      stateLost: true,
      logs: 'begun\n',
      note: `The interpreter crashed (${cause}). The interpreter was restarted; variables were lost.`,
    })
    expect(await run('"gone" in globals()')).toMatchObject({ status: 'ok', logs: 'False' })
  })

  test('an interpreter that dies between two calls is told with the next one', async () => {
    await run('import os, threading\nthreading.Timer(0.3, lambda: os._exit(7)).start()')
    await expect
      .poll(async () => (await run('"os" in globals()')).stateLost, { timeout: 10_000 })
      .toBe(true)
    expect(await run('1')).toMatchObject({ stateLost: false, logs: '1' })
  })

  test('code that ignores interrupts is killed two seconds later', async () => {
    const result = await run(
      'import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass',
      1000,
    )
    expect(result).toMatchObject({
      status: 'timeout',
      stateLost: true,
      note: 'The code timed out after 1 s. The interpreter was restarted; variables were lost.',
    })
    expect(result.durationMs).toBeLessThan(1000 + 3000)
    expect(await run('1')).toMatchObject({ status: 'ok', logs: '1' })
  })

  test('what has left the session is killed with it', async () => {
    await run('import subprocess\nsubprocess.Popen(["setsid", "sleep", "987"])\nNone')
    await run('import os\nos._exit(0)')
    const left = await sandbox.exec(['pgrep', '-f', 'sleep 987'])
    expect(await left.wait()).toBe(1)
  })

  // gVisor bounds one process, and the host all of gVisor: then the whole sandbox goes (runsc.test.ts).
  const isBoundedAsOne = provider.name === 'runsc'

  test.skipIf(isBoundedAsOne)(
    'more memory than there is for all processes loses the variables, and is told',
    async () => {
      const result = await run(
        [
          'import os, time',
          'for _ in range(4):',
          '    if os.fork() == 0:',
          '        x = b"x" * (200 * 2**20); time.sleep(300); os._exit(0)',
          'x = b"x" * (200 * 2**20)',
          'os.wait()',
        ].join('\n'),
        // A machine that is busy takes its time to hand out a gigabyte.
        45_000,
      )
      expect(result.note).toContain('ran out of memory (512 MB)')
      expect(await run('!pkill sleep; true')).toMatchObject({ status: 'ok' })
      await run('import os\nos._exit(0)')
    },
  )

  // Docker's supervisor shares the bounds with the code: it gets its turn when it gets it, and may go with the rest.
  const graceMs = provider.name === 'docker' ? 15_000 : 3000
  const endsOfBombs =
    provider.name === 'docker' ? ['timeout', 'crashed', 'gone'] : ['timeout', 'crashed']

  test.skipIf(isBoundedAsOne)('a fork bomb is bounded and ends', async () => {
    await using own = await openTestSandbox(provider)
    const code = 'import os\nwhile True:\n    try: os.fork()\n    except OSError: pass'
    const result = await own.runCode(code, { timeoutMs: 2000 })
    expect(endsOfBombs).toContain(result.status)
    expect(result.durationMs).toBeLessThan(2000 + graceMs)
    if (result.status === 'gone') return
    expect(await own.runCode('1', { timeoutMs: 20_000 })).toMatchObject({ status: 'ok' })
  })

  test.skipIf(isBoundedAsOne)('a fork bomb of a shell is bounded and ends', async () => {
    await using own = await openTestSandbox(provider)
    const bomb = 'bomb() { bomb | bomb & }; bomb; sleep 60'
    const result = await own.runCode(`!${bomb}`, { timeoutMs: 2000 })
    expect([...endsOfBombs, 'error', 'ok']).toContain(result.status)
    expect(result.durationMs).toBeLessThan(2000 + graceMs)
    if (result.status === 'gone') return
    await own.runCode('import os\nos._exit(0)', { timeoutMs: 20_000 })
    expect(await own.runCode('1', { timeoutMs: 20_000 })).toMatchObject({ status: 'ok' })
  })

  test('endless recursion ends', async () => {
    const result = await run(
      'import sys\nsys.setrecursionlimit(10**8)\ndef f(): return f()\nf()',
      3000,
    )
    expect(['crashed', 'error', 'timeout']).toContain(result.status)
    expect(await run('1')).toMatchObject({ status: 'ok', logs: '1' })
  })

  test('killing the interpreter’s parent restarts both', async () => {
    const result = await run('import os\nos.kill(os.getppid(), 9)\nimport time\ntime.sleep(5)')
    expect(result).toMatchObject({ status: 'crashed', stateLost: true })
    expect(await run('1')).toMatchObject({ status: 'ok', logs: '1' })
  })
})

describeProviders('what ends a whole sandbox', (provider) => {
  test('files that a program writes after its cell are bounded, and it is said', async () => {
    await using sandbox = await openTestSandbox(provider, { limits: { diskBytes: 8 * 2 ** 20 } })
    // Begun by the host, so that it is between two calls for certain.
    const fill =
      'import os, time\nwhile not os.path.exists("go"): time.sleep(0.05)\nfor n in range(40): open(f"f{n}", "wb").write(b"x" * 2**22)\ntime.sleep(60)'
    const cell = await sandbox.runCode(
      `import subprocess\nsubprocess.Popen(["python3", "-c", ${JSON.stringify(fill)}]);`,
      { timeoutMs: 20_000 },
    )
    expect(cell.status).toBe('ok')
    await sandbox.filesystem.writeText('go', '')
    expect(await sandbox.died).toBe(
      'The Python sandbox was ended: between two calls the files in /mnt/data grew to more than 8 MB.',
    )
  })

  test('files that the host puts there between two calls are nobody’s fault', async () => {
    await using sandbox = await openTestSandbox(provider, { limits: { diskBytes: 8 * 2 ** 20 } })
    await sandbox.runCode('kept = 41', { timeoutMs: 20_000 })
    await sandbox.filesystem.writeBytes('input', Buffer.alloc(20 * 2 ** 20, 'x'))
    await sandbox.filesystem.copy('input', 'file-1')
    const long = 'import time\nopen("small", "w").write("x")\ntime.sleep(2)\nkept + 1'
    expect(await sandbox.runCode(long, { timeoutMs: 20_000 })).toMatchObject({
      status: 'ok',
      outputs: [{ logs: '42' }],
    })
  })

  /** The supervisor is the parent of the interpreter's parent. */
  const supervisor =
    'import os\nS = int(open(f"/proc/{os.getppid()}/stat").read().rpartition(")")[2].split()[1])\n'
  // It is process 1, to which signals from inside do nothing; in gVisor's kernel they do.
  const isSpared = provider.name !== 'runsc'

  test.each([
    ['killing', 9],
    ['stopping', 19],
  ])('%s the supervisor by code does nothing, or is told to the cell', async (_, signal) => {
    await using sandbox = await openTestSandbox(provider)
    const code = `${supervisor}os.kill(S, ${signal})\nwhile True: pass`
    const result = await sandbox.runCode(code, { timeoutMs: 3000 })
    expect(result).toMatchObject(
      isSpared ? { status: 'timeout', stateLost: false } : { status: 'gone', stateLost: true },
    )
    expect(result.durationMs).toBeLessThan(3000 + 5000)
  })

  test('a sandbox that is killed is told to the cell, and to calls that come after it', async () => {
    await using sandbox = await openTestSandbox(provider)
    const result = await sandbox.runCode('print("x")\nwhile True: pass', {
      timeoutMs: 10_000,
      onOutput: () => process.kill(sandbox.hostPid, 'SIGKILL'),
    })
    expect(result).toMatchObject({
      status: 'gone',
      stateLost: true,
      outputs: [{ type: 'logs', logs: 'x\n' }],
      note: 'The Python sandbox ended unexpectedly.',
    })
    expect(await sandbox.died).toBe(result.note)
    expect(sandbox.poll()).not.toBe(null)
    expect(await sandbox.runCode('1', { timeoutMs: 5000 })).toMatchObject({ status: 'gone' })
    await expect(sandbox.exec(['true'])).rejects.toThrow('ended unexpectedly')
  })

  test('a supervisor that is stopped is noticed, and its sandbox ended', async (context) => {
    await using sandbox = await openTestSandbox(provider)
    const supervisors = descendantsOf(sandbox.hostPid).filter((pid) =>
      readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('supervisor.py'),
    )
    context.skip(supervisors.length === 0, 'its processes are not children of this one')
    for (const pid of supervisors) process.kill(pid, 'SIGSTOP')
    const result = await sandbox.runCode('1', { timeoutMs: 10_000 })
    expect(result.status).toBe('gone')
    expect(result.durationMs).toBeLessThan(10_000)
    expect(await sandbox.died).toMatch(/stopped answering/)
  })

  test('what is open is closed when it is terminated', async () => {
    const sandbox = await openTestSandbox(provider)
    const cell = sandbox.runCode('while True: pass', { timeoutMs: 60_000 })
    const program = await sandbox.exec(['sleep', '1000'])
    await printedSoon(sandbox)
    await sandbox.terminate()
    expect(await cell).toMatchObject({ status: 'gone', note: 'The Python sandbox was closed.' })
    await expect(program.wait()).rejects.toThrow('closed')
    await expect(sandbox.runCode('1', { timeoutMs: 1000 })).rejects.toThrow('closed')
    expect(await sandbox.wait()).toBe(sandbox.poll())
    expect(processesOf(sandbox.id)).toEqual([])
  })
})

/** Something of the sandbox has certainly begun. */
async function printedSoon(sandbox: Sandbox): Promise<void> {
  await (await sandbox.exec(['true'])).wait()
}

/** Processes of this machine in groups, or with a command line, that name the sandbox. */
function processesOf(id: string): string[] {
  return readdirSync('/proc').filter((pid) => {
    if (!/^\d+$/.test(pid)) return false
    const { stdout } = spawnSync('cat', [`/proc/${pid}/cgroup`, `/proc/${pid}/cmdline`])
    return stdout.toString().includes(id)
  })
}
