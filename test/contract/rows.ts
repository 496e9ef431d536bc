import { Client } from 'pg'

/** Looks at what a database holds, past everything that serves it. */
export interface Rows extends AsyncDisposable {
  /** A digest of each table. With `naming` only of the rows in which one of these texts appears. */
  digest(naming?: string[]): Promise<Record<string, string>>
}

/**
 * Books that are kept about requests, whatever becomes of them: answers kept for repetitions, tokens used, which are added up
 * now and then, bytes to be cleared away; and commands that are on their way to Temporal.
 */
const books =
  'api_keys idempotency_keys requests usage usage_sums passed_usage loose_blobs blob_place outbox'.split(
    ' ',
  )

export async function openRows(databaseUrl: string): Promise<Rows> {
  const client = new Client({ connectionString: databaseUrl })
  await client.connect()
  return {
    async digest(naming) {
      const digests: Record<string, string> = {}
      for (const table of await tables(client)) {
        const { rows } = await client.query<{ digest: string }>(
          `SELECT md5(coalesce(string_agg(r::text, E'\\n' ORDER BY r::text), '')) AS digest FROM ${table} r
           WHERE $1::text[] IS NULL OR EXISTS (SELECT FROM unnest($1) n WHERE strpos(r::text, n) > 0)`,
          [naming ?? null],
        )
        digests[table] = rows[0]?.digest ?? ''
      }
      return digests
    },
    [Symbol.asyncDispose]: () => client.end(),
  }
}

export async function tables(client: Client): Promise<string[]> {
  const { rows } = await client.query<{ name: string }>(
    `SELECT quote_ident(tablename) AS name FROM pg_tables
     WHERE schemaname = 'public' AND NOT tablename = ANY ($1) ORDER BY tablename`,
    [books],
  )
  return rows.map(({ name }) => name)
}

/** Sees each row that is written, by whomever. */
export interface Writes extends AsyncDisposable {
  /** What was written and committed since the last call: `INSERT messages`, in the order of writing. */
  take(): Promise<string[]>
}

/** Puts a trigger on every table but the books. */
export async function watchWrites(databaseUrl: string): Promise<Writes> {
  const client = new Client({ connectionString: databaseUrl })
  await client.connect()
  await client.query(`
    CREATE SCHEMA watched;
    CREATE TABLE watched.writes (id bigserial PRIMARY KEY, what text NOT NULL);
    CREATE FUNCTION watched.note() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      INSERT INTO watched.writes (what) VALUES (TG_OP || ' ' || TG_TABLE_NAME);
      RETURN NULL;
    END $$`)
  for (const table of await tables(client)) {
    await client.query(
      `CREATE TRIGGER watched AFTER INSERT OR UPDATE OR DELETE ON ${table}
       FOR EACH ROW EXECUTE FUNCTION watched.note()`,
    )
  }
  return {
    async take() {
      const { rows } = await client.query<{ id: string; what: string }>(
        'DELETE FROM watched.writes RETURNING id, what',
      )
      return rows.toSorted((a, b) => Number(a.id) - Number(b.id)).map(({ what }) => what)
    },
    [Symbol.asyncDispose]: () => client.end(),
  }
}
