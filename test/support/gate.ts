import { Client } from 'pg'

import { eventually } from '../local/scratch.ts'

/** A place in the database where transactions stop until they are let on: a test kills somebody just there. */
export interface Gate extends AsyncDisposable {
  /** Resolves once a transaction waits at it. */
  reached(): Promise<void>
  /** For good; a Postgres that is killed opens it too. */
  open(): Promise<void>
}

export interface GatePlace {
  table: 'runs' | 'run_turns' | 'usage'
  /** An update waits in the middle of its transaction, or where all is done but for the answer to its COMMIT. */
  at: 'insert' | 'update' | 'commit'
  /** Of the new row. */
  when: string
}

/** Closes the gate; needs the schema to be there. One in a database: it takes the place of the one before. */
export async function closeGate(databaseUrl: string, place: GatePlace): Promise<Gate> {
  const client = new Client({ connectionString: databaseUrl })
  client.on('error', () => {})
  await client.connect()
  await client.query(`
    DROP TRIGGER IF EXISTS gate ON runs;
    DROP TRIGGER IF EXISTS gate ON run_turns;
    DROP TRIGGER IF EXISTS gate ON usage;
    CREATE OR REPLACE FUNCTION wait_at_gate() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      PERFORM pg_advisory_xact_lock_shared(${gateLock});
      RETURN NEW;
    END $$;
    ${triggerAt(place)} FOR EACH ROW WHEN (${place.when}) EXECUTE FUNCTION wait_at_gate()`)
  await client.query('SELECT pg_advisory_lock($1)', [gateLock])
  const open = (): Promise<void> => client.end().catch(() => {})
  return {
    open,
    async reached() {
      await eventually(async () => {
        const { rows } = await client.query(
          `SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND objid = $1 AND NOT granted
             AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`,
          [gateLock],
        )
        return rows.length > 0
      })
    },
    [Symbol.asyncDispose]: open,
  }
}

/** Any number that nobody else uses in our databases. */
const gateLock = 20_260

function triggerAt({ table, at }: GatePlace): string {
  switch (at) {
    case 'insert':
      return `CREATE TRIGGER gate BEFORE INSERT ON ${table}`
    case 'update':
      return `CREATE TRIGGER gate BEFORE UPDATE ON ${table}`
    case 'commit':
      return `CREATE CONSTRAINT TRIGGER gate AFTER UPDATE ON ${table} DEFERRABLE INITIALLY DEFERRED`
    default:
      return at satisfies never
  }
}
