import { cpuOf, type CpuTimes } from './cpu.ts'
import { liveMemoryMb } from './live-memory.ts'
import { createLoad, type Load } from './load.ts'
import { freePort, startProgram, startWorker, temporaryDataDir } from './program.ts'

/** A server whose CPU and memory can be read, in one process or in two, and the client of the measurements. */
export interface Installation extends AsyncDisposable {
  load: Load
  baseUrl: string
  /** Of all processes. */
  cpu(): CpuTimes
  /** What the processes of Node hold once their garbage is collected. */
  memoryMb(): Promise<number>
}

/** With two processes the one is the api and the other the worker, so that streams go through Postgres. */
export async function startInstallation(
  modelUrl: string,
  processes: 1 | 2,
  stop: AbortSignal,
): Promise<Installation> {
  await using stack = new AsyncDisposableStack()
  const inspected: { pid: number; port: number }[] = []
  const options = async () => {
    const port = await freePort()
    const dataDir = stack.use(temporaryDataDir()).path
    return { port, dataDir, modelUrl, nodeFlags: [`--inspect=127.0.0.1:${port}`] }
  }
  const own = await options()
  const role = processes === 1 ? {} : ({ role: 'api' } as const)
  const program = stack.use(await startProgram({ ...own, ...role }, stop))
  inspected.push({ pid: program.pid, port: own.port })
  if (processes === 2) {
    const theirs = await options()
    const worker = stack.use(await startWorker(theirs, program, stop))
    inspected.push({ pid: worker.pid, port: theirs.port })
  }
  const load = stack.use(createLoad(program.baseUrl, modelUrl, stop))
  const all = stack.move()
  return {
    load,
    baseUrl: program.baseUrl,
    cpu: () => sum(inspected.map(({ pid }) => cpuOf(pid))),
    async memoryMb() {
      const each = await Promise.all(inspected.map(({ pid, port }) => liveMemoryMb(pid, port)))
      return each.reduce((a, b) => a + b)
    },
    [Symbol.asyncDispose]: () => all.disposeAsync(),
  }
}

function sum(times: CpuTimes[]): CpuTimes {
  const all: CpuTimes = new Map()
  for (const [part, ms] of times.flatMap((one) => [...one]))
    all.set(part, (all.get(part) ?? 0) + ms)
  return all
}
