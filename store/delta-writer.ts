import type { Logger } from '../log.ts'
import { deltaEvent, mergeDeltas, type Delta } from '../wire/deltas.ts'
import type { RunEvent } from '../wire/events.ts'
import { isTerminal } from '../wire/run-status.ts'
import { isConnectionError, type Db, type Tx } from './db.ts'
import type { BatchEntry, EventLog } from './events.ts'
import type { TurnRow } from './rows.ts'
import { lockRun } from './run-state.ts'

/** Writes the deltas of all runs of this process, many runs in one statement. */
export interface DeltaWriter extends AsyncDisposable {
  open(turn: ClaimedRow): TurnDeltas
}

/** A turn as this attempt has claimed it. `lastSeq`: of the newest event in its run's log. */
type ClaimedRow = Pick<TurnRow, 'turn' | 'fence' | 'begun_at'> & { runId: string; lastSeq: number }

/** The deltas of one attempt at a model turn. */
export interface TurnDeltas extends Disposable {
  /** The number that this attempt's writes carry; a batch whose commit was not heard of raises it. */
  readonly fence: number
  push(delta: Delta): void
  /**
   * What has been pushed and not been written, once nothing of it is under way any more: the caller appends it with the
   * structural event that must come after it. Throws what `lost` aborts with.
   */
  take(): Promise<RunEvent[]>
  /** How far the log is known to be; told under the run's lock or after a commit, while nothing is under way here. */
  advance(seq: number): void
  /** Resolves once all that has been pushed is written, or the turn is lost. */
  written(): Promise<void>
  /** Aborts when another attempt has taken the turn over, or the run has ended or is gone. */
  lost: AbortSignal
}

/**
 * The time between two writes of one process: NOTIFY serialises commits, so it must not come per token. Where a write takes
 * long there is more to write than Postgres likes in small pieces: longer times put more tokens into one row.
 */
const leastIntervalMs = 15
const mostIntervalMs = 40
/** A statement for a thousand turns takes longer than four for a quarter of them, and all wait for it. */
const turnsAtOnce = 250
/** How long a database that went away is waited for before the turns give up, to be attempted again later. */
const outageMs = 30_000

export class FencedError extends Error {
  constructor(runId: string) {
    super(`Another attempt has taken over ${runId}, or it has ended`)
    this.name = 'FencedError'
  }
}

export function createDeltaWriter(db: Db, events: EventLog, log: Logger): DeltaWriter {
  const waiting = new Set<OpenTurn>()
  let lastFlush = 0
  let intervalMs = leastIntervalMs
  let timer: NodeJS.Timeout | NodeJS.Immediate | undefined
  let flushing: Promise<void> | undefined

  function schedule(): void {
    if (timer || flushing) return
    const wait = lastFlush + intervalMs - performance.now()
    // The leading edge goes out at once, but after the chunk that is being read has been pushed whole.
    timer = wait > 0 ? setTimeout(start, wait) : setImmediate(start)
  }

  function start(): void {
    unschedule()
    lastFlush = performance.now()
    flushing = flush().finally(() => {
      flushing = undefined
      const tookMs = performance.now() - lastFlush
      intervalMs = Math.min(Math.max(leastIntervalMs, 2 * tookMs), mostIntervalMs)
      if (waiting.size > 0) schedule()
    })
  }

  function unschedule(): void {
    clearTimeout(timer as NodeJS.Timeout)
    clearImmediate(timer as NodeJS.Immediate)
    timer = undefined
  }

  async function flush(): Promise<void> {
    const all = [...waiting]
    for (let at = 0; at < all.length; at += turnsAtOnce) {
      // Some may have been lost while others were written.
      const some = all.slice(at, at + turnsAtOnce).filter((turn) => waiting.has(turn))
      if (some.length > 0) await write(some.map(takeBatch))
    }
  }

  async function write(batch: Batch[]): Promise<void> {
    try {
      await append(batch)
    } catch (error) {
      if (isConnectionError(error)) return rideOut(batch, error)
      log.error({ err: error, runs: batch.length }, 'a batch of deltas failed')
      const [one] = batch
      if (one && batch.length === 1) return lose(one.turn, error)
      // One bad byte or locked row must not stall all runs.
      for (const each of batch) await write([each])
    }
  }

  async function append(batch: Batch[]): Promise<void> {
    const seqs = await events.appendBatch(batch.flatMap(({ entries }) => entries))
    let at = 0
    for (const { turn, entries } of batch) {
      const last = seqs[at + entries.length - 1]
      at += entries.length
      if (last === undefined) lose(turn, new FencedError(turn.runId))
      else turn.lastSeq = last
    }
  }

  /** The connection broke, so the batch may have been committed, or may still be on its way. */
  async function rideOut(batch: Batch[], cause: unknown): Promise<void> {
    log.warn({ err: cause }, 'Postgres is away; deltas are held back')
    const deadline = performance.now() + outageMs
    const left = [...batch]
    for (let waitMs = 100; left.length > 0; waitMs = Math.min(waitMs * 2, 2000)) {
      await new Promise((resolve) => setTimeout(resolve, waitMs))
      try {
        for (let one = left[0]; one; one = left[0]) {
          await writeOnce(one)
          left.shift()
        }
      } catch (error) {
        if (isConnectionError(error) && performance.now() < deadline) continue
        const given = isConnectionError(error) ? left.splice(0) : left.splice(0, 1)
        for (const { turn } of given) lose(turn, error)
      }
    }
  }

  /**
   * Writes what the log does not have. The next fence comes first, so that a statement that is still on its way writes
   * nothing when it gets the lock. A turn has one writer of deltas, hence one after the last that we know of is ours.
   */
  async function writeOnce({ turn, entries }: Batch): Promise<void> {
    const { fence, lastSeq } = await db.tx(async (tx) => {
      const run = await lockRun(tx, turn.runId)
      const raised = await raiseFence(tx, turn)
      if (!run || isTerminal(run.status) || raised === undefined) throw new FencedError(turn.runId)
      const [row] = await tx.sql<{ last: number | null }>(
        `SELECT max(seq) AS last FROM run_events WHERE run_id = $1 AND seq > $2
           AND event IN ('thread.message.delta', 'thread.run.step.delta')`,
        [turn.runId, turn.lastSeq],
      )
      return { fence: raised, lastSeq: row?.last ?? (await events.append(tx, turn.runId, entries)) }
    })
    turn.fence = fence
    turn.lastSeq = lastSeq
    events.doubt(turn.runId)
  }

  function lose(turn: OpenTurn, reason: unknown): void {
    turn.pending = []
    waiting.delete(turn)
    turn.losing.abort(reason)
  }

  function takeBatch(turn: OpenTurn): Batch {
    const { runId, fence, pending } = turn
    turn.pending = []
    waiting.delete(turn)
    const entries = pending.map((delta) => ({
      runId,
      turn: turn.turn,
      fence,
      ...deltaEvent(delta),
    }))
    return { turn, entries }
  }

  return {
    open(given) {
      const turn = new OpenTurn(given)
      return {
        get fence() {
          return turn.fence
        },
        lost: turn.losing.signal,
        push(delta) {
          // What comes after a piece that was lost would leave a hole.
          if (turn.losing.signal.aborted) return
          turn.push(delta)
          waiting.add(turn)
          schedule()
        },
        async take() {
          // More than once: whoever else waited may have begun the next write, with this turn's deltas in it.
          while (flushing) await flushing
          turn.losing.signal.throwIfAborted()
          return takeBatch(turn).entries
        },
        advance(seq) {
          turn.lastSeq = Math.max(turn.lastSeq, seq)
        },
        async written() {
          while (flushing || turn.pending.length > 0) {
            if (!flushing) start()
            await flushing
          }
        },
        [Symbol.dispose]: () => void waiting.delete(turn),
      }
    },
    async [Symbol.asyncDispose]() {
      unschedule()
      await flushing
    },
  }
}

interface Batch {
  turn: OpenTurn
  entries: BatchEntry[]
}

class OpenTurn {
  readonly runId: string
  readonly turn: number
  readonly begunAt: Date | null
  readonly losing = new AbortController()
  fence: number
  pending: Delta[] = []
  lastSeq: number

  constructor(given: ClaimedRow) {
    this.runId = given.runId
    this.turn = given.turn
    this.begunAt = given.begun_at
    this.fence = given.fence
    this.lastSeq = given.lastSeq
  }

  push(delta: Delta): void {
    const previous = this.pending.at(-1)
    const merged = previous && mergeDeltas(previous, delta)
    if (merged) this.pending[this.pending.length - 1] = merged
    else this.pending.push(delta)
  }
}

/**
 * Undefined where another attempt has claimed the turn, which is seen by when it began: the fence may have been raised by
 * ourselves, unheard. A Date has no microseconds.
 */
async function raiseFence(tx: Tx, { runId, turn, begunAt }: OpenTurn): Promise<number | undefined> {
  const [row] = await tx.sql<Pick<TurnRow, 'fence'>>(
    `UPDATE run_turns SET fence = fence + 1
     WHERE run_id = $1 AND turn = $2 AND date_trunc('milliseconds', begun_at) = $3 RETURNING fence`,
    [runId, turn, begunAt],
  )
  return row?.fence
}
