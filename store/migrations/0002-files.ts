import type { Migrating } from './index.ts'

/**
 * Files, uploads, and what refers to files: vector stores, the tool resources of assistants and threads, and the lists that
 * the first version of the API kept.
 *
 * Bytes are not in the database: `blob` is a key in the blob store. A key that no row names is in `loose_blobs`: it is
 * entered before its bytes are written, and by a trigger when its row goes, by whatever way, so that bytes go too.
 */
export const name = '0002-files'

export async function up({ context }: { context: Migrating }): Promise<void> {
  await context.query(schema)
}

export async function down({ context }: { context: Migrating }): Promise<void> {
  await context.query(`
    ALTER TABLE runs DROP COLUMN file_ids;
    DROP INDEX assistants_by_code_file, threads_by_code_file;
    DROP TABLE assistant_files, vector_store_files, vector_stores, upload_parts, uploads, files, loose_blobs, blob_place;
    DROP FUNCTION loosen_blob`)
}

const schema = `
CREATE TABLE files (
  id text PRIMARY KEY,
  project_id text NOT NULL REFERENCES projects ON DELETE CASCADE,
  seq bigint GENERATED ALWAYS AS IDENTITY,
  created_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz,
  bytes bigint NOT NULL,
  filename text NOT NULL,
  purpose text NOT NULL,
  mime_type text,
  blob text NOT NULL
);
CREATE INDEX ON files (project_id, seq);
CREATE INDEX ON files (expires_at) WHERE expires_at IS NOT NULL;

CREATE TABLE uploads (
  id text PRIMARY KEY,
  project_id text NOT NULL REFERENCES projects ON DELETE CASCADE,
  created_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz NOT NULL,
  filename text NOT NULL,
  bytes bigint NOT NULL,
  purpose text NOT NULL,
  mime_type text NOT NULL,
  status text NOT NULL,
  file_expires_after_s integer,
  file_id text REFERENCES files ON DELETE SET NULL,
  -- What it was completed with, so that the same request sent again has the same answer.
  part_ids jsonb,
  md5 text
);
CREATE INDEX ON uploads (expires_at) WHERE status = 'pending';
CREATE INDEX ON uploads (file_id) WHERE file_id IS NOT NULL;

CREATE TABLE upload_parts (
  id text PRIMARY KEY,
  upload_id text NOT NULL REFERENCES uploads ON DELETE CASCADE,
  created_at timestamptz NOT NULL DEFAULT now(),
  bytes bigint NOT NULL,
  blob text NOT NULL
);
CREATE INDEX ON upload_parts (upload_id);

-- Keys of bytes that no row names: whoever writes them promises to be heard again before the time given; without one
-- nobody wants them any more.
CREATE TABLE loose_blobs (
  blob text PRIMARY KEY,
  written_until timestamptz
);
CREATE INDEX ON loose_blobs (written_until);
CREATE FUNCTION loosen_blob() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO loose_blobs (blob) VALUES (OLD.blob) ON CONFLICT DO NOTHING;
  RETURN NULL;
END $$;
CREATE TRIGGER files_loosen AFTER DELETE ON files FOR EACH ROW EXECUTE FUNCTION loosen_blob();
CREATE TRIGGER upload_parts_loosen AFTER DELETE ON upload_parts FOR EACH ROW EXECUTE FUNCTION loosen_blob();

-- Where the bytes are, in one row: a process that would look for them elsewhere must not start.
CREATE TABLE blob_place (
  singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
  id text NOT NULL,
  name text NOT NULL
);

CREATE TABLE vector_stores (
  id text PRIMARY KEY,
  project_id text NOT NULL REFERENCES projects ON DELETE CASCADE,
  seq bigint GENERATED ALWAYS AS IDENTITY,
  created_at timestamptz NOT NULL DEFAULT now(),
  name text,
  description text,
  metadata jsonb NOT NULL,
  expires_after_days integer,
  last_active_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON vector_stores (project_id, seq);

CREATE TABLE vector_store_files (
  vector_store_id text NOT NULL REFERENCES vector_stores ON DELETE CASCADE,
  file_id text NOT NULL REFERENCES files ON DELETE CASCADE,
  seq bigint GENERATED ALWAYS AS IDENTITY,
  created_at timestamptz NOT NULL DEFAULT now(),
  status text NOT NULL,
  attributes jsonb NOT NULL,
  chunking_strategy jsonb NOT NULL,
  PRIMARY KEY (vector_store_id, file_id)
);
CREATE INDEX ON vector_store_files (vector_store_id, seq);
CREATE INDEX ON vector_store_files (file_id);

-- What clients of assistants=v1 attached to their assistants.
CREATE TABLE assistant_files (
  assistant_id text NOT NULL REFERENCES assistants ON DELETE CASCADE,
  file_id text NOT NULL REFERENCES files ON DELETE CASCADE,
  seq bigint GENERATED ALWAYS AS IDENTITY,
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (assistant_id, file_id)
);
CREATE INDEX ON assistant_files (assistant_id, seq);
CREATE INDEX ON assistant_files (file_id);

-- The v1 files of the assistant when the run was made.
ALTER TABLE runs ADD COLUMN file_ids jsonb NOT NULL DEFAULT '[]';

-- For the deletion of a file, which takes it out of every list.
CREATE INDEX assistants_by_code_file ON assistants USING gin ((tool_resources -> 'code_interpreter' -> 'file_ids'))
  WHERE tool_resources ? 'code_interpreter';
CREATE INDEX threads_by_code_file ON threads USING gin ((tool_resources -> 'code_interpreter' -> 'file_ids'))
  WHERE tool_resources ? 'code_interpreter';
`
