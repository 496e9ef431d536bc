import type { Db } from './db.ts'
import type { FileRow, MessageRow, RunContext, RunRow, ToolCallRow } from './rows.ts'
import { lockRun } from './run-state.ts'
import type { ClaimedTurn } from './turns.ts'

/** What a prompt is made of, read in pages: a thread may have any length. */
export interface ContextStore {
  /** The newest messages of a thread, oldest first, or those before a `seq`; up to `limit` of them, fewer where they are long. */
  newest(view: ThreadView, limit: number, before?: string): Promise<ThreadPage>
  /** The oldest of the messages that the run may see: one page, always the same one. */
  oldest(view: ThreadView, last: number | null): Promise<ThreadMessage[]>
  /** What the run itself has written and called so far, in order. */
  own(runId: string): Promise<{ messages: OwnMessage[]; calls: ToolCallRow[] }>
  /** The cut that an earlier run of the thread has left, if one of the last few did. */
  cutBefore(run: Pick<RunRow, 'thread_id' | 'seq'>): Promise<RunContext | undefined>
  /**
   * Keeps with the run what its prompts leave out; the messages among it are counted here. An attempt at a turn that was
   * replaced keeps nothing.
   */
  keepCut(view: ThreadView, attempt: Attempt, cut: NewCut): Promise<void>
  /** The files of a project that are there, in no order. */
  files(projectId: string, ids: string[]): Promise<FileRow[]>
}

/** A thread as a run sees it: without what the run has written itself. */
export interface ThreadView {
  threadId: string
  runId: string
}

export type ThreadMessage = Pick<MessageRow, 'id' | 'seq' | 'role' | 'content'>
export type OwnMessage = Pick<MessageRow, 'turn' | 'content'>

export interface ThreadPage {
  messages: ThreadMessage[]
  /** Whether no message is older than these. */
  isLast: boolean
}

export type Attempt = Pick<ClaimedTurn, 'number' | 'fence'>

export interface NewCut extends Omit<RunContext, Counted> {
  /** How many messages the head has. */
  headMessages: number
}

type Counted = 'dropped_messages' | 'messages_before' | 'counted_at'

/** Of those that are written or held back while the run is at work, and of attempts that were begun anew, it sees none. */
const visible = `thread_id = $1 AND run_id IS DISTINCT FROM $2
  AND NOT superseded AND NOT held AND status <> 'in_progress'`

/** Compressed bytes after which a page ends: messages may have megabytes each. */
const pageBytes = 1024 * 1024
/** Any head of a thread is part of one page. */
const headLimit = 200
const afterAll = '9223372036854775807'

export function createContext(db: Db): ContextStore {
  return {
    async newest({ threadId, runId }, limit, before = afterAll) {
      const rows = await db.sql<ThreadMessage & { found: number }>(
        page(`${visible} AND seq < $3`, 'DESC', 4),
        [threadId, runId, before, limit],
      )
      const found = rows[0]?.found ?? 0
      return {
        messages: rows.map(withoutCount).toReversed(),
        isLast: found <= limit && rows.length === found,
      }
    },
    async oldest({ threadId, runId }, last) {
      // The first of the newest `last`; where there are not as many, the first of all.
      const from = `(SELECT coalesce(min(seq), 0) FROM (
        SELECT seq FROM messages WHERE ${visible} ORDER BY seq DESC LIMIT $3) newest)`
      const rows = await db.sql<ThreadMessage & { found: number }>(
        last === null ? page(visible, 'ASC', 3) : page(`${visible} AND seq >= ${from}`, 'ASC', 4),
        [threadId, runId, ...(last === null ? [] : [last]), headLimit],
      )
      return rows.map(withoutCount)
    },
    async own(runId) {
      const [messages, calls] = await Promise.all([
        db.sql<OwnMessage>(
          `SELECT turn, content FROM messages
           WHERE run_id = $1 AND NOT superseded AND status <> 'in_progress' ORDER BY seq`,
          [runId],
        ),
        db.sql<ToolCallRow>(
          `SELECT c.* FROM tool_calls c JOIN run_steps s ON s.id = c.step_id
           WHERE c.run_id = $1 AND NOT s.superseded ORDER BY c.turn, c.idx`,
          [runId],
        ),
      ])
      return { messages, calls }
    },
    async cutBefore({ thread_id, seq }) {
      // One that asked for its newest messages alone has left a cut of another kind.
      const [row] = await db.sql<{ context: RunContext }>(
        `SELECT context FROM (
           SELECT context, truncation_strategy, seq FROM runs
           WHERE thread_id = $1 AND seq < $2 ORDER BY seq DESC LIMIT 8) recent
         WHERE context IS NOT NULL AND truncation_strategy ->> 'type' = 'auto'
         ORDER BY seq DESC LIMIT 1`,
        [thread_id, seq],
      )
      return row?.context
    },
    async keepCut({ threadId, runId }, attempt, { headMessages, ...cut }) {
      // Before the run is locked: the first count of a long thread takes a while.
      const [counted] = await db.sql<Pick<RunContext, 'messages_before' | 'counted_at'>>(
        messagesBefore,
        [threadId, runId, cut.tail_from ?? '0'],
      )
      if (!counted) throw new Error('The messages of a thread could not be counted')
      const dropped_messages = Math.max(0, counted.messages_before - headMessages)
      const context: RunContext = { ...cut, ...counted, dropped_messages }
      await db.tx(async (tx) => {
        // The fence is read by a statement of its own: in one with the lock it would be that of before the wait.
        await lockRun(tx, runId)
        await tx.sql(
          `UPDATE runs SET context = $4 WHERE id = $1 AND EXISTS (
             SELECT FROM run_turns WHERE run_id = $1 AND turn = $2 AND fence = $3)`,
          [runId, attempt.number, attempt.fence, JSON.stringify(context)],
        )
      })
    },
    files: (projectId, ids) =>
      db.sql<FileRow>(
        `SELECT * FROM files WHERE id = ANY ($2::text[]) AND project_id = $1
           AND (expires_at IS NULL OR expires_at > now())`,
        [projectId, ids],
      ),
  }
}

/**
 * How many messages a thread has before a `seq`: from the number that an earlier prompt of the thread has left, so that only
 * what lies between the two places is counted. Before that place nothing ever comes in: messages that are written, imported
 * or let go stand at the end of the thread, and those that are held or superseded are never in the number. So it is off only
 * by messages that were deleted, which are looked up among those that are `gone`, while they are remembered there; a
 * deletion that commits in the moment of the count is missed, until a day without a run has the thread counted anew.
 */
const messagesBefore = `
  WITH recent AS (
    SELECT context, seq FROM runs
    WHERE thread_id = $1 AND seq <= (SELECT seq FROM runs WHERE id = $2) ORDER BY seq DESC LIMIT 8
  ), basis AS (
    SELECT (context ->> 'tail_from')::bigint AS seq, (context ->> 'messages_before')::int AS messages,
      (context ->> 'counted_at')::timestamptz AS counted_at
    FROM recent
    WHERE context ->> 'tail_from' IS NOT NULL
      AND (context ->> 'counted_at')::timestamptz > now() - interval '20 hours'
    ORDER BY recent.seq DESC LIMIT 1
  )
  SELECT to_json(now()) #>> '{}' AS counted_at, coalesce(
    (SELECT b.messages
       + (SELECT count(*) FROM messages WHERE ${visible} AND seq >= b.seq AND seq < $3::bigint)
       - (SELECT count(*) FROM messages WHERE ${visible} AND seq >= $3::bigint AND seq < b.seq)
       - (SELECT count(*) FROM gone
          WHERE list = 'messages ' || $1 AND gone.seq < b.seq AND created_at >= b.counted_at)
     FROM basis b),
    (SELECT count(*) FROM messages WHERE ${visible} AND seq < $3::bigint))::int AS messages_before`

/**
 * Rows up to `$limit` and to `pageBytes`, at least one, and how many there are up to one more than the limit. Sizes are
 * those of the rows as they lie in the table, so that what is not read is not unpacked.
 */
function page(condition: string, order: 'ASC' | 'DESC', limit: number): string {
  return `SELECT id, seq, role, content, found FROM (
      SELECT *, count(*) OVER ()::int AS found, row_number() OVER (ORDER BY seq ${order}) AS n,
        sum(size) OVER (ORDER BY seq ${order} ROWS UNBOUNDED PRECEDING) - size AS before
      FROM (SELECT id, seq, role, content, pg_column_size(content) AS size FROM messages
        WHERE ${condition} ORDER BY seq ${order} LIMIT $${limit}::int + 1) rows) sized
    WHERE n <= $${limit}::int AND before < ${pageBytes} ORDER BY n`
}

function withoutCount({ id, seq, role, content }: ThreadMessage): ThreadMessage {
  return { id, seq, role, content }
}
