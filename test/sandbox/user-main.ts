/** Prints what some cells give, for whoever this process is; what begins with `$ ` is a program beside the interpreter. */
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'

import { TEST_LIMITS, testProviders } from './support-providers.ts'

const PROGRAM = '$ '
const dir = process.argv[2] ?? ''
const dataDir = join(dir, 'data')
mkdirSync(dataDir)
const provider = testProviders(dir).find(({ name }) => name === 'bubblewrap')
if (!provider) throw new Error('There is no bubblewrap.')
await using sandbox = await provider.create({ dataDir, limits: TEST_LIMITS, network: 'none' })
const results = []
for (const code of process.argv.slice(3)) {
  if (code.startsWith(PROGRAM)) await runBeside(code.slice(PROGRAM.length))
  else results.push(await sandbox.runCode(code, { timeoutMs: 8000 }))
}
console.log(JSON.stringify({ uid: process.getuid?.(), results }))

async function runBeside(script: string): Promise<void> {
  const program = await sandbox.exec(['sh', '-c', script], { timeoutMs: 15_000 })
  await program.wait()
}
