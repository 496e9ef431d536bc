import { mkdir, readdir, readFile, readlink, rm, stat, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'

import { birthOf } from '../sandbox/index.ts'

/** A directory of this process alone, in one that several processes may share, even from different containers. */
export interface StateDir extends AsyncDisposable {
  path: string
}

/** Disposing removes it. */
export async function makeStateDir(dir: string, name: string): Promise<StateDir> {
  const path = join(dir, name)
  await mkdir(path, { recursive: true, mode: 0o700 })
  const owner = join(path, ownerFile)
  await writeFile(owner, JSON.stringify(await ownerOf(process.pid)))
  const timer = setInterval(() => {
    const now = new Date()
    // Where it is gone, so is all that it stands for.
    utimes(owner, now, now).catch(() => {})
  }, signMs)
  return {
    path,
    async [Symbol.asyncDispose]() {
      clearInterval(timer)
      await rm(path, { recursive: true, force: true })
    },
  }
}

/** Those whose processes are gone, after `reap` has ended what these have left. */
export async function removeDeadStateDirs(
  dir: string,
  reap: (dead: string) => Promise<void>,
): Promise<void> {
  for (const name of await readdir(dir)) {
    const path = join(dir, name)
    if (!(await isDead(path))) continue
    await reap(path)
    await rm(path, { recursive: true, force: true })
  }
}

const ownerFile = 'owner'
const signMs = 60_000
/** Processes of another container cannot be looked at: one that has given no sign for this long is gone. */
const mostSilenceMs = 60 * 60_000

interface Owner {
  pid: number
  birth: string
  /** In which processes have these numbers. */
  namespace: string
}

async function ownerOf(pid: number): Promise<Owner> {
  const namespace = await readlink('/proc/self/ns/pid').catch(() => '')
  return { pid, birth: await birthOf(pid), namespace }
}

async function isDead(path: string): Promise<boolean> {
  const file = join(path, ownerFile)
  const last = await stat(file).catch(() => stat(path))
  if (last.mtimeMs < Date.now() - mostSilenceMs) return true
  try {
    // Written by a process of this version, as above.
    const owner = JSON.parse(await readFile(file, 'utf8')) as Owner
    const now = await ownerOf(owner.pid)
    return now.namespace === owner.namespace && now.birth !== owner.birth
  } catch {
    // It is being made.
    return false
  }
}
