import { readFileSync } from 'node:fs'

import { pause } from './clock.ts'
import type { Installation } from './installation.ts'
import type { Load, Stalled } from './load.ts'
import { print, printTable } from './table.ts'

const clients = 100
const tokens = 2500
/** Far more for each client than the buffers of the system take, which would hide that it does not read. */
const tokenChars = 8000
const model = `tokens-${tokens}-every-4-of-${tokenChars}`
const runMb = (tokens * tokenChars) / 1e6

/**
 * Clients that ask for the events of a long run while it is written, and do not read them: what the server holds for them,
 * beside the same run without them, and whether one of them that reads after all has everything.
 */
export async function stalled(
  { load, baseUrl, memoryMb }: Pick<Installation, 'load' | 'baseUrl' | 'memoryMb'>,
  stop: AbortSignal,
): Promise<void> {
  const { id: assistantId } = await load.post('/assistants', { model })
  const before = await memoryMb()

  const alone = await longRun(load, assistantId, memoryMb)
  const aloneMb = { written: await alone.inTheMiddle, after: await alone.over.then(memoryMb) }

  using open = new DisposableStack()
  const watched = await longRun(load, assistantId, memoryMb)
  const runId = await newestRun(load, watched.threadId, stop)
  const waiting: Stalled[] = []
  while (waiting.length < clients) {
    waiting.push(open.use(await load.stall(watched.threadId, runId)))
  }
  const watchedMb = { written: await watched.inTheMiddle, after: await watched.over.then(memoryMb) }
  const systemMb = bufferedMb(Number(new URL(baseUrl).port))

  let seen = 0
  await waiting.at(-1)?.read(() => (seen += 1))
  printTable(
    `Clients that do not read a run of ${runMb} MB: memory of the server, MB (${before.toFixed(0)} before)`,
    ['', 'while it is written', 'after its end'],
    [
      ['none', aloneMb.written, aloneMb.after],
      [String(clients), watchedMb.written, watchedMb.after],
    ],
  )
  print(
    `\nThe system held ${systemMb.toFixed(1)} MB of theirs; one that read at last missed ${tokens - seen} of ${tokens} tokens.`,
  )
}

/** Begins a run. `inTheMiddle` is what the server holds when three quarters are written. */
async function longRun(load: Load, assistantId: string, memoryMb: () => Promise<number>) {
  const { id: threadId } = await load.post('/threads', {
    messages: [{ role: 'user', content: 'Go.' }],
  })
  const inTheMiddle = Promise.withResolvers<number>()
  let seen = 0
  const over = load.run(assistantId, threadId, () => {
    seen += 1
    if (seen === tokens * 0.75) memoryMb().then(inTheMiddle.resolve, inTheMiddle.reject)
  })
  over.catch(inTheMiddle.reject)
  return { threadId, over, inTheMiddle: inTheMiddle.promise }
}

/** The newest run of a thread, once there is one. */
export async function newestRun(load: Load, threadId: string, stop: AbortSignal): Promise<string> {
  for (;;) {
    const [run] = await load.list(`/threads/${threadId}/runs`)
    if (run) return run.id
    await pause(5, stop)
  }
}

/** What Linux has taken from a server on this port and not given to its clients, on both ends of their connections. */
function bufferedMb(port: number): number {
  const end = `:${port.toString(16).toUpperCase().padStart(4, '0')}`
  const bytes = readFileSync('/proc/net/tcp', 'utf8')
    .split('\n')
    .map((line) => line.trim().split(/\s+/))
    .filter(([, local, remote]) => local?.endsWith(end) || remote?.endsWith(end))
    .flatMap(([, , , , queues]) => queues?.split(':') ?? [])
    .reduce((sum, hex) => sum + Number.parseInt(hex, 16), 0)
  return bytes / 1e6
}
