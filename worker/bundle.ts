import { createHash } from 'node:crypto'
import { mkdir, readdir, readFile, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

import { bundleWorkflowCode } from '@temporalio/worker'

import type { Logger } from '../log.ts'

const root = fileURLToPath(new URL('..', import.meta.url))

/**
 * The workflow code as one file, built when its sources changed (about a second) and kept in `<dataDir>/bundles`.
 * Workflows may import `wire` and nothing else of ours, so these two folders and the lock file decide.
 */
export async function workflowBundle(dataDir: string, log: Logger): Promise<{ codePath: string }> {
  const folder = join(dataDir, 'bundles')
  const codePath = join(folder, `workflows-${await fingerprint()}.js`)
  if (await exists(codePath)) return { codePath }
  const { code } = await bundleWorkflowCode({
    workflowsPath: join(root, 'workflows/index.ts'),
    logger: {
      ...quiet,
      warn: (message) => log.warn(message),
      error: (message) => log.error(message),
    },
  })
  await mkdir(folder, { recursive: true })
  // Renamed when whole: several processes may start at once.
  const temporary = `${codePath}.${process.pid}`
  await writeFile(temporary, code)
  await rename(temporary, codePath)
  return { codePath }
}

const ignore = (): void => {}
const quiet = { log: ignore, trace: ignore, debug: ignore, info: ignore }

async function fingerprint(): Promise<string> {
  const hash = createHash('sha256')
  const files = ['package-lock.json']
  for (const folder of ['workflows', 'wire']) {
    const entries = await readdir(join(root, folder), { recursive: true })
    files.push(...entries.filter((name) => name.endsWith('.ts')).map((name) => join(folder, name)))
  }
  for (const file of files.toSorted()) hash.update(file).update(await readFile(join(root, file)))
  return hash.digest('hex').slice(0, 16)
}

async function exists(path: string): Promise<boolean> {
  return readFile(path).then(
    () => true,
    () => false,
  )
}
