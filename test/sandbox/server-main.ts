/** A process with a sandbox in which code runs; it is there to be killed. */
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'

import { TEST_LIMITS, testProviders } from './support-providers.ts'

const dir = process.argv[2] ?? ''
const dataDir = join(dir, 'data')
mkdirSync(dataDir)
const provider = testProviders(dir).find(({ name }) => name === 'bubblewrap')
if (!provider) throw new Error('There is no bubblewrap.')
const sandbox = await provider.create({ dataDir, limits: TEST_LIMITS, network: 'none' })
const running = sandbox.runCode(
  'import subprocess; subprocess.run(["setsid", "-w", "sleep", "600"])',
  {
    timeoutMs: 600_000,
  },
)
await (await sandbox.exec(['true'])).wait()
console.log(JSON.stringify({ hostPid: sandbox.hostPid }))
await running
