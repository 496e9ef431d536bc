import type { Migrating } from './index.ts'

/**
 * What the list of threads is read by, and the requests that may be repeated.
 *
 * Threads are ordered by (created_at, seq), since imported ones are older than their rows. Every filter has an index that
 * finds its few threads; where they are many, the list itself finds them at once (`store/thread-list.ts`).
 */
export const name = '0004-threads-list'

export async function up({ context }: { context: Migrating }): Promise<void> {
  await context.query(threads)
  await context.query(messageTerms)
  await context.query(messages)
  await context.query(requests)
}

export async function down({ context }: { context: Migrating }): Promise<void> {
  await context.query(`
    DROP TABLE requests, gone;
    DROP INDEX messages_by_term, runs_by_assistant, threads_by_metadata, threads_in_order;
    DROP FUNCTION message_terms, search_words;
    ALTER TABLE threads DROP COLUMN seq;
    CREATE INDEX ON threads (project_id, created_at);
    CREATE TABLE idempotency_keys (
      project_id text NOT NULL REFERENCES projects ON DELETE CASCADE,
      key text NOT NULL,
      request_hash bytea NOT NULL,
      status integer,
      body text,
      created_at timestamptz NOT NULL DEFAULT now(),
      PRIMARY KEY (project_id, key)
    )`)
}

const threads = `
ALTER TABLE threads ADD COLUMN seq bigint;
UPDATE threads t SET seq = n.seq
  FROM (SELECT id, row_number() OVER (ORDER BY created_at, id) AS seq FROM threads) n WHERE n.id = t.id;
ALTER TABLE threads ALTER COLUMN seq SET NOT NULL, ALTER COLUMN seq ADD GENERATED ALWAYS AS IDENTITY;
SELECT setval(pg_get_serial_sequence('threads', 'seq'), (SELECT coalesce(max(seq), 0) + 1 FROM threads), false);
DROP INDEX threads_project_id_created_at_idx;
CREATE INDEX threads_in_order ON threads (project_id, created_at, seq);
-- Metadata are few and short: written at once, so that no search has to read a list of pending entries.
CREATE INDEX threads_by_metadata ON threads USING gin (metadata jsonb_path_ops) WITH (fastupdate = off);
CREATE INDEX runs_by_assistant ON runs (assistant_id, thread_id);
`

/**
 * The words of a message, each after the end of its project's id, so that a word that others use often costs nothing; and its
 * thread, which no word can be mistaken for, so that one thread can be asked. The cost keeps the planner from reading all
 * messages in place of the index.
 *
 * It must take any message, or the message could not be written. A tsvector holds 1 MB and its words 2 kB: of a long text
 * the beginning is found, even where every character has four bytes and every word three forms, and what no person
 * would call a word is not.
 *
 * A database in the locale C knows the small letters of ASCII only, so a collation that knows them all is named. One
 * function does not call the other: where Postgres maintains an index it does not look into our schema.
 */
const messageTerms = `
DO $do$
DECLARE
  letters text := coalesce((SELECT quote_ident(collname) FROM pg_collation
    WHERE collnamespace = 'pg_catalog'::regnamespace AND collname IN ('pg_c_utf8', 'und-x-icu')
      AND collencoding IN (-1, pg_char_to_encoding(getdatabaseencoding()))
    ORDER BY collname LIMIT 1), '"default"');
BEGIN
  EXECUTE replace($function$
    CREATE FUNCTION search_words(said text) RETURNS text[]
    LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
      SELECT tsvector_to_array(to_tsvector('simple', lower(said COLLATE <letters>)))
    $$;
    CREATE FUNCTION message_terms(project_id text, thread_id text, content jsonb) RETURNS tsvector
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE COST 10000 AS $$
    DECLARE
      said text := left(
        (SELECT string_agg(part #>> '{text,value}', ' ') FROM jsonb_array_elements(content) part), 50000);
    BEGIN
      RETURN array_to_tsvector(array_append(
        (SELECT array_agg(right(project_id, 8) || ':' || word)
         FROM unnest(tsvector_to_array(to_tsvector('simple', lower(said COLLATE <letters>)))) word
         WHERE octet_length(word) <= 1024),
        chr(2) || thread_id));
    END $$
  $function$, '<letters>', letters);
END $do$`

/**
 * An index on the expression, not a column: rows stay as small as they are, and prompts are read without it. Written at once:
 * a tenth of a millisecond for a message of 30 words, and no search reads a list of pending ones, nor does any message wait
 * for that list to be sorted in.
 */
const messages = `
CREATE INDEX messages_by_term ON messages USING gin (message_terms(project_id, thread_id, content))
  WITH (fastupdate = off) WHERE status <> 'in_progress' AND NOT superseded;
`

/** `id` is what the ids of the objects that a request makes are derived from: carried out again, it makes the same ones. */
const requests = `
DROP TABLE idempotency_keys;
CREATE TABLE requests (
  id uuid PRIMARY KEY,
  project_id text NOT NULL,
  key text,
  hash bytea NOT NULL,
  attempt integer NOT NULL DEFAULT 1,
  alive_at timestamptz DEFAULT now(),
  status integer,
  body text,
  created_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);
CREATE UNIQUE INDEX requests_by_key ON requests (project_id, key) WHERE key IS NOT NULL;
CREATE INDEX requests_by_hash ON requests (hash) WHERE key IS NULL;
-- For the sweep: those with a key live longer.
CREATE INDEX ON requests (created_at) WHERE key IS NULL;
CREATE INDEX ON requests (created_at) WHERE key IS NOT NULL;

-- Where deleted objects stood in their lists (store/gone.ts).
CREATE TABLE gone (
  id text PRIMARY KEY,
  list text NOT NULL,
  seq bigint NOT NULL,
  made_at timestamptz NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON gone (created_at);
`
