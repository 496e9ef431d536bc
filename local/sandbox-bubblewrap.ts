import { copyFileSync, existsSync, mkdirSync, renameSync, rmSync } from 'node:fs'
import { delimiter, join } from 'node:path'

import { downloadDebian } from './sandbox-debian.ts'
import { outputOf } from './slow-command.ts'

/** The path of a bubblewrap that runs: the installed one, else one in the cache. Undefined where there is none to be had. */
export async function ensureBubblewrap(cacheDir: string): Promise<string | undefined> {
  const dirs = [...(process.env['PATH'] ?? '').split(delimiter), '/usr/bin'].filter(Boolean)
  for (const dir of dirs) {
    const installed = join(dir, 'bwrap')
    if (existsSync(installed) && (await runs(installed))) return installed
  }
  const kept = join(cacheDir, `bubblewrap-${process.arch}`, 'bwrap')
  if (existsSync(kept) && (await runs(kept))) return kept
  return fetchBubblewrap(cacheDir, kept).catch(() => undefined)
}

const runs = (file: string): Promise<boolean> =>
  outputOf(file, ['--version']).then(
    () => true,
    () => false,
  )

async function fetchBubblewrap(cacheDir: string, kept: string): Promise<string | undefined> {
  const work = join(cacheDir, `.new-bubblewrap-${process.pid}`)
  mkdirSync(work, { recursive: true })
  try {
    const tree = await downloadDebian('bubblewrap', work)
    const fetched = join(tree, 'usr', 'bin', 'bwrap')
    if (!(await runs(fetched))) return undefined
    mkdirSync(join(kept, '..'), { recursive: true })
    copyFileSync(fetched, `${kept}.new`)
    renameSync(`${kept}.new`, kept)
    return kept
  } finally {
    rmSync(work, { recursive: true, force: true })
  }
}
