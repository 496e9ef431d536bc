// A parent to be killed: supervises one program that does nothing, and prints the ids of the processes.
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { quietChildren } from './scratch.ts'

const [dataDir = ''] = process.argv.slice(2)
const children = await quietChildren(dataDir)
const lifeline = execFileSync('ps', ['-o', 'pid=,args=', '--ppid', String(process.pid)], {
  encoding: 'utf8',
})
  .split('\n')
  .find((line) => line.includes('read -r verb'))
await children.spawn({
  name: 'idler',
  command: 'sleep',
  args: ['1000'],
  env: {},
  stop: 'SIGTERM',
  graceMs: 2_000,
  ready: () => Promise.resolve(),
  restart: true,
})
const { pid } = JSON.parse(readFileSync(join(dataDir, 'pids', 'idler.pid'), 'utf8'))
process.stdout.write(
  `${JSON.stringify({ idler: pid, lifeline: Number.parseInt(lifeline ?? '') })}\n`,
)
setInterval(() => {}, 1_000)
