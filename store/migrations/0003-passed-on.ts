import type { Migrating } from './index.ts'

/**
 * What is known of requests that are passed on to the endpoints of models: what each used, and which objects they left
 * there. Token counts are null where the endpoint did not tell them.
 */
export const name = '0003-passed-on'

export async function up({ context }: { context: Migrating }): Promise<void> {
  await context.query(schema)
}

export async function down({ context }: { context: Migrating }): Promise<void> {
  await context.query('DROP TABLE passed_usage, passed_objects')
}

const schema = `
CREATE TABLE passed_usage (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  project_id text NOT NULL REFERENCES projects ON DELETE CASCADE,
  endpoint text NOT NULL,
  model text,
  object_id text,
  prompt_tokens integer,
  completion_tokens integer,
  cached_tokens integer,
  reasoning_tokens integer,
  created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON passed_usage (project_id, created_at);
-- Answers that were still being made when they were first passed on.
CREATE INDEX passed_usage_open ON passed_usage (object_id)
  WHERE object_id IS NOT NULL AND prompt_tokens IS NULL;

-- Objects stay with the endpoint that made them; the row says which model was asked for, and so where that is.
CREATE TABLE passed_objects (
  project_id text NOT NULL REFERENCES projects ON DELETE CASCADE,
  id text NOT NULL,
  seq bigint GENERATED ALWAYS AS IDENTITY,
  kind text NOT NULL,
  model text,
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (project_id, id)
);
CREATE INDEX ON passed_objects (project_id, kind, seq);
`
