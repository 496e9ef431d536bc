import { createHash } from 'node:crypto'
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'

import type { SandboxRoot } from '../root.ts'

/** What the builder writes down for whoever waits for it. */
export type RootStatus =
  /** `root` is undefined where another one was asked for, and only bubblewrap was looked for. */
  | { state: 'ready'; root: SandboxRoot | undefined; bwrapPath: string | undefined }
  | { state: 'building'; percent: number; message: string }
  | { state: 'failed'; why: string; remedy: string; bwrapPath: string | undefined }

/** A builder that has not written for so long is gone. */
export const statusStaleMs = 30_000

export const requirementsFile = join(import.meta.dirname, 'requirements.txt')
export const finishFile = join(import.meta.dirname, 'finish.py')

/** Changes with the packages, and with how they are put together. */
export function recipeVersion(): string {
  const hash = createHash('sha256').update(layout)
  for (const file of [requirementsFile, finishFile]) hash.update(readFileSync(file))
  return hash.digest('hex').slice(0, 10)
}

export function statusFile(cacheDir: string): string {
  return join(cacheDir, `sandbox-${recipeVersion()}.json`)
}

export function readStatus(file: string): RootStatus | undefined {
  try {
    // Written by a builder of this same version, and always whole.
    return JSON.parse(readFileSync(file, 'utf8')) as RootStatus
  } catch {
    return undefined
  }
}

/** Readers find the old content or the new. */
export function writeStatus(file: string, status: RootStatus): void {
  mkdirSync(dirname(file), { recursive: true })
  const temporary = `${file}.${process.pid}`
  writeFileSync(temporary, JSON.stringify(status))
  renameSync(temporary, file)
}

/** To be raised when host.ts or local/sandbox-etc.ts puts other things into a root that is in the cache. */
const layout = '1'
