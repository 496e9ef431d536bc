import type { Migrating } from './index.ts'

/**
 * Projects, keys, assistants, threads, messages, runs with all that belongs to them, the event log, the outbox.
 *
 * Lists are read by (parent, seq): `seq` is an identity column, since objects of one request share their second. What the
 * wire defines is jsonb, checked at the edge; statuses are text, guarded by `wire/run-status.ts`.
 */
export const name = '0001-runs'

export async function up({ context }: { context: Migrating }): Promise<void> {
  await context.query(schema)
  await context.query(appendRunEvents)
}

export async function down({ context }: { context: Migrating }): Promise<void> {
  await context.query(`
    DROP FUNCTION append_run_events;
    DROP TABLE idempotency_keys, usage, outbox, run_events, run_streams, tool_calls, run_steps, run_turns,
      messages, runs, threads, assistants, api_keys, projects`)
}

const schema = `
CREATE TABLE projects (
  id text PRIMARY KEY,
  name text NOT NULL UNIQUE,
  created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE api_keys (
  id text PRIMARY KEY,
  project_id text NOT NULL REFERENCES projects ON DELETE CASCADE,
  hash bytea NOT NULL UNIQUE,
  tail text NOT NULL,
  name text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  revoked_at timestamptz
);

CREATE TABLE assistants (
  id text PRIMARY KEY,
  project_id text NOT NULL REFERENCES projects ON DELETE CASCADE,
  seq bigint GENERATED ALWAYS AS IDENTITY,
  created_at timestamptz NOT NULL DEFAULT now(),
  name text,
  description text,
  model text NOT NULL,
  instructions text,
  tools jsonb NOT NULL,
  tool_resources jsonb NOT NULL,
  metadata jsonb NOT NULL,
  temperature double precision,
  top_p double precision,
  reasoning_effort text,
  response_format jsonb NOT NULL
);
CREATE INDEX ON assistants (project_id, seq);

CREATE TABLE threads (
  id text PRIMARY KEY,
  project_id text NOT NULL REFERENCES projects ON DELETE CASCADE,
  created_at timestamptz NOT NULL DEFAULT now(),
  tool_resources jsonb NOT NULL,
  metadata jsonb NOT NULL
);
CREATE INDEX ON threads (project_id, created_at);

-- Runs outlive their assistant, so assistant_id is no foreign key.
CREATE TABLE runs (
  id text PRIMARY KEY,
  project_id text NOT NULL REFERENCES projects ON DELETE CASCADE,
  thread_id text NOT NULL REFERENCES threads ON DELETE CASCADE,
  assistant_id text NOT NULL,
  seq bigint GENERATED ALWAYS AS IDENTITY,
  status text NOT NULL,
  holds_lock boolean NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  started_at timestamptz,
  expires_at timestamptz NOT NULL,
  cancelled_at timestamptz,
  failed_at timestamptz,
  completed_at timestamptz,
  required_action jsonb,
  last_error jsonb,
  incomplete_reason text,
  model text NOT NULL,
  instructions text,
  tools jsonb NOT NULL,
  tool_resources jsonb NOT NULL,
  metadata jsonb NOT NULL,
  usage jsonb,
  temperature double precision,
  top_p double precision,
  reasoning_effort text,
  response_format jsonb NOT NULL,
  max_prompt_tokens integer,
  max_completion_tokens integer,
  truncation_strategy jsonb NOT NULL,
  tool_choice jsonb NOT NULL,
  parallel_tool_calls boolean NOT NULL
);
CREATE INDEX ON runs (thread_id, seq);
CREATE UNIQUE INDEX one_run_holds_the_lock ON runs (thread_id) WHERE holds_lock;
CREATE INDEX runs_open ON runs (expires_at)
  WHERE status IN ('queued', 'in_progress', 'requires_action', 'cancelling');

CREATE TABLE messages (
  id text PRIMARY KEY,
  project_id text NOT NULL,
  thread_id text NOT NULL REFERENCES threads ON DELETE CASCADE,
  seq bigint GENERATED ALWAYS AS IDENTITY,
  created_at timestamptz NOT NULL DEFAULT now(),
  role text NOT NULL,
  status text NOT NULL,
  content jsonb NOT NULL,
  attachments jsonb NOT NULL,
  metadata jsonb NOT NULL,
  assistant_id text,
  run_id text,
  turn integer,
  completed_at timestamptz,
  incomplete_at timestamptz,
  incomplete_reason text,
  superseded boolean NOT NULL DEFAULT false
);
CREATE INDEX ON messages (thread_id, seq);
CREATE INDEX ON messages (run_id, seq) WHERE run_id IS NOT NULL;

CREATE TABLE run_turns (
  run_id text NOT NULL REFERENCES runs ON DELETE CASCADE,
  turn integer NOT NULL,
  generation integer NOT NULL DEFAULT 0,
  generation_id uuid NOT NULL,
  fence integer NOT NULL DEFAULT 1,
  emitted boolean NOT NULL DEFAULT false,
  result jsonb,
  failure jsonb,
  PRIMARY KEY (run_id, turn)
) WITH (fillfactor = 70);

CREATE TABLE run_steps (
  id text PRIMARY KEY,
  project_id text NOT NULL,
  thread_id text NOT NULL,
  run_id text NOT NULL REFERENCES runs ON DELETE CASCADE,
  assistant_id text NOT NULL,
  seq bigint GENERATED ALWAYS AS IDENTITY,
  turn integer NOT NULL,
  type text NOT NULL,
  status text NOT NULL,
  message_id text,
  created_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz NOT NULL,
  expired_at timestamptz,
  cancelled_at timestamptz,
  failed_at timestamptz,
  completed_at timestamptz,
  last_error jsonb,
  usage jsonb,
  superseded boolean NOT NULL DEFAULT false
);
CREATE INDEX ON run_steps (run_id, seq);

CREATE TABLE tool_calls (
  id text PRIMARY KEY,
  run_id text NOT NULL,
  step_id text NOT NULL REFERENCES run_steps ON DELETE CASCADE,
  turn integer NOT NULL,
  idx integer NOT NULL,
  type text NOT NULL,
  name text NOT NULL,
  arguments text NOT NULL,
  output text,
  outputs jsonb NOT NULL DEFAULT '[]',
  runs_on text NOT NULL,
  fence integer NOT NULL DEFAULT 0,
  UNIQUE (step_id, idx)
);
CREATE INDEX ON tool_calls (run_id);

-- The row of a run here is also the run's lock: whoever changes the run takes it first.
CREATE TABLE run_streams (
  run_id text PRIMARY KEY REFERENCES runs ON DELETE CASCADE,
  last_seq integer NOT NULL DEFAULT 0,
  closed_at timestamptz
) WITH (fillfactor = 50);

CREATE TABLE run_events (
  run_id text NOT NULL REFERENCES run_streams ON DELETE CASCADE,
  seq integer NOT NULL,
  event text NOT NULL,
  data text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (run_id, seq)
);

-- Commands for Temporal that commit with the rows they belong to. They outlive their run: its workflow must hear of that.
CREATE TABLE outbox (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  run_id text NOT NULL,
  command jsonb NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX ON outbox (run_id);

CREATE TABLE usage (
  run_id text NOT NULL,
  turn integer NOT NULL,
  generation integer NOT NULL,
  project_id text NOT NULL REFERENCES projects ON DELETE CASCADE,
  thread_id text NOT NULL,
  assistant_id text NOT NULL,
  model text NOT NULL,
  prompt_tokens integer NOT NULL,
  completion_tokens integer NOT NULL,
  cached_tokens integer NOT NULL,
  reasoning_tokens integer NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (run_id, turn, generation)
);
CREATE INDEX ON usage (project_id, created_at);

CREATE TABLE idempotency_keys (
  project_id text NOT NULL REFERENCES projects ON DELETE CASCADE,
  key text NOT NULL,
  request_hash bytea NOT NULL,
  status integer,
  body text,
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (project_id, key)
);
`

/**
 * Appends events to the logs of one or many runs, allocates their numbers and tells the listeners, in one round trip.
 *
 * A function, because each of its statements has a snapshot of its own: the fence is read after the lock is held, so an
 * attempt that was replaced while it waited for the lock writes nothing. Locks are taken in the order of run ids. Rows
 * whose run is closed or gone, or whose fence (where a turn is given) is old, are left out of the result: that is how a
 * writer learns that it was replaced. With `p_close` these are the last events of their runs. `origin` is the process that need not be told.
 */
const appendRunEvents = `
CREATE FUNCTION append_run_events(
  origin text, p_runs text[], p_turns integer[], p_fences integer[], p_events text[], p_datas text[],
  p_close boolean
) RETURNS TABLE (ord integer, seq integer) LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
  PERFORM 1 FROM run_streams s WHERE s.run_id = ANY (p_runs) ORDER BY s.run_id FOR UPDATE;
  RETURN QUERY
  WITH input AS (
    SELECT * FROM unnest(p_runs, p_turns, p_fences, p_events, p_datas)
      WITH ORDINALITY AS i (run_id, turn, fence, event, data, ord)
  ), allowed AS (
    SELECT i.*, s.last_seq FROM input i
    JOIN run_streams s ON s.run_id = i.run_id AND s.closed_at IS NULL
    LEFT JOIN run_turns t ON t.run_id = i.run_id AND t.turn = i.turn
    WHERE i.turn IS NULL OR t.fence = i.fence
  ), counted AS (
    UPDATE run_streams s SET last_seq = s.last_seq + c.n, closed_at = CASE WHEN p_close THEN now() END
    FROM (SELECT run_id, count(*)::integer AS n FROM allowed GROUP BY run_id) c
    WHERE s.run_id = c.run_id
  ), numbered AS (
    -- From what was read under the lock: a join with what is returned by the update would look through all for each.
    SELECT a.ord::integer AS ord, a.run_id, a.event, a.data,
      (a.last_seq + row_number() OVER (PARTITION BY a.run_id ORDER BY a.ord))::integer AS seq
    FROM allowed a
  ), inserted AS (
    INSERT INTO run_events (run_id, seq, event, data) SELECT run_id, seq, event, data FROM numbered
  ), entries AS (
    -- A payload of NOTIFY holds less than 8,000 bytes: what is long is left to be read from the table.
    SELECT ord, CASE WHEN octet_length(to_json(data)::text) < 2500
      THEN json_build_array(run_id, seq, event, data) ELSE json_build_array(run_id, seq) END AS entry
    FROM numbered
  ), payloads AS (
    SELECT part, json_build_array(origin, json_agg(entry ORDER BY ord))::text AS payload
    FROM (SELECT *, (sum(octet_length(entry::text)) OVER (ORDER BY ord) / 5000)::integer AS part FROM entries) e
    GROUP BY part ORDER BY part
  ), told AS (
    SELECT count(pg_notify('run_events', payload)::text) AS count FROM payloads
  )
  -- Asked for in a condition, or the planner would leave the notifications out.
  SELECT n.ord, n.seq FROM numbered n, told t WHERE t.count >= 0 ORDER BY n.ord;
END $$`
