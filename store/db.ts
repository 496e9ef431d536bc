import { QueryTypes, Sequelize, type Transaction } from 'sequelize'

/**
 * One pool of connections and two ways to use it: Sequelize's models for what a client creates, reads and lists, and SQL
 * for what the run engine does, where the number of statements is the latency.
 */
export interface Db {
  sequelize: Sequelize
  /** One statement on its own. */
  sql: Sql
  /** Runs `work` in a transaction; what it throws rolls back and is thrown again. */
  tx<T>(work: (tx: Tx) => Promise<T>): Promise<T>
}

export interface Tx {
  sql: Sql
  transaction: Transaction
  /** Runs `act` once the transaction has committed, and never where it has not. */
  afterCommit(act: () => void): void
}

export type Sql = <Row extends object>(text: string, values?: unknown[]) => Promise<Row[]>

export function openDb(databaseUrl: string, maxConnections: number): Db {
  const sequelize = new Sequelize(databaseUrl, {
    dialect: 'postgres',
    logging: false,
    pool: { max: maxConnections, min: 0, idle: 30_000, acquire: 20_000 },
    dialectOptions: { application_name: 'longrun', keepAlive: true },
    define: { timestamps: false, freezeTableName: true },
  })
  const sqlIn =
    (transaction?: Transaction): Sql =>
    <Row extends object>(text: string, values: unknown[] = []) =>
      sequelize.query<Row>(text, { bind: values, type: QueryTypes.SELECT, raw: true, transaction })

  return {
    sequelize,
    sql: sqlIn(),
    tx: (work) =>
      sequelize.transaction((transaction) =>
        work({
          transaction,
          sql: sqlIn(transaction),
          afterCommit: (act) => transaction.afterCommit(act),
        }),
      ),
  }
}

/** Whether an error says that the database could not be reached or was going down: the same call may work soon. */
export function isConnectionError(error: unknown): boolean {
  for (
    let e: unknown = error;
    e instanceof Error;
    e = e.cause ?? ('parent' in e ? e.parent : null)
  ) {
    if (/^Sequelize(Connection|HostNotFound|HostNotReachable|InvalidConnection)/.test(e.name))
      return true
    if (/Connection terminated|Client has encountered a connection error/.test(e.message))
      return true
    const code = 'code' in e ? String(e.code) : ''
    // Class 08 is connection exceptions; 57P0x is what a server says that stops, crashes or starts.
    if (/^(08...|57P0[1-5]|ECONNREFUSED|ECONNRESET|EPIPE|ETIMEDOUT)$/.test(code)) return true
  }
  return false
}
