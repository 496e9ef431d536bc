import { execFile, spawn } from 'node:child_process'
import { basename } from 'node:path'
import { createInterface } from 'node:readline'
import type { Writable } from 'node:stream'
import { promisify } from 'node:util'

const execute = promisify(execFile)

/** What a quick command prints. Rejects where it does not run, fails or takes more than 20 s. */
export async function outputOf(command: string, args: string[]): Promise<string> {
  const { stdout } = await execute(command, args, { timeout: 20_000 })
  return stdout.trim()
}

/**
 * Runs a command in a process group of its own, which ends when this process does, however that happens.
 * Rejects with the end of what it has said.
 */
export async function runSlowly(
  command: string,
  args: string[],
  options: {
    cwd: string
    env?: NodeJS.ProcessEnv
    timeoutMs: number
    onLine?: (line: string) => void
  },
): Promise<void> {
  const { cwd, env = process.env, timeoutMs, onLine } = options
  const name = basename(command)
  const child = spawn('/bin/sh', ['-c', gated, 'sh', command, ...args], {
    cwd,
    env,
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe', 'pipe'],
  })
  const lines: string[] = []
  for (const input of [child.stdout, child.stderr]) {
    if (!input) continue
    createInterface({ input }).on('line', (line) => {
      if (lines.push(line) > 6) lines.shift()
      onLine?.(line)
    })
  }
  await new Promise<void>((resolve, reject) => {
    child.once('error', (error) => reject(new Error(`${name}: ${error.message}`, { cause: error })))
    if (child.pid === undefined) return
    const lifeline = tie(child.pid)
    const gate = child.stdio[3] as Writable
    gate.on('error', () => {})
    gate.end('begin\n')
    const late = setTimeout(() => lifeline.stdin.end(), timeoutMs)
    child.once('close', (code, signal) => {
      clearTimeout(late)
      lifeline.stdin.end('ended\n')
      if (code === 0) return resolve()
      reject(new Error(`${name} failed (${signal ?? code}):\n${lines.join('\n').trim()}`))
    })
  })
}

/** Begins at our word, which comes once its end is tied to ours; where we end before, it never begins. */
const gated = 'read -r _ <&3 && exec 3<&- && exec "$@"'

/** A shell that waits for our word, and kills the process group if our end comes instead. */
function tie(pid: number) {
  const script = `trap '' INT TERM HUP; read -r _ || kill -s KILL -- "-$1"`
  const shell = spawn('sh', ['-c', script, 'sh', String(pid)], {
    detached: true,
    stdio: ['pipe', 'ignore', 'ignore'],
  })
  shell.on('error', () => {})
  shell.stdin.on('error', () => {})
  return shell
}
