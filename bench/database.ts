import { Client } from 'pg'

export interface Database extends AsyncDisposable {
  counters(): Promise<{ commits: number; walBytes: number }>
  /** From the next start of Postgres on, statements are counted. */
  loadStatementCounts(): Promise<void>
  resetStatements(): Promise<void>
  /** What has been executed since the reset, the most expensive first. */
  statements(): Promise<{ text: string; calls: number; totalMs: number; rows: number }[]>
}

export async function openDatabase(url: string): Promise<Database> {
  const client = new Client({ connectionString: url, application_name: 'bench' })
  // It goes away with the program, which may be before this is disposed.
  client.on('error', () => {})
  await client.connect()
  return {
    async counters() {
      const { rows } = await client.query<{ commits: string; wal: string }>(
        `SELECT (SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()) AS commits,
           (SELECT wal_bytes FROM pg_stat_wal) AS wal`,
      )
      return { commits: Number(rows[0]?.commits), walBytes: Number(rows[0]?.wal) }
    },
    async loadStatementCounts() {
      await client.query(`ALTER SYSTEM SET shared_preload_libraries = 'pg_stat_statements'`)
      await client.query('CREATE EXTENSION IF NOT EXISTS pg_stat_statements')
    },
    async resetStatements() {
      await client.query('SELECT pg_stat_statements_reset()')
    },
    async statements() {
      const { rows } = await client.query<Record<'text' | 'calls' | 'total' | 'rows', string>>(
        `SELECT left(regexp_replace(query, '\\s+', ' ', 'g'), 110) AS text, calls, total_exec_time AS total, rows
         FROM pg_stat_statements ORDER BY total_exec_time DESC`,
      )
      return rows.map(({ text, calls, total, rows: count }) => ({
        text,
        calls: Number(calls),
        totalMs: Number(total),
        rows: Number(count),
      }))
    },
    [Symbol.asyncDispose]: () => client.end().catch(() => {}),
  }
}
