import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { buffer } from 'node:stream/consumers'

import { afterEach, beforeEach, expect, test } from 'vitest'

import {
  InvalidError,
  removeTree,
  SandboxFilesystemDirectoryNotEmptyError,
  SandboxFilesystemIsADirectoryError,
  SandboxFilesystemNotADirectoryError,
  SandboxFilesystemNotFoundError,
  SandboxFilesystemPermissionError,
} from '../../sandbox/index.ts'
import { openFilesystem } from '../../sandbox/filesystem.ts'
import { describeProviders, openTestSandbox, printed } from './support.ts'

let dataDir: string
const open = () => openFilesystem(dataDir, undefined)

beforeEach(() => {
  dataDir = mkdtempSync(join(tmpdir(), 'longrun-files-'))
})
afterEach(() => rmSync(dataDir, { recursive: true, force: true }))

test('what was written is read, by absolute and by relative paths', async () => {
  const files = open()
  await files.writeText('/mnt/data/a/b/c.txt', 'ü')
  expect(await files.readText('a/b/c.txt')).toBe('ü')
  await files.writeBytes('a/b/c.txt', Buffer.from([0, 255]))
  expect(await files.readBytes('a/b/c.txt')).toEqual(Buffer.from([0, 255]))
})

test('large files are streamed, in and out', async () => {
  const files = open()
  const piece = Buffer.alloc(1024 * 1024, 'x')
  await files.writeStream(
    'big',
    (async function* () {
      for (let count = 0; count < 20; count += 1) yield piece
    })(),
  )
  const { sizeBytes, stream } = await files.openRead('big')
  expect(sizeBytes).toBe(20 * piece.length)
  expect((await buffer(stream)).equals(Buffer.alloc(sizeBytes, 'x'))).toBe(true)
})

test('a copy is a file of its own', async () => {
  const files = open()
  await files.writeText('a', 'old')
  await files.copy('a', 'b/c')
  await files.writeText('a', 'new')
  expect(await files.readText('b/c')).toBe('old')
  await files.copy('a', 'b/c')
  expect(await files.readText('b/c')).toBe('new')
  expect((await files.listFiles()).map(({ path }) => path)).toEqual([
    '/mnt/data/a',
    '/mnt/data/b/c',
  ])
})

test('only regular files are copied, and no link is written through', async () => {
  const files = open()
  const outside = mkdtempSync(join(tmpdir(), 'longrun-outside-'))
  writeFileSync(join(outside, 'kept'), 'x')
  symlinkSync(join(outside, 'kept'), join(dataDir, 'link'))
  await files.writeText('a', 'new')
  await files.makeDirectory('dir')
  await expect(files.copy('link', 'b')).rejects.toThrow(SandboxFilesystemPermissionError)
  await expect(files.copy('dir', 'b')).rejects.toThrow(SandboxFilesystemIsADirectoryError)
  await expect(files.copy('none', 'b')).rejects.toThrow(SandboxFilesystemNotFoundError)
  await files.copy('a', 'link')
  expect(await files.readText('link')).toBe('new')
  expect(await openFilesystem(outside, undefined).readText('kept')).toBe('x')
  rmSync(outside, { recursive: true })
})

test('what is used is known however deep it lies, with few descriptors', async () => {
  const files = open()
  const deep = [
    'import os, sys',
    'os.chdir(sys.argv[1])',
    'for _ in range(1500): os.mkdir("d" * 20); os.chdir("d" * 20)',
    'open("x", "wb").write(b"x" * 2**20)',
  ].join('\n')
  expect(spawnSync('python3', ['-c', deep, dataDir]).status).toBe(0)
  let most = 0
  const count = () => (most = Math.max(most, readdirSync('/proc/self/fd').length))
  count()
  const before = most
  const timer = setInterval(count, 1)
  const used = await files.usedBytes()
  clearInterval(timer)
  expect(used).toBeGreaterThanOrEqual(1500 * 4096 + 2 ** 20)
  expect(most - before).toBeLessThan(20)
  await removeTree(dataDir)
})

test('an empty file is read as nothing', async () => {
  const files = open()
  await files.writeText('empty', '')
  expect(await buffer((await files.openRead('empty')).stream)).toHaveLength(0)
  expect(await files.readText('empty')).toBe('')
})

test('a file that is being written is there when it is whole, or never', async () => {
  const files = open()
  await files.writeText('a', 'old')
  const broken = (async function* () {
    yield Buffer.from('new')
    expect(await files.readText('a')).toBe('old')
    throw new Error('the client went away')
  })()
  await expect(files.writeStream('a', broken)).rejects.toThrow('went away')
  expect(await files.readText('a')).toBe('old')
  expect(await files.listFiles()).toHaveLength(1)
})

test('lists have every file beneath a directory, with size and time, and no directories', async () => {
  const files = open()
  await files.writeText('b', '22')
  await files.writeText('a/x', '1')
  await files.makeDirectory('empty')
  expect(await files.listFiles()).toEqual([
    { path: '/mnt/data/a/x', sizeBytes: 1, modifiedAt: expect.any(Date) },
    { path: '/mnt/data/b', sizeBytes: 2, modifiedAt: expect.any(Date) },
  ])
  expect(await files.listFiles('/mnt/data/a')).toHaveLength(1)
})

test('stat tells files, directories and what is neither apart', async () => {
  const files = open()
  await files.writeText('a/x', '123')
  symlinkSync('/etc/passwd', join(dataDir, 'link'))
  expect(await files.stat('a/x')).toMatchObject({
    type: 'file',
    sizeBytes: 3,
    path: '/mnt/data/a/x',
  })
  expect(await files.stat('a')).toMatchObject({ type: 'directory' })
  expect(await files.stat('/mnt/data')).toMatchObject({ type: 'directory', path: '/mnt/data' })
  expect(await files.stat('link')).toMatchObject({ type: 'other' })
})

test('remove takes a file, an empty directory, or a full one if told so', async () => {
  const files = open()
  await files.writeText('a/b/x', '1')
  await expect(files.remove('a')).rejects.toThrow(SandboxFilesystemDirectoryNotEmptyError)
  await files.remove('a/b/x')
  await files.remove('a/b')
  await files.writeText('a/b/x', '1')
  await files.remove('a', { recursive: true })
  expect(await files.listFiles()).toEqual([])
})

test('removing what is below a link removes the link only', async () => {
  const files = open()
  const outside = mkdtempSync(join(tmpdir(), 'longrun-outside-'))
  writeFileSync(join(outside, 'kept'), 'x')
  mkdirSync(join(dataDir, 'a'))
  symlinkSync(outside, join(dataDir, 'a', 'link'))
  await files.remove('a', { recursive: true })
  expect(await openFilesystem(outside, undefined).readText('kept')).toBe('x')
  rmSync(outside, { recursive: true })
})

test('errors say what is wrong', async () => {
  const files = open()
  await files.writeText('file', 'x')
  await files.makeDirectory('dir')
  symlinkSync('file', join(dataDir, 'link'))
  symlinkSync('dir', join(dataDir, 'dirlink'))
  await expect(files.readText('none')).rejects.toThrow(SandboxFilesystemNotFoundError)
  await expect(files.stat('none/x')).rejects.toThrow(SandboxFilesystemNotFoundError)
  await expect(files.listFiles('none')).rejects.toThrow(SandboxFilesystemNotFoundError)
  await expect(files.remove('none')).rejects.toThrow(SandboxFilesystemNotFoundError)
  await expect(files.readText('dir')).rejects.toThrow(SandboxFilesystemIsADirectoryError)
  await expect(files.writeText('dir', 'x')).rejects.toThrow(SandboxFilesystemIsADirectoryError)
  await expect(files.writeText('', 'x')).rejects.toThrow(SandboxFilesystemIsADirectoryError)
  await expect(files.readText('file/x')).rejects.toThrow(SandboxFilesystemNotADirectoryError)
  await expect(files.makeDirectory('file/x')).rejects.toThrow(SandboxFilesystemNotADirectoryError)
  await expect(files.readText('link')).rejects.toThrow(SandboxFilesystemPermissionError)
  await expect(files.writeText('dirlink/x', 'x')).rejects.toThrow(
    SandboxFilesystemNotADirectoryError,
  )
  await expect(files.readText('/etc/passwd')).rejects.toThrow(InvalidError)
  await expect(files.readText('../x')).rejects.toThrow(InvalidError)
  await expect(files.readText('a\0b')).rejects.toThrow(InvalidError)
})

describeProviders('files between host and sandbox', (provider) => {
  test('each side reads, changes and removes what the other has written', async () => {
    await using sandbox = await openTestSandbox(provider)
    await sandbox.filesystem.writeText('in/a.csv', 'a,b\n1,2\n')
    expect(
      await printed(
        sandbox,
        [
          'import os, pandas as pd',
          'd = pd.read_csv("in/a.csv")',
          'd["c"] = 3',
          'd.to_csv("/mnt/data/out.csv", index=False)',
          'open("in/a.csv", "a").write("3,4\\n")',
          'os.mkdir("in/more"); open("in/more/x", "w").write("x");',
        ].join('\n'),
      ),
    ).toBe('')
    expect(await sandbox.filesystem.readText('/mnt/data/out.csv')).toBe('a,b,c\n1,2,3\n')
    expect(await sandbox.filesystem.readText('in/a.csv')).toBe('a,b\n1,2\n3,4\n')
    await sandbox.filesystem.remove('in', { recursive: true })
    expect(await printed(sandbox, 'os.listdir("/mnt/data")')).toBe("['out.csv']")
  })

  test('files are there after the sandbox is gone, and for the next one', async () => {
    const sandbox = await openTestSandbox(provider)
    await printed(sandbox, 'open("kept", "w").write("x"); None')
    await sandbox.terminate()
    expect(await sandbox.filesystem.readText('kept')).toBe('x')
    await using next = await provider.create({
      dataDir: sandbox.dataDir,
      limits: sandbox.limits,
      network: 'none',
    })
    expect(await printed(next, 'open("kept", "a").write("y"); open("kept").read()')).toBe("'xy'")
  })
})
