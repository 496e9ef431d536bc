import { readFile, rm, writeFile } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'

/** What one sandbox has on this machine, written down for whoever comes after this process. */
export interface Leftover {
  pid: number
  birth: string
  /** Directories of control groups. */
  groups: string[]
}

export async function writeLeftover(path: string, pid: number, groups: string[]): Promise<void> {
  const leftover: Leftover = { pid, birth: await birthOf(pid), groups }
  await writeFile(path, JSON.stringify(leftover))
}

/** Ends the process, where it is still the same one, and waits for its end. Returns its groups, for their removal. */
export async function endLeftover(path: string): Promise<string[]> {
  const leftover = await readLeftover(path)
  if (leftover) {
    const isAlive = async () => (await birthOf(leftover.pid)) === leftover.birth
    for (let tries = 0; tries < 100 && (await isAlive()); tries += 1) {
      process.kill(leftover.pid, 'SIGKILL')
      await sleep(20)
    }
  }
  await rm(path, { force: true })
  return leftover?.groups ?? []
}

async function readLeftover(path: string): Promise<Leftover | undefined> {
  try {
    return JSON.parse(await readFile(path, 'utf8')) as Leftover
  } catch {
    return undefined // half written, so that its process has just begun and dies with its parent
  }
}

/** Tells a process from a later one of the same number; `ended` where there is none. */
export async function birthOf(pid: number): Promise<string> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '')
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  if (stat === '' || fields[0] === 'Z') return 'ended'
  const boot = await readFile('/proc/sys/kernel/random/boot_id', 'utf8').catch(() => '')
  return `${boot.trim()} ${fields[19]}`
}
