/** A process with a sandbox of the named provider in which code runs; it is there to be killed. */
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'

import { TEST_LIMITS, testProviders } from './support-providers.ts'

const [, , name = '', dir = ''] = process.argv
const dataDir = join(dir, 'data')
mkdirSync(dataDir)
const provider = testProviders(join(dir, 'state')).find((one) => one.name === name)
if (!provider) throw new Error(`There is no ${name}.`)
const sandbox = await provider.create({ dataDir, limits: TEST_LIMITS, network: 'none' })
const running = sandbox.runCode('import time\ntime.sleep(600)', { timeoutMs: 600_000 })
await (await sandbox.exec(['true'])).wait()
console.log(JSON.stringify({ id: sandbox.id, hostPid: sandbox.hostPid }))
await running
