import { QueryTypes, type Sequelize } from 'sequelize'
import { SequelizeStorage, Umzug } from 'umzug'

import * as runs from './0001-runs.ts'
import * as files from './0002-files.ts'
import * as passedOn from './0003-passed-on.ts'
import * as threadsList from './0004-threads-list.ts'

/** In the order in which they are applied; a released one is never edited. */
const migrations = [runs, files, passedOn, threadsList]

/** Any number that no other program uses for an advisory lock in our database. */
const migrationLock = 7_205_759_403

/** Brings the schema up to date. Safe when several processes start at once: one migrates, the others wait for it. */
export async function migrate(sequelize: Sequelize): Promise<string[]> {
  const umzug = new Umzug({
    migrations: migrations.map(({ name, up, down }) => ({ name, up, down })),
    context: sequelize.getQueryInterface(),
    storage: new SequelizeStorage({ sequelize, tableName: 'migrations' }),
    logger: undefined,
  })
  return sequelize.transaction(async (transaction) => {
    // This transaction does nothing but hold the lock, for as long as the migrations take.
    await sequelize.query('SET LOCAL idle_in_transaction_session_timeout = 0', { transaction })
    await sequelize.query('SELECT pg_advisory_xact_lock($1)', {
      bind: [migrationLock],
      type: QueryTypes.SELECT,
      transaction,
    })
    const done = await umzug.up()
    return done.map(({ name }) => name)
  })
}
