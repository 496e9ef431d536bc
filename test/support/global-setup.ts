import { mkdirSync, rmSync } from 'node:fs'
import { join, resolve } from 'node:path'

import type { TestProject } from 'vitest/node'

import { createChildren } from '../../local/children.ts'
import { startPostgres } from '../../local/postgres.ts'
import { startTemporal } from '../../local/temporal.ts'
import { createLogger } from '../../log.ts'

declare module 'vitest' {
  export interface ProvidedContext {
    /** A Postgres server without anything in it: `createDatabase()` makes a database of one's own. */
    postgresUrl: string
    temporalAddress: string
    /** A directory for whatever tests write. */
    testDir: string
  }
}

/** One Postgres and one Temporal for the whole run; whoever kills such a thing starts one for itself (`ownParts`). */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const dataDir = resolve(join('.data', `test-${process.pid}`))
  mkdirSync(dataDir, { recursive: true })
  const log = createLogger('warn')
  const children = await createChildren({ dataDir, log })
  const cliPath = process.env['LONGRUN_TEMPORAL_CLI']
  if (!cliPath) throw new Error('Run the tests with `npm test`: it gets Temporal')
  const [postgres, temporal] = await Promise.all([
    startPostgres({ children, dataDir, port: 0, database: 'tests', settings: { fsync: 'off' } }),
    startTemporal({ children, dataDir, cliPath, port: 0, uiPort: undefined, namespace: 'longrun' }),
  ])
  project.provide('postgresUrl', postgres.url)
  project.provide('temporalAddress', temporal.address)
  project.provide('testDir', dataDir)
  return async () => {
    await children[Symbol.asyncDispose]()
    rmSync(dataDir, { recursive: true, force: true })
  }
}
