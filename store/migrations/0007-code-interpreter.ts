import type { Migrating } from './index.ts'

/**
 * Where code runs. Each process that can run code is a row of `sandbox_hosts` for as long as it says that it is there; a thread
 * leases a host in `sandbox_sessions`, whose generation tells the sandboxes of a thread apart. `sandbox_files` says which File
 * is what lies under a path of a thread's /mnt/data: a sandbox that is lost is filled again from it.
 */
export const name = '0007-code-interpreter'

export async function up({ context }: { context: Migrating }): Promise<void> {
  await context.query(`
    CREATE TABLE sandbox_hosts (
      id text PRIMARY KEY,
      capacity integer NOT NULL,
      state jsonb NOT NULL,
      heartbeat_at timestamptz NOT NULL
    );
    CREATE TABLE sandbox_sessions (
      thread_id text PRIMARY KEY REFERENCES threads ON DELETE CASCADE,
      host_id text REFERENCES sandbox_hosts ON DELETE SET NULL,
      generation integer NOT NULL DEFAULT 0,
      has_state boolean NOT NULL DEFAULT false,
      last_used_at timestamptz NOT NULL
    );
    CREATE INDEX ON sandbox_sessions (host_id) WHERE host_id IS NOT NULL;
    CREATE TABLE sandbox_files (
      thread_id text NOT NULL REFERENCES threads ON DELETE CASCADE,
      path text NOT NULL,
      file_id text NOT NULL REFERENCES files ON DELETE CASCADE,
      digest bytea NOT NULL,
      PRIMARY KEY (thread_id, path)
    );
    CREATE INDEX ON sandbox_files (file_id);

    ALTER TABLE tool_calls
      ADD COLUMN begun jsonb,
      ADD COLUMN files jsonb NOT NULL DEFAULT '[]'`)
}

export async function down({ context }: { context: Migrating }): Promise<void> {
  await context.query(`
    ALTER TABLE tool_calls DROP COLUMN begun, DROP COLUMN files;
    DROP TABLE sandbox_files, sandbox_sessions, sandbox_hosts`)
}
