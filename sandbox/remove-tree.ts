import { randomBytes } from 'node:crypto'
import { constants, chmod, open, readdir, rename, rmdir, unlink } from 'node:fs/promises'
import type { FileHandle } from 'node:fs/promises'

/**
 * Removes a directory that strangers' code has filled, or a file; what is not there is fine. It goes by descriptors, so that
 * no path is too long and no link is followed, and opens what was closed to everybody. Throws what the system says (EBUSY,
 * EPERM ...) where something cannot be removed, and ENOTEMPTY where somebody goes on filling it.
 */
export async function removeTree(dir: string): Promise<void> {
  await removeAt(dir, async (top) => {
    while (await empty(top, { top, depth: MAX_DEPTH }));
    return true
  })
}

/** Opens a directory that is no link, also one that may not be read, and lets its owner do everything with it. */
export async function openDirectory(at: string): Promise<FileHandle> {
  const directory = await open(at, O_PATH | constants.O_DIRECTORY | constants.O_NOFOLLOW)
  try {
    const { mode } = await directory.stat()
    // By what was opened: the name may be a link by now. Where it is not ours to change, the next step tells.
    if ((mode & 0o700) !== 0o700) await chmod(pathOf(directory), mode | 0o700).catch(() => {})
    return directory
  } catch (error) {
    await directory.close()
    throw error
  }
}

/** Names a thing, but opens nothing: no right to read is needed. Node has no name for it. */
const O_PATH = 0o10000000
/** So many directories are open at once. What is deeper is moved up first. */
const MAX_DEPTH = 16

function pathOf(directory: FileHandle): string {
  return `/proc/self/fd/${directory.fd}`
}

/** `emptied` says whether the directory is to be removed where it is. */
async function removeAt(
  at: string,
  emptied: (directory: FileHandle) => Promise<boolean>,
): Promise<void> {
  try {
    if (await isUnlinked(at)) return
    if (await emptiedAt(at, emptied)) await rmdir(at)
  } catch (error) {
    // Somebody else removes it, too.
    if (!isCode(error, 'ENOENT')) throw error
  }
}

async function emptiedAt(
  at: string,
  emptied: (directory: FileHandle) => Promise<boolean>,
): Promise<boolean> {
  await using directory = await openDirectory(at)
  return await emptied(directory)
}

async function isUnlinked(at: string): Promise<boolean> {
  try {
    await unlink(at)
    return true
  } catch (error) {
    if (isCode(error, 'EISDIR')) return false
    throw error
  }
}

/** Whether something was moved to the top, so that there is more to do. */
async function empty(
  directory: FileHandle,
  { top, depth }: { top: FileHandle; depth: number },
): Promise<boolean> {
  let hasMoved = false
  for (const name of await readdir(pathOf(directory))) {
    const at = `${pathOf(directory)}/${name}`
    await removeAt(at, async (next) => {
      if (depth === 0) {
        await rename(at, `${pathOf(top)}/${randomBytes(16).toString('hex')}`)
        hasMoved = true
        return false
      }
      if (await empty(next, { top, depth: depth - 1 })) hasMoved = true
      return true
    })
  }
  return hasMoved
}

function isCode(error: unknown, code: string): boolean {
  return error instanceof Error && 'code' in error && error.code === code
}
