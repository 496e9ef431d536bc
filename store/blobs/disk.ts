import { randomUUID } from 'node:crypto'
import { createWriteStream } from 'node:fs'
import { link, mkdir, open, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { hostname } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { pipeline } from 'node:stream/promises'

import type { Blobs } from '../blobs.ts'
import { MissingBlob } from './missing-blob.ts'

/** Few large system calls in place of many small ones. */
const chunkBytes = 512 * 1024

/**
 * One file a blob, in folders by the first two digits of the key. A file has its name once it is whole and on the disk;
 * until then it is in `unfinished`.
 */
export async function openDiskBlobs(dir: string): Promise<Blobs> {
  const root = resolve(dir)
  const unfinished = join(root, 'unfinished')
  const pathOf = (key: string): string => join(root, key.slice(0, 2), key)
  const id = await prepare(root, unfinished)
  const place = { id, name: `${root} on ${hostname()}` }
  return {
    place,
    async put(key, bytes) {
      const temporary = join(unfinished, key)
      const final = pathOf(key)
      try {
        const file = createWriteStream(temporary, {
          flags: 'wx',
          flush: true,
          highWaterMark: chunkBytes,
        })
        await pipeline(bytes, file)
        const isNewFolder = (await mkdir(dirname(final), { recursive: true })) !== undefined
        await rename(temporary, final)
        await sync(dirname(final))
        if (isNewFolder) await sync(root)
      } catch (error) {
        await rm(temporary, { force: true })
        throw error
      }
    },
    async get(key, range) {
      const file = await open(pathOf(key), 'r').catch((error: NodeJS.ErrnoException) => {
        throw error.code === 'ENOENT' ? new MissingBlob(key, place.name, { cause: error }) : error
      })
      return file.createReadStream({ ...range, highWaterMark: chunkBytes })
    },
    async delete(key) {
      await rm(join(unfinished, key), { force: true })
      await rm(pathOf(key), { force: true })
    },
    async [Symbol.asyncDispose]() {},
  }
}

/** Makes the folder usable and gives the name that it has wherever it is mounted. */
async function prepare(root: string, unfinished: string): Promise<string> {
  try {
    await mkdir(unfinished, { recursive: true })
    const name = join(root, 'id')
    const own = join(unfinished, randomUUID())
    // A link appears with its content and never over another: of two processes that start at once one names the folder.
    await writeFile(own, `${randomUUID()}\n`, { flush: true })
    await link(own, name).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'EEXIST') throw error
    })
    await rm(own)
    return (await readFile(name, 'utf8')).trim()
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error)
    throw new Error(
      `Files cannot be kept in ${root} (${why}); set FILES_DIR to a directory that this process may write to`,
      { cause: error },
    )
  }
}

/** A rename is safe once its directory is. */
async function sync(dir: string): Promise<void> {
  await using handle = await open(dir, 'r')
  await handle.sync()
}
