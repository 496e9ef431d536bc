import type { RunStatus } from '../wire/run-status.ts'
import type { Db } from './db.ts'
import { isAlive } from './sandboxes.ts'
import type { AttemptFailure, OutboxCommand, RunRow, TurnResult } from './rows.ts'

/** A run and all that tells what it is doing: one moment of the database. */
export interface Inspection {
  run: RunRow
  /** When the run came into its status; null where no event says so. */
  statusSince: Date | null
  /** The newest of its model turns; null before the first was begun. */
  turn: InspectedTurn | null
  /** The oldest of the commands that Temporal has not taken yet. */
  command: { kind: OutboxCommand['kind']; since: Date } | null
  /** Calls of the newest turn that this server has to carry out yet; `attempt` is 0 before the first. */
  openCalls: { id: string; name: string; attempt: number }[]
  /** When the newest turn asked for them. */
  openCallsSince: Date | null
  /** How far the sandbox is that code waits for, where it is still being set up. */
  sandboxProgress: string | null
  /** Set while it waits for its thread: 1 is the next. */
  queuePosition: number | null
  /** The run right before it in the queue, or the one that has the thread. */
  before: { id: RunRow['id']; status: RunStatus } | null
}

export interface InspectedTurn {
  /** 0 for the first. */
  number: number
  /** How often it has been begun. */
  attempt: number
  model: string
  /** Whether the current attempt has shown something to clients. */
  isWriting: boolean
  result: TurnResult['kind'] | null
  begunAt: Date | null
  /** The last failure of an attempt, by this model or the one before: of the current one, should it be later than `begunAt`. */
  failure: AttemptFailure | null
  failedAt: Date | null
}

export interface Inspections {
  /** Undefined when the run is gone. */
  of(runId: string): Promise<Inspection | undefined>
}

export function createInspection(db: Db): Inspections {
  return {
    async of(runId) {
      const [found] = await db.sql<RunRow & Found>(statement, [runId])
      return found && inspectionOf(found)
    },
  }
}

/** Conditions on the run itself are inside of the parts: a run that they do not concern then costs no look at them. */
const statement = `
SELECT r.*, e.status_since, o.command_kind, o.command_since, c.open_calls, c.open_calls_since, p.sandbox_progress, q.queue_position,
  b.before_id, b.before_status, t.*
FROM runs r
LEFT JOIN LATERAL (
  SELECT turn, fence AS attempt, model AS asked_model, emitted AS is_writing, result ->> 'kind' AS turn_result,
    begun_at, coalesce(failure, failed_models -> -1) AS failure, failed_at AS turn_failed_at
  FROM run_turns WHERE run_id = r.id ORDER BY run_turns.turn DESC LIMIT 1
) t ON true
LEFT JOIN LATERAL (
  SELECT created_at AS status_since FROM run_events
  WHERE r.status IN ('queued', 'requires_action', 'cancelling') AND run_id = r.id
    AND event = 'thread.run.' || r.status
  ORDER BY seq DESC LIMIT 1
) e ON true
LEFT JOIN LATERAL (
  SELECT command ->> 'kind' AS command_kind, created_at AS command_since FROM outbox
  WHERE run_id = r.id ORDER BY id LIMIT 1
) o ON true
LEFT JOIN LATERAL (
  SELECT jsonb_agg(jsonb_build_object('id', tc.id, 'name', tc.name, 'attempt', tc.fence, 'begun', tc.begun IS NOT NULL) ORDER BY tc.idx) AS open_calls,
    min(s.created_at) AS open_calls_since
  FROM tool_calls tc JOIN run_steps s ON s.id = tc.step_id
  WHERE r.status = 'in_progress' AND tc.run_id = r.id AND tc.turn = t.turn AND tc.runs_on = 'server'
    AND tc.output IS NULL
) c ON true
LEFT JOIN LATERAL (
  SELECT state ->> 'progress' AS sandbox_progress FROM sandbox_hosts
  WHERE jsonb_path_exists(c.open_calls, '$[*] ? (@.name == "code_interpreter" && @.begun == false)')
    AND ${isAlive}
  ORDER BY state ->> 'kind' = 'ready' DESC, state ->> 'kind' = 'building' DESC LIMIT 1
) p ON true
LEFT JOIN LATERAL (
  SELECT nullif(count(*), 0)::integer AS queue_position FROM runs w
  WHERE r.status = 'queued' AND NOT r.holds_lock
    AND w.thread_id = r.thread_id AND w.status = 'queued' AND NOT w.holds_lock AND w.seq <= r.seq
) q ON true
LEFT JOIN LATERAL (
  SELECT w.id AS before_id, w.status AS before_status FROM runs w
  WHERE r.status = 'queued' AND NOT r.holds_lock
    AND w.thread_id = r.thread_id AND (w.holds_lock OR (w.status = 'queued' AND w.seq < r.seq))
  ORDER BY w.holds_lock, w.seq DESC LIMIT 1
) b ON true
WHERE r.id = $1`

interface Found {
  status_since: Date | null
  command_kind: OutboxCommand['kind'] | null
  command_since: Date | null
  open_calls: Inspection['openCalls'] | null
  open_calls_since: Date | null
  sandbox_progress: string | null
  queue_position: number | null
  before_id: RunRow['id'] | null
  before_status: RunStatus | null
  turn: number | null
  attempt: number | null
  asked_model: string | null
  is_writing: boolean | null
  turn_result: TurnResult['kind'] | null
  begun_at: Date | null
  failure: AttemptFailure | null
  turn_failed_at: Date | null
}

function inspectionOf(found: RunRow & Found): Inspection {
  const {
    status_since: statusSince,
    command_kind,
    command_since,
    open_calls,
    open_calls_since: openCallsSince,
    sandbox_progress: sandboxProgress,
    queue_position: queuePosition,
    before_id,
    before_status,
    turn,
    attempt,
    asked_model,
    is_writing,
    turn_result: result,
    begun_at: begunAt,
    failure,
    turn_failed_at: failedAt,
    ...run
  } = found
  return {
    run,
    statusSince,
    turn:
      turn === null
        ? null
        : {
            number: turn,
            attempt: attempt ?? 1,
            model: asked_model ?? run.model,
            isWriting: is_writing ?? false,
            result,
            begunAt,
            failure,
            failedAt,
          },
    command: command_kind && command_since && { kind: command_kind, since: command_since },
    openCalls: open_calls ?? [],
    openCallsSince,
    sandboxProgress,
    queuePosition,
    before: before_id && before_status && { id: before_id, status: before_status },
  }
}
