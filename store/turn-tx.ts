import type { RunEvent } from '../wire/events.ts'
import { isTerminal } from '../wire/run-status.ts'
import { isConnectionError, type Db, type Tx } from './db.ts'
import { FencedError, type TurnDeltas } from './delta-writer.ts'
import type { EventLog } from './events.ts'
import type { ModelCall, RunRow, RunStepRow, TurnResult, TurnRow } from './rows.ts'

/** How long a Postgres that went away is waited for before the turn is given up, to be attempted again later. */
const outageMs = 30_000

export interface Parts {
  db: Db
  events: EventLog
}

export interface FencedTurn extends Parts {
  run: RunRow
  row: TurnRow
  deltas: TurnDeltas
}

/** A change that clients see: from now on a repetition must use new ids, and the call is counted whatever becomes of it. */
export async function structural(
  turn: FencedTurn,
  stepId: RunStepRow['id'],
  call: ModelCall,
  work: (tx: Tx) => Promise<RunEvent[]>,
): Promise<void> {
  await inTurn(turn, async ({ tx, current, emitted, pending, retried }) => {
    if (isTerminal(current.status)) throw new FencedError(current.id)
    if (retried) {
      const [step] = await tx.sql('SELECT id FROM run_steps WHERE id = $1', [stepId])
      if (step) return
    }
    const events = await work(tx)
    if (!emitted) {
      await tx.sql(
        'UPDATE run_turns SET emitted = true, call = $3 WHERE run_id = $1 AND turn = $2',
        [turn.run.id, turn.row.turn, JSON.stringify(call)],
      )
    }
    await append(turn, tx, [...pending, ...events])
  })
}

/** Among these may be deltas: the writer must know that they are in the log, should it have to look for its own. */
export async function append(
  turn: FencedTurn,
  tx: Tx,
  events: RunEvent[],
  options?: { last: boolean },
): Promise<void> {
  const seq = await turn.events.append(tx, turn.run.id, events, options)
  tx.afterCommit(() => turn.deltas.advance(seq))
}

/** A transaction that gives the turn its result; one whose commit went through unheard is not made again. */
export async function ending(
  turn: FencedTurn,
  work: (tx: Tx, current: RunRow, pending: RunEvent[]) => Promise<TurnResult>,
): Promise<TurnResult> {
  return inTurn(turn, async ({ tx, current, result: kept, pending }) => {
    if (kept) return kept
    if (isTerminal(current.status)) throw new FencedError(current.id)
    const result = await work(tx, current, pending)
    await tx.sql('UPDATE run_turns SET result = $3 WHERE run_id = $1 AND turn = $2', [
      current.id,
      turn.row.turn,
      JSON.stringify(result),
    ])
    return result
  })
}

interface TurnTx {
  tx: Tx
  current: RunRow
  emitted: boolean
  result: TurnResult | null
  /** What the writer still held of this turn; it comes before whatever this transaction appends. */
  pending: RunEvent[]
  /** Whether an earlier try lost its connection and may have been committed all the same. */
  retried: boolean
}

/** A transaction of this attempt: with the run's lock, and the fence checked. */
async function inTurn<T>(turn: FencedTurn, work: (given: TurnTx) => Promise<T>): Promise<T> {
  const pending = await turn.deltas.take()
  return outlasting(turn.events, turn.run.id, (retried) =>
    turn.db.tx(async (tx) => {
      const [held] = await tx.sql<
        RunRow & Pick<TurnRow, 'fence' | 'emitted' | 'result'> & { last_seq: number }
      >(
        `SELECT r.*, t.fence, t.emitted, t.result, s.last_seq FROM run_streams s
         JOIN runs r ON r.id = s.run_id JOIN run_turns t ON t.run_id = s.run_id
         WHERE s.run_id = $1 AND t.turn = $2 FOR NO KEY UPDATE OF s, r, t`,
        [turn.run.id, turn.row.turn],
      )
      if (held?.fence !== turn.deltas.fence) throw new FencedError(turn.run.id)
      const { fence: _, emitted, result, last_seq, ...current } = held
      // What an earlier try committed unheard, with deltas in it, must not pass for what the writer writes next.
      turn.deltas.advance(last_seq)
      return work({ tx, current, emitted, result, pending, retried })
    }),
  )
}

/**
 * Repeats what a restarting Postgres broke, of one run. `retried`: an earlier try may have been committed all the same; then
 * nobody in this process was told of what it appended.
 */
export async function outlasting<T>(
  events: EventLog,
  runId: string,
  work: (retried: boolean) => Promise<T>,
): Promise<T> {
  const deadline = performance.now() + outageMs
  for (let retried = false; ; retried = true) {
    try {
      const done = await work(retried)
      if (retried) events.doubt(runId)
      return done
    } catch (error) {
      if (!isConnectionError(error) || performance.now() > deadline) throw error
      await new Promise((resolve) => setTimeout(resolve, 250))
    }
  }
}
