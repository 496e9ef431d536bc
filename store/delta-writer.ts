import type { Logger } from '../log.ts'
import { deltaEvent, mergeDeltas, type Delta } from '../wire/deltas.ts'
import type { RunEvent } from '../wire/events.ts'
import { isConnectionError, type Db } from './db.ts'
import type { BatchEntry, EventLog } from './events.ts'

/** Writes the deltas of all runs of this process, many runs in one statement. */
export interface DeltaWriter extends AsyncDisposable {
  open(turn: { runId: string; turn: number; fence: number; lastSeq: number }): TurnDeltas
}

/** The deltas of one attempt at a model turn. */
export interface TurnDeltas extends Disposable {
  push(delta: Delta): void
  /**
   * What has been pushed and not been written, once nothing of it is under way any more: the caller appends it with the
   * structural event that must come after it. Throws what `lost` aborts with.
   */
  take(): Promise<RunEvent[]>
  /** The number that the last event of a structural transaction of this turn got, once that has committed. */
  advance(seq: number): void
  /** Resolves once all that has been pushed is written, or the turn is lost. */
  written(): Promise<void>
  /** Aborts when another attempt has taken the turn over, or the run has ended or is gone. */
  lost: AbortSignal
}

/** The least time between two writes of one process: NOTIFY serialises commits, so it must not come per token. */
const intervalMs = 15
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
  const turns = new Set<OpenTurn>()
  let lastFlush = 0
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
      if ([...turns].some((turn) => turn.pending.length > 0)) schedule()
    })
  }

  function unschedule(): void {
    clearTimeout(timer as NodeJS.Timeout)
    clearImmediate(timer as NodeJS.Immediate)
    timer = undefined
  }

  async function flush(): Promise<void> {
    const waiting = [...turns].filter((turn) => turn.pending.length > 0)
    for (let at = 0; at < waiting.length; at += turnsAtOnce) {
      await flushSome(waiting.slice(at, at + turnsAtOnce).filter((turn) => turn.pending.length > 0))
    }
  }

  async function flushSome(some: OpenTurn[]): Promise<void> {
    if (some.length === 0) return
    const batch = some.map(takeBatch)
    try {
      await write(batch)
    } catch (error) {
      if (isConnectionError(error)) return rideOut(batch, error)
      log.error(
        { err: error, runs: batch.length },
        'a batch of deltas failed; it is written run by run',
      )
      // One bad byte or locked row must not stall all runs.
      for (const one of batch) await write([one]).catch((reason: unknown) => one.turn.lose(reason))
    }
  }

  async function write(batch: Batch[]): Promise<void> {
    const seqs = await events.appendBatch(batch.flatMap(({ entries }) => entries))
    let at = 0
    for (const { turn, entries } of batch) {
      const last = seqs[at + entries.length - 1]
      at += entries.length
      if (last === undefined) turn.lose(new FencedError(turn.runId))
      else turn.lastSeq = last
    }
  }

  /**
   * The connection broke, so the batch may or may not have been committed. A fenced turn has one writer of deltas, hence a
   * delta after the last one that we know of is ours.
   */
  async function rideOut(batch: Batch[], cause: unknown): Promise<void> {
    log.warn({ err: cause }, 'Postgres is away; deltas are held back')
    const deadline = performance.now() + outageMs
    for (let waitMs = 100; ; waitMs = Math.min(waitMs * 2, 2000)) {
      await new Promise((resolve) => setTimeout(resolve, waitMs))
      try {
        const missing: Batch[] = []
        for (const one of batch) {
          if (!(await isWritten(one.turn))) missing.push(one)
        }
        if (missing.length > 0) await write(missing)
        return
      } catch (error) {
        if (isConnectionError(error) && performance.now() < deadline) continue
        for (const { turn } of batch) turn.lose(error)
        return
      }
    }
  }

  async function isWritten(turn: OpenTurn): Promise<boolean> {
    const [row] = await db.sql<{ last: number | null }>(
      `SELECT max(seq) AS last FROM run_events WHERE run_id = $1 AND seq > $2
         AND event IN ('thread.message.delta', 'thread.run.step.delta')`,
      [turn.runId, turn.lastSeq],
    )
    if (row?.last) turn.lastSeq = row.last
    return Boolean(row?.last)
  }

  return {
    open(given) {
      const turn = new OpenTurn(given)
      turns.add(turn)
      return {
        lost: turn.losing.signal,
        push(delta) {
          turn.push(delta)
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
        [Symbol.dispose]: () => void turns.delete(turn),
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
  readonly fence: number
  readonly losing = new AbortController()
  pending: Delta[] = []
  lastSeq: number

  constructor(given: { runId: string; turn: number; fence: number; lastSeq: number }) {
    this.runId = given.runId
    this.turn = given.turn
    this.fence = given.fence
    this.lastSeq = given.lastSeq
  }

  push(delta: Delta): void {
    const previous = this.pending.at(-1)
    const merged = previous && mergeDeltas(previous, delta)
    if (merged) this.pending[this.pending.length - 1] = merged
    else this.pending.push(delta)
  }

  lose(reason: unknown): void {
    this.pending = []
    this.losing.abort(reason)
  }
}

function takeBatch(turn: OpenTurn): Batch {
  const entries = turn.pending.map((delta) => ({
    runId: turn.runId,
    turn: turn.turn,
    fence: turn.fence,
    ...deltaEvent(delta),
  }))
  turn.pending = []
  return { turn, entries }
}
