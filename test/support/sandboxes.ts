import { globSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'

import { openRoot } from '../../sandbox/root.ts'
import { eventually } from '../local/scratch.ts'

export const cacheDir = process.env['LONGRUN_CACHE'] ?? join(homedir(), '.cache', 'longrun')
const root = openRoot({ cacheDir, directory: undefined, image: undefined }).state()

/** Why no code can be run here; undefined where it can. */
export const noCode = root.state === 'failed' ? `${root.why} ${root.remedy}` : undefined

/** For a server that runs code, by the provider that needs no daemon. */
export function codeEnv(own: Record<string, string> = {}): Record<string, string> {
  return { SANDBOX_PROVIDER: 'bubblewrap', SANDBOX_POOL: '0', LONGRUN_CACHE: cacheDir, ...own }
}

/** The path of a file, other than `before`, that code of a server with this data directory writes to its /mnt/data. */
export function written(dataDir: string, name: string, before?: string): Promise<string> {
  const pattern = join(dataDir, 'sandbox', '*', 'data', '*', name)
  return eventually(() => globSync(pattern).find((path) => path !== before), 30_000)
}
