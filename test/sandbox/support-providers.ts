import { homedir } from 'node:os'
import { join } from 'node:path'

import { createLogger } from '../../log.ts'
import type { SandboxLimits, SandboxProvider } from '../../sandbox/index.ts'
import { createProviders } from '../../sandbox/open.ts'
import { openRoot } from '../../sandbox/root.ts'

const MIB = 1024 * 1024

/** Small, so that whatever fills them does so quickly. */
export const TEST_LIMITS: SandboxLimits = {
  memoryBytes: 512 * MIB,
  cpus: 1,
  processes: 64,
  diskBytes: 64 * MIB,
  tmpBytes: 32 * MIB,
  outputBytes: MIB,
}

/** The root file system as set-up has built it for the tests. */
export function testRoot() {
  const cacheDir = process.env['LONGRUN_CACHE'] ?? join(homedir(), '.cache', 'longrun')
  const state = openRoot({ cacheDir, directory: undefined, image: undefined }).state()
  if (state.state !== 'ready')
    throw new Error(`The tests of the sandbox need its root: ${JSON.stringify(state)}`)
  return state
}

export function testProviders(stateDir: string): SandboxProvider[] {
  const { root, bwrapPath } = testRoot()
  const log = createLogger('silent')
  const dockerHost = process.env['DOCKER_HOST']
  return createProviders({
    root,
    stateDir,
    log,
    ...(bwrapPath !== undefined && { bwrapPath }),
    ...(dockerHost !== undefined && { dockerHost }),
  })
}
