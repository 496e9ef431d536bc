import { randomBytes } from 'node:crypto'
import type { Stats } from 'node:fs'
import {
  constants,
  copyFile,
  lstat,
  mkdir,
  open,
  readdir,
  rename,
  rmdir,
  unlink,
} from 'node:fs/promises'
import type { FileHandle } from 'node:fs/promises'
import { posix } from 'node:path'
import { Readable } from 'node:stream'

import {
  InvalidError,
  SandboxFilesystemDirectoryNotEmptyError,
  SandboxFilesystemError,
  SandboxFilesystemFileTooLargeError,
  SandboxFilesystemIsADirectoryError,
  SandboxFilesystemNotADirectoryError,
  SandboxFilesystemNotFoundError,
  SandboxFilesystemPermissionError,
} from './errors.ts'
import { openDirectory as openAnyDirectory, removeTree } from './remove-tree.ts'
import type { SandboxFile, SandboxFilesystem } from './sandbox.ts'

export type HostFilesystem = SandboxFilesystem & {
  /** What the directory takes on the disk; each file counts as a block at least. */
  usedBytes: () => Promise<number>
  /** What the host has put there so far, at most: as much may be there that is not the code's. */
  givenBytes: () => number
}

const DATA_PATH = '/mnt/data'
const READ_LIMIT_BYTES = 256 * 1024 * 1024
const BLOCK_BYTES = 4096
const MAX_DEPTH = 64
const { O_RDONLY, O_WRONLY, O_CREAT, O_EXCL, O_DIRECTORY, O_NOFOLLOW, O_NONBLOCK } = constants

/**
 * The files of a sandbox as the host sees them. Strangers make what is in there, and may change it at any moment: so every
 * directory on the way is opened for itself, without following links, and what is below it is named by its descriptor.
 */
export function openFilesystem(
  dataDir: string,
  owner: { uid: number; gid: number } | undefined,
): HostFilesystem {
  let givenBytes = 0

  const giveAway = async (handle: FileHandle): Promise<void> => {
    if (owner) await handle.chown(owner.uid, owner.gid)
  }

  async function openFile(path: string): Promise<{ handle: FileHandle; sizeBytes: number }> {
    await using parent = await openParent(dataDir, path)
    const handle = await told(path, open(parent.at, O_RDONLY | O_NOFOLLOW | O_NONBLOCK))
    const stats = await handle.stat()
    if (stats.isFile()) return { handle, sizeBytes: stats.size }
    await handle.close()
    if (stats.isDirectory()) throw new SandboxFilesystemIsADirectoryError('It is a directory', path)
    throw new SandboxFilesystemPermissionError('It is no regular file', path)
  }

  async function readBytes(path: string): Promise<Buffer> {
    const { handle, sizeBytes } = await openFile(path)
    try {
      if (sizeBytes > READ_LIMIT_BYTES)
        throw new SandboxFilesystemFileTooLargeError(`It has ${sizeBytes} bytes`, path)
      // No more than it had: it may grow while it is read.
      const bytes = Buffer.alloc(sizeBytes)
      let length = 0
      while (length < sizeBytes) {
        const { bytesRead } = await handle.read(bytes, length, sizeBytes - length, length)
        if (bytesRead === 0) break
        length += bytesRead
      }
      return bytes.subarray(0, length)
    } finally {
      await handle.close()
    }
  }

  async function writeStream(path: string, data: AsyncIterable<Uint8Array>): Promise<void> {
    await writeWith(path, async (handle) => {
      for await (const chunk of data) {
        givenBytes += chunk.length
        await writeAll(handle, chunk)
      }
    })
  }

  async function copy(from: string, to: string): Promise<void> {
    const { handle: source, sizeBytes } = await openFile(from)
    try {
      await writeWith(to, async (handle) => {
        givenBytes += sizeBytes
        // Both are open: no name is looked at again.
        await copyFile(pathOf(source), pathOf(handle), constants.COPYFILE_FICLONE)
      })
    } finally {
      await source.close()
    }
  }

  async function writeWith(
    path: string,
    write: (handle: FileHandle) => Promise<void>,
  ): Promise<void> {
    if (namesOf(path).length === 0) throw isDirectory()
    await makeDirectory(posix.dirname(insidePath(path)))
    await using parent = await openParent(dataDir, path)
    const unfinished = `${parent.directory}/.${randomBytes(8).toString('hex')}`
    const flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW
    const handle = await told(path, open(unfinished, flags, 0o600))
    try {
      // The last block is a whole one.
      givenBytes += BLOCK_BYTES
      await write(handle)
      await handle.chmod(0o644)
      await giveAway(handle)
      await told(path, rename(unfinished, parent.at))
    } catch (error) {
      await unlink(unfinished).catch(() => {}) // strangers may have done so
      throw error
    } finally {
      await handle.close()
    }
  }

  async function makeDirectory(path: string): Promise<void> {
    let directory = await openDirectory(dataDir, dataDir)
    try {
      for (const name of namesOf(path)) {
        const at = below(directory, name)
        const isNew = await mkdir(at, 0o755).then(
          () => true,
          (error: unknown) => {
            if (codeOf(error) === 'EEXIST') return false
            throw asFilesystemError(error, path)
          },
        )
        const next = await openDirectory(at, path)
        await directory.close()
        directory = next
        if (!isNew) continue
        givenBytes += BLOCK_BYTES
        await giveAway(directory)
      }
    } finally {
      await directory.close()
    }
  }

  async function remove(path: string, options: { recursive?: boolean } = {}): Promise<void> {
    await using parent = await openParent(dataDir, path)
    const stats = await told(path, lstat(parent.at))
    if (options.recursive) return await told(path, removeTree(parent.at))
    await told(path, stats.isDirectory() ? rmdir(parent.at) : unlink(parent.at))
  }

  async function listFiles(path: string = DATA_PATH): Promise<SandboxFile[]> {
    const files: SandboxFile[] = []
    const names = namesOf(path)
    const start = await openPath(dataDir, names, path)
    await walk(start, names.join('/'), MAX_DEPTH, (name, stats) => {
      if (stats.isFile()) files.push({ path: posix.join(DATA_PATH, name), ...sizeAndTime(stats) })
    })
    return files.toSorted((a, b) => (a.path < b.path ? -1 : 1))
  }

  async function usedBytes(): Promise<number> {
    let bytes = 0
    const start = await openDirectory(dataDir, dataDir)
    await walk(start, '', Number.POSITIVE_INFINITY, (_name, stats) => {
      bytes += Math.max(stats.blocks * 512, BLOCK_BYTES)
    })
    return bytes
  }

  return {
    readBytes,
    readText: async (path) => (await readBytes(path)).toString('utf8'),
    async openRead(path) {
      const { handle, sizeBytes } = await openFile(path)
      if (sizeBytes > 0) {
        return { sizeBytes, stream: handle.createReadStream({ start: 0, end: sizeBytes - 1 }) }
      }
      await handle.close()
      return { sizeBytes, stream: Readable.from([]) }
    },
    writeBytes: async (path, data) => await writeStream(path, Readable.from([data])),
    writeText: async (path, text) => await writeStream(path, Readable.from([Buffer.from(text)])),
    writeStream,
    copy,
    listFiles,
    makeDirectory,
    remove,
    async stat(path) {
      if (namesOf(path).length === 0) {
        await using directory = await openDirectory(dataDir, path)
        const stats = await directory.stat()
        return { path: DATA_PATH, type: 'directory', ...sizeAndTime(stats) }
      }
      await using parent = await openParent(dataDir, path)
      const stats = await told(path, lstat(parent.at))
      const type = stats.isFile() ? 'file' : stats.isDirectory() ? 'directory' : 'other'
      return { path: insidePath(path), type, ...sizeAndTime(stats) }
    },
    usedBytes,
    givenBytes: () => givenBytes,
  }
}

function isDirectory(): Error {
  return new SandboxFilesystemIsADirectoryError('It is a directory', DATA_PATH)
}

function insidePath(path: string): string {
  const full = posix.resolve(DATA_PATH, path)
  const isBelow = full === DATA_PATH || full.startsWith(`${DATA_PATH}/`)
  if (!isBelow) throw new InvalidError(`${path} is not under ${DATA_PATH}: read it with exec().`)
  if (full.includes('\u0000')) throw new InvalidError('A path may not hold U+0000.')
  return full
}

function namesOf(path: string): string[] {
  return insidePath(path)
    .slice(DATA_PATH.length)
    .split('/')
    .filter((name) => name !== '')
}

function pathOf(handle: FileHandle): string {
  return `/proc/self/fd/${handle.fd}`
}

function below(directory: FileHandle, name: string): string {
  return `${pathOf(directory)}/${name}`
}

async function openDirectory(at: string, path: string): Promise<FileHandle> {
  return await told(path, open(at, O_RDONLY | O_DIRECTORY | O_NOFOLLOW))
}

async function openPath(dataDir: string, names: string[], path: string): Promise<FileHandle> {
  let directory = await openDirectory(dataDir, path)
  for (const name of names) {
    const parent = directory
    try {
      directory = await openDirectory(below(parent, name), path)
    } finally {
      await parent.close()
    }
  }
  return directory
}

/** The directory that a path is in, held open for as long as names in it are used. */
async function openParent(dataDir: string, path: string) {
  const names = namesOf(path)
  const name = names.pop()
  if (name === undefined) throw isDirectory()
  const directory = await openPath(dataDir, names, path)
  return {
    directory: pathOf(directory),
    at: below(directory, name),
    [Symbol.asyncDispose]: () => directory.close(),
  }
}

type Visit = (name: string, stats: Stats) => void

/**
 * Visits all that is in a directory, and closes it. What vanishes meanwhile was not there. However deep it goes, one
 * directory is open at a time, two for a moment. Throws where strangers' code has moved it away on the way.
 */
async function walk(start: FileHandle, prefix: string, depth: number, visit: Visit): Promise<void> {
  let directory = start
  try {
    const levels = [await levelOf(directory, prefix)]
    for (let level = levels.at(-1); level; level = levels.at(-1)) {
      const name = level.names.pop()
      if (name === undefined) {
        levels.pop()
        const above = levels.at(-1)
        if (above) directory = await swap(directory, await openAbove(directory, above))
        continue
      }
      const at = below(directory, name)
      const stats = await lstat(at).catch(() => undefined)
      if (!stats) continue
      const full = level.prefix === '' ? name : `${level.prefix}/${name}`
      visit(full, stats)
      if (!stats.isDirectory() || levels.length > depth) continue
      const next = await openAnyDirectory(at).catch(() => undefined)
      if (!next) continue
      directory = await swap(directory, next)
      levels.push(await levelOf(directory, full))
    }
  } finally {
    await directory.close()
  }
}

type Level = { prefix: string; names: string[]; dev: bigint; ino: bigint }

async function levelOf(directory: FileHandle, prefix: string): Promise<Level> {
  const { dev, ino } = await directory.stat({ bigint: true })
  const names = await readdir(pathOf(directory)).catch((error: unknown) => {
    if (['ENOENT', 'EACCES'].includes(codeOf(error) ?? '')) return []
    throw error
  })
  return { prefix, names, dev, ino }
}

async function openAbove(directory: FileHandle, above: Level): Promise<FileHandle> {
  const parent = await openAnyDirectory(below(directory, '..'))
  const { dev, ino } = await parent.stat({ bigint: true })
  if (dev === above.dev && ino === above.ino) return parent
  await parent.close()
  throw new Error('A directory was moved while it was looked at.')
}

async function swap(before: FileHandle, next: FileHandle): Promise<FileHandle> {
  await before.close()
  return next
}

async function writeAll(handle: FileHandle, chunk: Uint8Array): Promise<void> {
  for (let offset = 0; offset < chunk.length;) {
    offset += (await handle.write(chunk, offset)).bytesWritten
  }
}

function sizeAndTime(stats: Stats): { sizeBytes: number; modifiedAt: Date } {
  return { sizeBytes: stats.size, modifiedAt: stats.mtime }
}

async function told<T>(path: string, work: Promise<T>): Promise<T> {
  try {
    return await work
  } catch (error) {
    throw asFilesystemError(error, path)
  }
}

function asFilesystemError(cause: unknown, path: string): Error {
  switch (codeOf(cause) ?? '') {
    case 'ENOENT':
      return new SandboxFilesystemNotFoundError('There is no such file', path, { cause })
    case 'EISDIR':
      return new SandboxFilesystemIsADirectoryError('It is a directory', path, { cause })
    case 'ENOTDIR':
      return new SandboxFilesystemNotADirectoryError('It is no directory', path, { cause })
    case 'ENOTEMPTY':
    case 'EEXIST':
      return new SandboxFilesystemDirectoryNotEmptyError('It is not empty', path, { cause })
    case 'ELOOP':
      return new SandboxFilesystemPermissionError('It is a link', path, { cause })
    case 'EACCES':
    case 'EPERM':
    case 'ENXIO':
      return new SandboxFilesystemPermissionError('It may not be opened', path, { cause })
    default:
      return new SandboxFilesystemError(String(cause), path, { cause })
  }
}

function codeOf(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error ? String(error.code) : undefined
}
