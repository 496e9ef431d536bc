import { existsSync, mkdirSync, readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'

import { runSlowly } from './slow-command.ts'

/** Unpacks a package of this machine's Debian or Ubuntu below `into`, without installing it and without being root. */
export async function downloadDebian(name: string, into: string): Promise<string> {
  if (!existsSync('/usr/bin/apt-get')) throw new Error('This is not Debian or Ubuntu.')
  const downloads = join(into, 'downloads')
  mkdirSync(downloads, { recursive: true })
  const apt = (...args: string[]) =>
    runSlowly('apt-get', ['-q', ...args], { cwd: downloads, timeoutMs: 180_000 })
  try {
    await apt('download', name)
  } catch {
    // Images of containers have no lists of packages, and only root may fetch the machine's: these are ours.
    const own = ownLists(into)
    await apt(...own, 'update')
    await apt(...own, 'download', name)
  }
  const archive = readdirSync(downloads).find((file) => file.endsWith('.deb'))
  if (!archive) throw new Error(`apt-get downloaded no ${name}.`)
  const tree = join(into, 'tree')
  await runSlowly('dpkg', ['-x', join(downloads, archive), tree], { cwd: into, timeoutMs: 60_000 })
  rmSync(downloads, { recursive: true })
  return tree
}

function ownLists(into: string): string[] {
  const lists = join(into, 'lists')
  const cache = join(into, 'cache')
  for (const dir of [lists, cache]) mkdirSync(join(dir, 'partial'), { recursive: true })
  const options = [
    `Dir::State::Lists=${lists}`,
    `Dir::Cache=${cache}`,
    `Dir::Cache::archives=${cache}`,
    'Debug::NoLocking=1',
  ]
  return options.flatMap((option) => ['-o', option])
}
