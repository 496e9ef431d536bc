import type { Config } from '../config.ts'
import type { Logger } from '../log.ts'
import { createChildren } from './children.ts'
import { runningPostgres, startPostgres } from './postgres.ts'

/**
 * The database that a command works on: the one that DATABASE_URL names, the one of the server that is running on this data
 * directory, or else the embedded one, started for as long as the command takes.
 */
export async function databaseOf(
  config: Config,
  log: Logger,
): Promise<{ url: string } & AsyncDisposable> {
  const nothing = { [Symbol.asyncDispose]: async () => {} }
  if (config.databaseUrl) return { url: config.databaseUrl, ...nothing }
  const running = await runningPostgres({ dataDir: config.dataDir, database: databaseName })
  if (running) return { url: running, ...nothing }
  const children = await createChildren({ dataDir: config.dataDir, log })
  const { dataDir } = config
  const started = await startPostgres({ children, dataDir, port: 0, database: databaseName })
  return { url: started.url, [Symbol.asyncDispose]: () => children[Symbol.asyncDispose]() }
}

export const databaseName = 'longrun'
