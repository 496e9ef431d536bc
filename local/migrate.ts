import { loadConfig } from '../config.ts'
import { createLogger } from '../log.ts'
import { openDb } from '../store/db.ts'
import { migrate } from '../store/migrations/index.ts'
import { databaseOf } from './database-of.ts'

/** `npm run migrate`: brings the schema up to date, as every start does; for deployments that do it apart. */
async function main(): Promise<string[]> {
  const config = loadConfig(process.env)
  await using database = await databaseOf(config, createLogger(config.logLevel))
  const db = openDb(database.url, 2)
  try {
    return await migrate(db.sequelize)
  } finally {
    await db.sequelize.close()
  }
}

try {
  const applied = await main()
  process.stdout.write(applied.length > 0 ? `Applied: ${applied.join(', ')}\n` : 'Nothing to do.\n')
  process.exit(0)
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`)
  process.exit(1)
}
