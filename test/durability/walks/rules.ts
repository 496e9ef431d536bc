import { expect } from 'vitest'

import type { StoredEvent } from '../../../wire/events.ts'
import { isTerminal, mayBecome, type RunStatus } from '../../../wire/run-status.ts'
import { checkEvents } from '../../support/event-stream.ts'

/** Asks the database of the server under test. */
export type Ask = <Row extends object>(text: string, values?: unknown[]) => Promise<Row[]>

/**
 * What is true at every moment, however many commands are under way: each statement sees one moment, and finds what
 * breaks its rule.
 */
const alwaysNone: Record<string, string> = {
  'more than one run holds the lock':
    'SELECT thread_id FROM runs WHERE holds_lock AND thread_id = $1 GROUP BY thread_id HAVING count(*) > 1',
  'a run that is over holds the lock': `SELECT id, status FROM runs WHERE thread_id = $1 AND holds_lock AND ${terminal()}`,
  'a run is at work without the lock': `SELECT id, status FROM runs WHERE thread_id = $1 AND NOT holds_lock
     AND status IN ('in_progress', 'requires_action', 'cancelling')`,
  'a run waits although nobody holds the lock': `SELECT id FROM runs r WHERE thread_id = $1 AND status = 'queued'
     AND NOT EXISTS (SELECT FROM runs h WHERE h.thread_id = r.thread_id AND h.holds_lock)`,
  'an action is asked for in the wrong status': `SELECT id, status FROM runs WHERE thread_id = $1
     AND (status = 'requires_action') <> (required_action IS NOT NULL)`,
  'a step is open although its run is over': `SELECT s.id, s.status FROM run_steps s JOIN runs r ON r.id = s.run_id
     WHERE r.thread_id = $1 AND s.status = 'in_progress' AND ${terminal('r.')}`,
  'a message is open although its run is over': `SELECT m.id, m.status FROM messages m JOIN runs r ON r.id = m.run_id
     WHERE r.thread_id = $1 AND m.status = 'in_progress' AND ${terminal('r.')}`,
  'the log says another status than the run has': `SELECT r.id, r.status, e.event FROM runs r, LATERAL (
       SELECT event FROM run_events WHERE run_id = r.id AND event LIKE 'thread.run.%'
         AND event NOT LIKE 'thread.run.step.%' ORDER BY seq DESC LIMIT 1) e
     WHERE r.thread_id = $1 AND e.event <> 'thread.run.' || r.status`,
  'the log has a gap': `SELECT run_id, count(*), max(seq) FROM run_events
     WHERE run_id IN (SELECT id FROM runs WHERE thread_id = $1) GROUP BY run_id
     HAVING min(seq) <> 1 OR max(seq) <> count(*)`,
  'the usage of a run is not that of its calls': `SELECT r.id, r.status, r.usage, u.* FROM runs r, LATERAL (
       SELECT coalesce(sum(prompt_tokens), 0) AS prompt, coalesce(sum(completion_tokens), 0) AS completion
       FROM usage WHERE run_id = r.id) u
     WHERE r.thread_id = $1 AND ${terminal('r.')} AND
       ((r.usage ->> 'prompt_tokens')::bigint, (r.usage ->> 'completion_tokens')::bigint,
        (r.usage ->> 'total_tokens')::bigint) IS DISTINCT FROM (u.prompt, u.completion, u.prompt + u.completion)`,
}

function terminal(of = ''): string {
  return `${of}status IN ('completed', 'incomplete', 'failed', 'cancelled', 'expired')`
}

/** Throws with the rule that is broken, and by what. */
export async function checkThread(ask: Ask, threadId: string): Promise<void> {
  for (const [what, text] of Object.entries(alwaysNone)) {
    expect(await ask(text, [threadId]), `Broken: ${what}`).toEqual([])
  }
}

/** The whole log of a run that is over. */
export async function checkLog(ask: Ask, runId: string): Promise<void> {
  const log = await ask<StoredEvent>(
    'SELECT seq, event, data FROM run_events WHERE run_id = $1 ORDER BY seq',
    [runId],
  )
  const names = log.map(({ event }) => event)
  expect(names.filter((name) => name !== 'thread.created')[0]).toBe('thread.run.created')
  expect(log.map(({ seq }) => seq)).toEqual(log.map((_, index) => index + 1))

  const statuses = statusesIn(log)
  for (const [index, next] of statuses.entries()) {
    const before = statuses[index - 1]
    if (before) expect(mayBecome(next), `${before} -> ${next}`).toContain(before)
  }
  expect(statuses.filter(isTerminal)).toHaveLength(1)
  expect(names.at(-1)).toBe(`thread.run.${statuses.at(-1)}`)
  for (const [index, part] of partsOf(log).entries()) {
    await checkEvents(part, { continues: index > 0 })
  }
}

function statusesIn(log: StoredEvent[]): RunStatus[] {
  return log
    .map(({ event }) => /^thread\.run\.(\w+)$/.exec(event)?.[1])
    .filter((status) => status !== undefined && status !== 'created')
    .map((status) => status as RunStatus)
}

/** What the streams of the requests would have shown. What ends a run that waits for its client is in none of them. */
function partsOf(log: StoredEvent[]): { event: string; data: unknown }[][] {
  const parts: { event: string; data: unknown }[][] = [[]]
  for (const { event, data } of log) {
    parts.at(-1)?.push({ event, data: JSON.parse(data) as unknown })
    if (event === 'thread.run.requires_action') parts.push([])
  }
  const wasSubmitted = (part: { event: string }[]): boolean =>
    part.some(({ event }) => event === 'thread.run.queued')
  return parts.filter((part, index) => index === 0 || wasSubmitted(part))
}
