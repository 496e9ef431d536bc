import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, readdirSync, readFileSync } from 'node:fs'
import { availableParallelism, homedir, loadavg } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { parseArgs } from 'node:util'

import { createLogger } from '../log.ts'
import { DEFAULT_LIMITS, openSandboxes, Sandbox, type SandboxProvider } from '../sandbox/index.ts'
import { openRoot, type SandboxRoot } from '../sandbox/root.ts'
import { nowMs } from './clock.ts'
import { temporaryDataDir } from './program.ts'
import { p50, p95, print, printTable } from './table.ts'

/**
 * What a sandbox costs beside the bare interpreter of the same packages: until it answers, a round trip, much output, fifty
 * at once with their memory; and whether anything is left of them.
 */
export async function sandbox(args: string[], stop: AbortSignal): Promise<void> {
  const { only, sessions } = readOptions(args)
  using dir = temporaryDataDir()
  const cacheDir = process.env['LONGRUN_CACHE'] ?? join(homedir(), '.cache', 'longrun')
  const options = { cacheDir, directory: undefined, image: undefined }
  const settled = await openRoot(options).wait(stop)
  if (settled.state === 'failed') throw new Error(`${settled.why} ${settled.remedy}`)
  const { root, bwrapPath } = settled
  const dockerHost = process.env['DOCKER_HOST']
  print(`${availableParallelism()} cores, load ${loadavg()[0]?.toFixed(1)} before the start`)

  const bare = await measureBare(root)
  const rows: (string | number)[][] = []
  for (const name of only) {
    stop.throwIfAborted()
    const stateDir = join(dir.path, name)
    mkdirSync(stateDir)
    const opened = await openSandboxes({
      provider: name,
      root,
      stateDir,
      log: createLogger('error'),
      ...(bwrapPath !== undefined && { bwrapPath }),
      ...(dockerHost !== undefined && { dockerHost }),
    })
    if ('none' in opened) {
      print(`\n${name}: ${opened.none}`)
      continue
    }
    const before = new Set(processes())
    const measured = await measure(opened, dir.path, sessions, stop)
    const left = processes().filter((pid) => !before.has(pid) && isOurs(pid, stateDir)).length
    const isMain = name === 'bubblewrap'
    const goal = (met: boolean): string => (isMain ? (met ? 'yes' : 'NO') : '')
    rows.push(
      [
        `${name}: cold, to the first result, ms`,
        measured.coldMs,
        bare.coldMs,
        '< 700',
        goal(measured.coldMs < 700),
      ],
      [
        '... of a spare, with numpy, pandas and pyplot, ms',
        measured.warmMs,
        '',
        '< 30',
        goal(measured.warmMs < 30),
      ],
      [
        'round trip p50, ms',
        measured.tripMs,
        bare.tripMs,
        '< bare + 2',
        goal(measured.tripMs < bare.tripMs + 2),
      ],
      ['... p95', measured.tripP95Ms, bare.tripP95Ms, '', ''],
      ['1 MB of output, ms', measured.outputMs, bare.outputMs, '', ''],
      [`${sessions} at once: started per second`, measured.perSecond, '', '', ''],
      ['... all asked at once, the slowest, ms', measured.slowestMs, '', '', ''],
      ['... memory of each, MB', measured.memoryMb, '', '', ''],
      ['processes left after', left, '', '0', goal(left === 0)],
    )
  }
  printTable('Sandboxes', ['', 'ours', 'bare Python', 'goal', 'met'], rows)
}

const names = ['bubblewrap', 'docker', 'runsc'] as const

function readOptions(args: string[]) {
  const { values } = parseArgs({
    args,
    options: { only: { type: 'string' }, sessions: { type: 'string', default: '50' } },
  })
  const only = values.only === undefined ? names : names.filter((name) => name === values.only)
  return { only, sessions: Number(values.sessions) }
}

const science = 'import numpy, pandas, matplotlib.pyplot\nnumpy.arange(3).sum()'
const million = 'print("x" * 1_000_000)'

async function measure(
  provider: SandboxProvider,
  dir: string,
  sessions: number,
  stop: AbortSignal,
) {
  let made = 0
  const create = (): Promise<Sandbox> => {
    const dataDir = join(dir, `data-${provider.name}-${(made += 1)}`)
    mkdirSync(dataDir)
    const limits = { ...DEFAULT_LIMITS, outputBytes: 2 * 1024 * 1024 }
    return Sandbox.create(provider, { dataDir, limits, network: 'none' })
  }
  const run = async (one: Sandbox, code: string): Promise<void> => {
    const { status, note } = await one.runCode(code, { timeoutMs: 60_000, signal: stop })
    if (status !== 'ok') throw new Error(`${code} ended as ${status}: ${note}`)
  }

  const coldMs: number[] = []
  const warmMs: number[] = []
  for (let time = 0; time < 9; time += 1) {
    const began = nowMs()
    await using one = await create()
    await run(one, '1 + 1')
    coldMs.push(nowMs() - began)
  }
  for (let time = 0; time < 9; time += 1) {
    await using spare = await create()
    const began = nowMs()
    await run(spare, science)
    warmMs.push(nowMs() - began)
  }
  const tripMs: number[] = []
  const outputMs: number[] = []
  {
    await using one = await create()
    await run(one, '1 + 1')
    for (let time = 0; time < 300; time += 1) tripMs.push(await timed(() => run(one, '1 + 1')))
    for (let time = 0; time < 9; time += 1) outputMs.push(await timed(() => run(one, million)))
  }
  const began = nowMs()
  await using stack = new AsyncDisposableStack()
  const many = await Promise.all(
    Array.from({ length: sessions }, async () => stack.use(await create())),
  )
  const perSecond = (sessions / (nowMs() - began)) * 1000
  const slowestMs = await timed(async () => {
    await Promise.all(many.map((one) => run(one, science)))
  })
  const memoryMb = many.reduce((sum, one) => sum + memoryOf(one.hostPid), 0) / sessions
  return {
    coldMs: p50(coldMs),
    warmMs: p50(warmMs),
    tripMs: p50(tripMs),
    tripP95Ms: p95(tripMs),
    outputMs: p50(outputMs),
    perSecond,
    slowestMs,
    memoryMb,
  }
}

/** The same packages without any sandbox: begun and asked over pipes. */
async function measureBare(root: SandboxRoot) {
  const inside = (path: string): string => {
    const bind = root.binds.findLast(({ to }) => path === to || path.startsWith(`${to}/`))
    return bind ? bind.from + path.slice(bind.to.length) : path
  }
  const env = { ...process.env, PYTHONPATH: inside(root.env['PYTHONPATH'] ?? '') }
  const loop = `import sys
import IPython, numpy, pandas, matplotlib.pyplot
for line in sys.stdin:
    if line.startswith("print"): exec(line)
    else: print(eval(line))
    sys.stdout.flush()`
  const coldMs: number[] = []
  const tripMs: number[] = []
  const outputMs: number[] = []
  for (let time = 0; time < 5; time += 1) {
    const began = nowMs()
    const python = spawn('python3', ['-c', loop], { env, stdio: ['pipe', 'pipe', 'inherit'] })
    const lines = createInterface({ input: python.stdout })[Symbol.asyncIterator]()
    const ask = async (line: string): Promise<void> => {
      python.stdin.write(`${line}\n`)
      if ((await lines.next()).done) throw new Error('The bare interpreter ended')
    }
    await ask('1 + 1')
    coldMs.push(nowMs() - began)
    for (let n = 0; n < 100; n += 1) tripMs.push(await timed(() => ask('1 + 1')))
    outputMs.push(await timed(() => ask(million)))
    python.stdin.end()
    await once(python, 'exit')
  }
  return {
    coldMs: p50(coldMs),
    tripMs: p50(tripMs),
    tripP95Ms: p95(tripMs),
    outputMs: p50(outputMs),
  }
}

async function timed(work: () => Promise<void>): Promise<number> {
  const began = nowMs()
  await work()
  return nowMs() - began
}

function processes(): number[] {
  return readdirSync('/proc').map(Number).filter(Number.isInteger)
}

/** Whether its command line names our directory, as launchers do, or it runs the kernel of a sandbox. */
function isOurs(pid: number, stateDir: string): boolean {
  const command = read(`/proc/${pid}/cmdline`)
  return command.includes(stateDir) || command.includes('/opt/kernel/')
}

/** Of a process and all that it has started, by their proportional shares, in MB. */
function memoryOf(pid: number): number {
  const own = Number(/^Pss:\s+(\d+) kB/m.exec(read(`/proc/${pid}/smaps_rollup`))?.[1] ?? 0) / 1024
  const children = read(`/proc/${pid}/task/${pid}/children`).trim().split(' ').filter(Boolean)
  return children.reduce((sum, child) => sum + memoryOf(Number(child)), own)
}

/** Empty where the process is gone by now. */
function read(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return ''
  }
}
