import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { createChildren } from '../../local/children.ts'
import { createLogger } from '../../log.ts'

/** A directory that goes with the test. */
export function scratchDir(): Disposable & { path: string } {
  const path = mkdtempSync(join(tmpdir(), 'longrun-test-'))
  return {
    path,
    [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true, maxRetries: 10 }),
  }
}

export const quietChildren = (dataDir: string) =>
  createChildren({ dataDir, log: createLogger('silent') })

/** Asks until the answer is neither undefined nor false. */
export async function eventually<T>(
  ask: () => T | undefined | false | Promise<T | undefined | false>,
  timeoutMs = 15_000,
): Promise<T> {
  for (const deadline = Date.now() + timeoutMs; ; await sleep(20)) {
    const answer = await ask()
    if (answer !== undefined && answer !== false) return answer
    if (Date.now() > deadline)
      throw new Error(`It did not happen within ${timeoutMs} ms: ${String(ask)}`)
  }
}

/** What has ended but was not yet waited for by its parent does not count. */
export function isAlive(pid: number): boolean {
  const { stdout } = spawnSync('ps', ['-o', 'stat=', '-p', String(pid)], { encoding: 'utf8' })
  return stdout.trim() !== '' && !stdout.startsWith('Z')
}
