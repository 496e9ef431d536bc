import { spawnSync } from 'node:child_process'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmdirSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { expect, test } from 'vitest'

import { removeTree } from '../../sandbox/index.ts'

const isRoot = process.getuid?.() === 0
const project = join(import.meta.dirname, '../..')

/** What code leaves behind that does not want to be removed. */
const HOSTILE = `
import os, sys
os.chdir(sys.argv[1])
top = os.getcwd()
for _ in range(600): os.mkdir("d" * 20); os.chdir("d" * 20)
open("deepest", "w").close()
os.chdir(top)
for path in ("closed/in/side", "readable/x"): os.makedirs(path)
open("closed/in/file", "w").close()
open("readable/x/file", "w").close()
for path, mode in (("closed/in", 0), ("closed", 0), ("readable/x", 0o400), ("readable", 0o500)): os.chmod(path, mode)
os.mkfifo("fifo")
for number in range(300): open(f"{number}", "w").close()
`

function fill(dir: string): void {
  const { status, stderr } = spawnSync('python3', ['-c', HOSTILE, dir])
  expect(stderr.toString()).toBe('')
  expect(status).toBe(0)
}

test('what code has made deep and closed to everybody is removed', async () => {
  const dir = mkdtempSync(join(tmpdir(), 'longrun-tree-'))
  fill(dir)
  await removeTree(dir)
  expect(existsSync(dir)).toBe(false)
})

// Root may do all of it in any case.
test.skipIf(!isRoot)('it is removed by a user without rights, too', () => {
  const dir = mkdtempSync(join(tmpdir(), 'longrun-tree-'))
  chmodSync(dir, 0o777)
  const program = `
    import { readFileSync } from 'node:fs'
    import { spawnSync } from 'node:child_process'
    const { removeTree } = await import(${JSON.stringify(join(project, 'sandbox/remove-tree.ts'))})
    process.setgroups([]); process.setgid(65529); process.setuid(65529)
    const dir = ${JSON.stringify(join(dir, 'own'))}
    const made = spawnSync('python3', ['-c', 'import os, sys; os.mkdir(sys.argv[1])\\n' + ${JSON.stringify(HOSTILE)}, dir])
    if (made.status !== 0) throw new Error(made.stderr.toString())
    await removeTree(dir)
  `
  const { status, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', program])
  expect({ status, stderr: stderr.toString() }).toEqual({ status: 0, stderr: '' })
  expect(existsSync(join(dir, 'own'))).toBe(false)
  rmdirSync(dir)
})

test('links are removed and what they lead to stays, with its mode', async () => {
  const dir = mkdtempSync(join(tmpdir(), 'longrun-tree-'))
  const outside = mkdtempSync(join(tmpdir(), 'longrun-outside-'))
  writeFileSync(join(outside, 'kept'), 'x')
  mkdirSync(join(dir, 'a'))
  symlinkSync(outside, join(dir, 'a/link'))
  symlinkSync(outside, join(dir, 'link'))
  await removeTree(join(dir, 'link'))
  await removeTree(dir)
  expect(existsSync(dir)).toBe(false)
  expect(readFileSync(join(outside, 'kept'), 'utf8')).toBe('x')
  await removeTree(outside)
})

test('what is not there is fine', async () => {
  await expect(removeTree(join(tmpdir(), 'longrun-tree-none'))).resolves.toBe(undefined)
})

test('two that remove the same tree do not disturb each other', async () => {
  const dir = mkdtempSync(join(tmpdir(), 'longrun-tree-'))
  for (let count = 0; count < 50; count += 1) {
    mkdirSync(join(dir, String(count), 'in/side'), { recursive: true })
  }
  await Promise.all([removeTree(dir), removeTree(dir)])
  expect(existsSync(dir)).toBe(false)
})
