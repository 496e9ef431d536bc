import { QueryTypes, type Sequelize } from 'sequelize'
import { Umzug } from 'umzug'

import * as runs from './0001-runs.ts'
import * as files from './0002-files.ts'
import * as passedOn from './0003-passed-on.ts'
import * as threadsList from './0004-threads-list.ts'
import * as runSemantics from './0005-run-semantics.ts'
import * as eventRetention from './0006-event-retention.ts'
import * as codeInterpreter from './0007-code-interpreter.ts'

/** In the order in which they are applied; one that a release has carried is never edited. */
const migrations = [
  runs,
  files,
  passedOn,
  threadsList,
  runSemantics,
  eventRetention,
  codeInterpreter,
]

/** Any number that no other program uses for an advisory lock in our database. */
const migrationLock = 7_205_759_403

/** What a migration has of the database: statements of the transaction that is all of them. */
export interface Migrating {
  query(sql: string): Promise<unknown>
}

/**
 * Brings the schema up to date, wholly or not at all. Safe when several processes start at once: one migrates, the others
 * wait for it.
 */
export async function migrate(sequelize: Sequelize): Promise<string[]> {
  return sequelize.transaction(async (transaction) => {
    const run = (sql: string, bind: unknown[] = []) =>
      sequelize.query<{ name: string }>(sql, { bind, transaction, type: QueryTypes.SELECT })
    await run("SELECT set_config('idle_in_transaction_session_timeout', '0', true)")
    await run('SELECT pg_advisory_xact_lock($1)', [migrationLock])
    await run('CREATE TABLE IF NOT EXISTS migrations (name text PRIMARY KEY)')
    const umzug = new Umzug({
      migrations: migrations.map(({ name, up, down }) => ({ name, up, down })),
      // Without values, so that a text may hold several statements.
      context: { query: (sql: string) => sequelize.query(sql, { transaction }) },
      storage: {
        executed: async () => (await run('SELECT name FROM migrations')).map(({ name }) => name),
        async logMigration({ name }) {
          await run('INSERT INTO migrations (name) VALUES ($1)', [name])
        },
        async unlogMigration({ name }) {
          await run('DELETE FROM migrations WHERE name = $1', [name])
        },
      },
      logger: undefined,
    })
    const done = await umzug.up()
    return done.map(({ name }) => name)
  })
}
