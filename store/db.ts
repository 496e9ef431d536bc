import type { Client } from 'pg'
import { Sequelize } from 'sequelize'

import { destroyConnection } from './listener.ts'

/**
 * One pool of connections and two ways to use it: Sequelize's models for what a client creates, reads and lists, and SQL
 * on its connections for what the run engine does, where the number of statements and what each costs is the latency.
 */
export interface Db {
  sequelize: Sequelize
  /** One statement on its own. */
  sql: Sql
  /** Runs `work` in a transaction; what it throws rolls back and is thrown again. A deadlock runs it anew. */
  tx<T>(work: (tx: Tx) => Promise<T>): Promise<T>
  /** Calls `act` with each run that a transaction of this process has left commands for (`Tx.leavesCommand`). */
  onCommand(act: (runId: string) => void): void
  /** Gives up all connections: what waits for an answer fails with a connection error, and can be tried again on new ones. */
  giveUpConnections(): void
}

export interface Tx {
  sql: Sql
  /** Runs `act` once the transaction has committed, and never where it has not. */
  afterCommit(act: () => void): void
  /** Has the run's commands in the outbox delivered at once when the transaction commits, and not by the sweep. */
  leavesCommand(runId: string): void
}

export type Sql = <Row extends object>(text: string, values?: unknown[]) => Promise<Row[]>

export function openDb(databaseUrl: string, maxConnections: number): Db {
  const sequelize = new Sequelize(databaseUrl, {
    dialect: 'postgres',
    logging: false,
    pool: { max: maxConnections, min: 0, idle: 30_000, acquire: 20_000 },
    dialectOptions: {
      application_name: 'longrun',
      keepAlive: true,
      connectionTimeoutMillis: 5000,
      // A process that is frozen in the middle of a transaction must not keep a run's lock for ever.
      idle_in_transaction_session_timeout: 10_000,
    },
    define: { timestamps: false, freezeTableName: true },
  })
  const connections = new Set<Connection>()
  sequelize.addHook('afterConnect', (connection) => {
    // The pool is Sequelize's, and so are its connections; below them is `pg`.
    connections.add(connection as Connection)
  })
  sequelize.addHook('beforeDisconnect', (connection) => {
    connections.delete(connection as Connection)
  })
  const names = new Map<string, string>()
  const commandListeners: ((runId: string) => void)[] = []

  async function borrow<T>(work: (connection: Connection) => Promise<T>): Promise<T> {
    const pool = sequelize.connectionManager
    const connection = (await pool.getConnection({ type: 'write' })) as Connection
    try {
      return await work(connection)
    } finally {
      pool.releaseConnection(connection)
    }
  }

  /** Prepared once per connection: parsing and planning are half of what our short statements cost. */
  function sqlOn(connection: Connection): Sql {
    return async <Row extends object>(text: string, values: unknown[] = []) => {
      const name = names.get(text) ?? `s${names.size}`
      // Statements are put together from few parts; without a bound a mistake there would fill the server's memory.
      if (names.size < maxPrepared) names.set(text, name)
      const query = names.has(text) ? { name, text, values } : { text, values }
      const { rows } = await connection.query<Row>(query)
      return rows
    }
  }

  async function attempt<T>(
    connection: Connection,
    work: (tx: Tx) => Promise<T>,
    acts: (() => void)[],
  ): Promise<T> {
    await connection.query('BEGIN')
    try {
      const done = await work({
        sql: sqlOn(connection),
        afterCommit: (act) => void acts.push(act),
        leavesCommand: (runId) =>
          void acts.push(() => commandListeners.forEach((act) => act(runId))),
      })
      await connection.query('COMMIT')
      return done
    } catch (error) {
      // On a connection that broke there is nothing left to undo.
      await connection.query('ROLLBACK').catch(() => {})
      throw error
    }
  }

  return {
    sequelize,
    sql: (text, values) => borrow((connection) => sqlOn(connection)(text, values)),
    async tx(work) {
      for (let tried = 1; ; tried += 1) {
        const acts: (() => void)[] = []
        let done
        try {
          done = await borrow((connection) => attempt(connection, work, acts))
        } catch (error) {
          if (!isDeadlock(error) || tried === deadlockTries) throw error
          continue
        }
        for (const act of acts) act()
        return done
      }
    },
    onCommand: (act) => void commandListeners.push(act),
    giveUpConnections: () => connections.forEach(destroyConnection),
  }
}

type Connection = Client

const maxPrepared = 500
/** Locks are taken in one order everywhere, but cascades and foreign keys have an order of their own. */
const deadlockTries = 3

function isDeadlock(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === '40P01'
}

/** Whether an error says nothing against what was tried: it may work soon. */
export function isPassing(error: unknown): boolean {
  return isConnectionError(error) || isDeadlock(error)
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
    if (
      /Connection terminated|Client has encountered a connection error|timeout expired/.test(
        e.message,
      )
    )
      return true
    const code = 'code' in e ? String(e.code) : ''
    // Class 08 is connection exceptions; 57P0x is what a server says that stops, crashes or starts; 25P03 ends a transaction
    // that was idle for too long.
    if (/^(08...|25P03|57P0[1-5]|ECONNREFUSED|ECONNRESET|EPIPE|ETIMEDOUT)$/.test(code)) return true
  }
  return false
}
