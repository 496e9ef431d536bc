import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { afterEach, beforeEach, expect, test } from 'vitest'

import { watchDisk } from '../../sandbox/disk.ts'
import { openFilesystem } from '../../sandbox/filesystem.ts'

const MIB = 1024 * 1024
const limitBytes = 2 * MIB

let dataDir: string
beforeEach(() => {
  dataDir = mkdtempSync(join(tmpdir(), 'longrun-disk-'))
})
afterEach(() => rmSync(dataDir, { recursive: true, force: true }))

/** Looks all the time, and counts how often it has done so and found too much. */
function watch() {
  const files = openFilesystem(dataDir, undefined)
  const seen = { looks: 0, full: 0 }
  const disk = watchDisk({
    usedBytes: async () => {
      const used = await files.usedBytes()
      seen.looks += 1
      return used
    },
    givenBytes: files.givenBytes,
    limitBytes,
    intervalMs: 1,
    onFull: () => (seen.full += 1),
  })
  const looksMore = async () => {
    const looks = seen.looks
    await expect.poll(() => seen.looks, { interval: 5 }).toBeGreaterThan(looks + 1)
  }
  return { files, disk, seen, looksMore, [Symbol.dispose]: () => disk.stop() }
}

const write = (name: string, mib: number) =>
  writeFileSync(join(dataDir, name), Buffer.alloc(mib * MIB, 'x'))

test('what code adds beyond the limit is told once', async () => {
  using watched = watch()
  await watched.disk.ready
  write('a', 1)
  await watched.looksMore()
  expect(watched.disk.isFull()).toBe(false)
  write('b', 2)
  await expect.poll(() => watched.disk.isFull()).toBe(true)
  expect(watched.seen.full).toBe(1)
})

test('what was there at first may be more than the limit, but not grow', async () => {
  write('old', 5)
  using watched = watch()
  await watched.disk.ready
  await watched.looksMore()
  rmSync(join(dataDir, 'old'))
  mkdirSync(join(dataDir, 'old'))
  write('old/part', 4)
  await watched.looksMore()
  expect(watched.disk.isFull()).toBe(false)
  write('new', 2)
  await expect.poll(() => watched.disk.isFull()).toBe(true)
})

test('what the host gives is not what code adds', async () => {
  using watched = watch()
  await watched.disk.ready
  await watched.files.writeBytes('in/a', Buffer.alloc(4 * MIB, 'x'))
  await watched.files.copy('in/a', 'in/b')
  write('code', 1)
  await watched.looksMore()
  expect(watched.disk.isFull()).toBe(false)
  write('more', 2)
  await expect.poll(() => watched.disk.isFull()).toBe(true)
})

test('a directory that cannot be looked at counts as full in the end', async () => {
  using watched = watch()
  await watched.disk.ready
  rmSync(dataDir, { recursive: true })
  await expect.poll(() => watched.disk.isFull(), { timeout: 5000 }).toBe(true)
})
