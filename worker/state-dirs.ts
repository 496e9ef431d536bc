import { mkdir, readdir, readFile, readlink, stat, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'

import { birthOf, removeTree } from '../sandbox/index.ts'

/** A directory of this process alone, in one that several processes may share, even from different machines. */
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
      // What is left is removed, or told of, by a process that comes after this one.
      await removeTree(path).catch(() => {})
    },
  }
}

/** Hands those whose processes are gone to `reap`, which ends what these have left, removes the directory and does not throw. */
export async function removeDeadStateDirs(
  dir: string,
  reap: (dead: string) => Promise<void>,
): Promise<void> {
  for (const name of await readdir(dir)) {
    const path = join(dir, name)
    if (await isDead(path)) await reap(path)
  }
}

const ownerFile = 'owner'
const signMs = 60_000
/** Processes of other machines and containers cannot be looked at: one that has given no sign for this long is gone. */
const mostSilenceMs = 60 * 60_000

interface Owner {
  pid: number
  birth: string
  /** The machine, since it was last started. */
  boot: string
  /** In which processes have these numbers. On every machine the first one has the same name. */
  namespace: string
}

async function ownerOf(pid: number): Promise<Owner> {
  const boot = await readFile('/proc/sys/kernel/random/boot_id', 'utf8').catch(() => '')
  const namespace = await readlink('/proc/self/ns/pid').catch(() => '')
  return { pid, birth: await birthOf(pid), boot: boot.trim(), namespace }
}

async function isDead(path: string): Promise<boolean> {
  const file = join(path, ownerFile)
  const owner = await readOwner(file)
  if (owner) {
    const now = await ownerOf(owner.pid)
    const isSeen = now.boot !== '' && now.boot === owner.boot && now.namespace === owner.namespace
    if (isSeen) return now.birth !== owner.birth
  }
  // Where neither is there any more, somebody else has removed it.
  const last = await stat(file).catch(() => stat(path).catch(() => undefined))
  return last !== undefined && last.mtimeMs < Date.now() - mostSilenceMs
}

/** Undefined while it is being made. */
async function readOwner(file: string): Promise<Owner | undefined> {
  try {
    // Written by a process of this version, as above.
    return JSON.parse(await readFile(file, 'utf8')) as Owner
  } catch {
    return undefined
  }
}
