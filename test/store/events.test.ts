import { randomUUID } from 'node:crypto'

import { Client } from 'pg'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'

import { Follower } from '../../store/follower.ts'
import type { Store } from '../../store/index.ts'
import type { Tx } from '../../store/db.ts'
import type { RunEvent, StoredEvent } from '../../wire/events.ts'
import { createDatabase } from '../support/server.ts'
import { createRun, openTestStore } from './rows.ts'

let databaseUrl: string
/** Two processes' worth: each has a pool and a listener of its own. */
let here: Store
let there: Store
const stack = new AsyncDisposableStack()
beforeAll(async () => {
  databaseUrl = stack.use(await createDatabase()).url
  here = stack.use(await openTestStore(databaseUrl))
  there = stack.use(await openTestStore(databaseUrl))
  await connected(here, there)
})
afterAll(() => stack.disposeAsync())

const call = { model: 'm', prompt_tokens: 1, price: null }

describe('an append', () => {
  test('numbers events one after the other, over several transactions', async () => {
    const { id, tip } = await aRun()
    await append(here, id, 'a', 'b')
    await append(there, id, 'c')
    await append(here, id, 'd')
    expect(await here.events.read(id, tip)).toEqual([
      said(tip + 1, 'a'),
      said(tip + 2, 'b'),
      said(tip + 3, 'c'),
      said(tip + 4, 'd'),
    ])
    expect(await there.events.tip(id)).toBe(tip + 4)
  })

  test('is heard of when its transaction commits, and never where it does not', async () => {
    const { id, tip } = await aRun()
    using reader = follow(there, id, tip)
    await expect(
      here.db.tx(async (tx) => {
        await here.events.append(tx, id, [delta('undone')])
        throw new Error('undo')
      }),
    ).rejects.toThrow('undo')
    await append(here, id, 'kept')
    expect(await reader.take(1)).toEqual([said(tip + 1, 'kept')])
  })

  test('tells the other processes, so that they need not look', async () => {
    const { id, tip } = await aRun()
    const listener = new Client({ connectionString: databaseUrl })
    await listener.connect()
    const told: string[] = []
    const end = new Promise<void>((resolve) =>
      listener.on('notification', ({ payload = '' }) => {
        told.push(payload)
        if (payload === '"end"') resolve()
      }),
    )
    await listener.query('LISTEN run_events')
    await append(here, id, 'short')
    await append(here, id, 'x'.repeat(20_000))
    await listener.query(`SELECT pg_notify('run_events', '"end"')`)
    await end
    await listener.end()
    const { event, data } = delta('short')
    expect(told.map((payload) => JSON.parse(payload) as unknown)).toEqual([
      [expect.any(String), [[id, tip + 1, event, data]]],
      [expect.any(String), [[id, tip + 2]]],
      'end',
    ])
  })

  test('to a run that has ended, or is gone, is refused', async () => {
    const { id, tip } = await aRun()
    await here.runs.end(id, { status: 'cancelled' })
    await expect(append(here, id, 'late')).rejects.toThrow('closed or gone')
    await expect(append(here, 'run_nobody', 'x')).rejects.toThrow('closed or gone')
    const after = await here.events.read(id, tip)
    expect(after.map(({ event }) => event)).toEqual(['thread.run.cancelled'])
  })
})

describe('followers', () => {
  test('of many runs in two processes get everything, in order, whoever writes', async () => {
    const runs = await Promise.all(Array.from({ length: 4 }, () => aRun()))
    const writers = [here, there, here, there]
    const each = 40
    const total = writers.length * each
    const readers = runs.flatMap(({ id }) =>
      [here, there].flatMap((store) => [follow(store, id, 0), follow(store, id, 0)]),
    )
    await Promise.all(
      runs.flatMap(({ id }) =>
        writers.map(async (store, writer) => {
          for (let n = 0; n < each; n += 1) await append(store, id, `${writer}:${n}`)
        }),
      ),
    )
    for (const [index, reader] of readers.entries()) {
      const { id, tip } = runs[Math.floor(index / 4)] as { id: string; tip: number }
      const events = await reader.take(tip + total)
      expect(events.map(({ seq }) => seq)).toEqual(range(1, tip + total))
      expect(events).toEqual(await here.events.read(id, 0))
      for (const writer of writers.keys()) {
        const own = events.map(textOf).filter((text) => text.startsWith(`${writer}:`))
        expect(own).toEqual(range(0, each - 1).map((n) => `${writer}:${n}`))
      }
      reader[Symbol.dispose]()
    }
  })

  test('that come late get what was before, then what comes', async () => {
    const { id, tip } = await aRun()
    await append(here, id, 'a', 'b', 'c')
    using fromStart = follow(there, id, 0)
    using fromMiddle = follow(there, id, tip + 2)
    using fromEnd = follow(there, id, tip + 3)
    expect((await fromStart.take(tip + 3)).slice(tip).map(textOf)).toEqual(['a', 'b', 'c'])
    expect((await fromMiddle.take(1)).map(textOf)).toEqual(['c'])
    await append(here, id, 'd')
    for (const reader of [fromStart, fromMiddle, fromEnd]) {
      expect(await reader.take(1)).toEqual([said(tip + 4, 'd')])
    }
  })

  test('that come in while there is writing miss nothing at the seam', async () => {
    const { id } = await aRun()
    const total = 150
    const readers: Reader[] = []
    for (let n = 0; n < total; n += 1) {
      await append(n % 2 ? here : there, id, `${n}`)
      if (n % 10 === 0) readers.push(follow(n % 20 ? here : there, id, 0))
    }
    const tip = await here.events.tip(id)
    for (const reader of readers) {
      expect((await reader.take(tip)).map(({ seq }) => seq)).toEqual(range(1, tip))
      reader[Symbol.dispose]()
    }
  })

  test('that are there before the run get its first event', async () => {
    const id = `run_${randomUUID().replaceAll('-', '')}` as const
    const leave = new AbortController()
    const events = here.events.follow(id, 0, { signal: leave.signal, fresh: true })
    await createRun(here, { id })
    const { value } = await events.next()
    expect(value?.[0]).toMatchObject({ seq: 1, event: 'thread.created' })
    leave.abort()
  })

  test('that read too slowly for their buffer still get everything', async () => {
    const { id, tip } = await aRun()
    const reader = follow(there, id, tip)
    const near = follow(here, id, tip)
    await append(here, id, 'first')
    expect((await reader.take(1)).map(textOf)).toEqual(['first'])
    expect((await near.take(1)).map(textOf)).toEqual(['first'])
    // Three times what a follower keeps in memory, in more events than one page of the table.
    const piece = 'x'.repeat(5000)
    for (let n = 0; n < 600; n += 10) {
      await append(here, id, ...range(n, n + 9).map((one) => `${one} ${piece}`))
    }
    await append(here, id, 'last')
    for (const slow of [reader, near]) {
      const events = await slow.take(601)
      expect(events.map(({ seq }) => seq)).toEqual(range(tip + 2, tip + 602))
      expect(events.at(-1)?.data).toBe(delta('last').data)
      slow[Symbol.dispose]()
    }
  })

  test('get an event that is too large for a notification, whatever its bytes', async () => {
    const { id, tip } = await aRun()
    using reader = follow(there, id, tip)
    // The first is small in characters and large in bytes.
    const texts = ['🙂'.repeat(2500), 'x'.repeat(100_000), 'small', 'é'.repeat(7900)]
    for (const text of texts) await append(here, id, text)
    expect((await reader.take(4)).map(textOf)).toEqual(texts)
  })

  test('get events of all sizes that were appended at once, none too large to be told of', async () => {
    const { id, tip } = await aRun()
    using reader = follow(there, id, tip)
    // Characters of one byte, of two that JSON escapes, of four, and a control character that JSON writes as six.
    const texts = ['x', '"', '🙂', '\u0001'].flatMap((one) =>
      range(0, 60).map((n) => one.repeat(n * 41)),
    )
    await append(here, id, ...texts)
    expect((await reader.take(texts.length)).map(textOf)).toEqual(texts)
    const turn = await aTurn()
    using ofTurn = follow(there, turn.id, turn.tip)
    await here.events.appendBatch(texts.map((text) => entry(turn, text)))
    expect((await ofTurn.take(texts.length)).map(textOf)).toEqual(texts)
  })

  test('are given a long log by pages that fit into memory', async () => {
    const { id, tip } = await aRun()
    const texts = range(1, 8).map((n) => `${n} ${'ü'.repeat(150_000)}`)
    for (const text of texts) await append(here, id, text)
    // Each has 300 kB: the fourth passes a megabyte.
    expect(await there.events.read(id, tip)).toHaveLength(4)
    using reader = follow(there, id, tip)
    expect((await reader.take(8)).map(textOf)).toEqual(texts)
    await append(here, id, 'live')
    expect((await reader.take(1)).map(textOf)).toEqual(['live'])
  })

  test('get what no notification has told of', async () => {
    const { id, tip } = await aRun()
    using reader = follow(there, id, tip)
    await append(here, id, 'told')
    await reader.take(1)
    const { event, data } = delta('untold')
    await here.db.sql(
      `WITH s AS (UPDATE run_streams SET last_seq = last_seq + 1 WHERE run_id = $1 RETURNING last_seq)
       INSERT INTO run_events (run_id, seq, event, data) SELECT $1, last_seq, $2, $3 FROM s`,
      [id, event, data],
    )
    expect(await reader.take(1)).toEqual([said(tip + 2, 'untold')])
  })

  test('are not disturbed by notifications that are not ours', async () => {
    const { id, tip } = await aRun()
    using reader = follow(there, id, tip)
    for (const payload of ['', 'x', 'null', '{}', '[]', '["other"]', '["other", [1]]']) {
      await here.db.sql(`SELECT pg_notify('run_events', $1)`, [payload])
    }
    await append(here, id, 'ours')
    expect(await reader.take(1)).toEqual([said(tip + 1, 'ours')])
  })

  test('are told why nothing more can come', async () => {
    const [over, deleted] = [await createRun(here), await createRun(here)]
    await here.runs.end(over.id, { status: 'cancelled' })
    const tip = await here.events.tip(over.id)
    const endOf = async (runId: string, after: number) => {
      const { signal } = new AbortController()
      const events = there.events.follow(runId, after, { signal })
      for (;;) {
        const { value, done } = await events.next()
        if (done) return value
      }
    }
    const ends = Promise.all([endOf(over.id, tip), endOf(over.id, tip - 1), endOf(deleted.id, 0)])
    await here.threads.delete(deleted.project_id, deleted.thread_id)
    expect(await ends).toEqual(['over', 'over', 'gone'])

    // Pruned in between: the follower has begun, and is not at the end.
    const reading = there.events.follow(over.id, 1, { signal: new AbortController().signal })
    await here.db.sql('DELETE FROM run_events WHERE run_id = $1', [over.id])
    await here.db.sql(`UPDATE run_streams SET holds = 'nothing' WHERE run_id = $1`, [over.id])
    expect(await reading.next()).toEqual({ value: 'pruned', done: true })
  })

  test('that have left before they were read from are forgotten', async () => {
    const { id } = await aRun()
    here.events.follow(id, 0, { signal: AbortSignal.abort() })
    const told = vi.spyOn(Follower.prototype, 'look')
    here.events.doubt(id)
    expect(told).not.toHaveBeenCalled()
    told.mockRestore()
  })

  test('end when they are told to', async () => {
    const { id, tip } = await aRun()
    const leave = new AbortController()
    const events = here.events.follow(id, tip - 1, { signal: leave.signal })
    expect((await events.next()).value).toHaveLength(1)
    const waiting = events.next()
    leave.abort()
    expect(await waiting).toEqual({ value: undefined, done: true })
  })

  test('end at once when they are told to while they read', async () => {
    const { id, tip } = await aRun()
    const leave = new AbortController()
    const events = here.events.follow(id, tip, { signal: leave.signal })
    const began = performance.now()
    const reading = events.next()
    leave.abort()
    expect(await reading).toEqual({ value: undefined, done: true })
    expect(performance.now() - began).toBeLessThan(1500)
  })

  test('go on when the connection that listens is killed', async () => {
    const { id, tip } = await aRun()
    using reader = follow(there, id, tip)
    await append(here, id, 'before')
    expect((await reader.take(1)).map(textOf)).toEqual(['before'])
    const admin = new Client({ connectionString: databaseUrl })
    await admin.connect()
    const { rowCount } = await admin.query(
      `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
       WHERE datname = current_database() AND application_name = 'longrun listener'`,
    )
    await admin.end()
    expect(rowCount).toBe(2)
    await append(here, id, 'in between')
    await connected(here, there)
    await append(here, id, 'after')
    expect((await reader.take(2)).map(textOf)).toEqual(['in between', 'after'])
  })
})

describe('a batch', () => {
  test('of several runs numbers each by itself, and followers of each hear it', async () => {
    const [a, b] = [await aTurn(), await aTurn()]
    using ofA = follow(there, a.id, a.tip)
    using ofB = follow(here, b.id, b.tip)
    const seqs = await here.events.appendBatch([
      entry(a, 'a1'),
      entry(b, 'b1'),
      entry(a, 'a2'),
      entry(b, 'b2'),
    ])
    expect(seqs).toEqual([a.tip + 1, b.tip + 1, a.tip + 2, b.tip + 2])
    expect(await ofA.take(2)).toEqual([said(a.tip + 1, 'a1'), said(a.tip + 2, 'a2')])
    expect(await ofB.take(2)).toEqual([said(b.tip + 1, 'b1'), said(b.tip + 2, 'b2')])
  })

  test('of an attempt that was replaced writes nothing', async () => {
    const turn = await aTurn()
    expect(await here.events.appendBatch([entry(turn, 'old')])).toEqual([turn.tip + 1])
    await there.turns.claim({ runId: turn.id, turn: 0, generationId: randomUUID(), model: 'm' })
    const tip = await here.events.tip(turn.id)
    expect(await here.events.appendBatch([entry(turn, 'too late')])).toEqual([undefined])
    expect(await here.events.appendBatch([entry({ ...turn, fence: 2 }, 'new')])).toEqual([tip + 1])
    expect((await here.events.read(turn.id, turn.tip)).map(textOf)).toEqual(['old', 'new'])
  })

  test('of an attempt that is replaced while it waits for the lock writes nothing either', async () => {
    const turn = await aTurn()
    let batch: Promise<(number | undefined)[]> | undefined
    await there.db.tx(async (tx) => {
      await tx.sql('SELECT FROM run_streams WHERE run_id = $1 FOR UPDATE', [turn.id])
      batch = here.events.appendBatch([entry(turn, 'too late')])
      await expect
        .poll(() =>
          there.db.sql(
            `SELECT FROM pg_stat_activity WHERE datname = current_database()
               AND wait_event_type = 'Lock' AND query LIKE '%append_run_events%'`,
          ),
        )
        .toHaveLength(1)
      await tx.sql('UPDATE run_turns SET fence = fence + 1 WHERE run_id = $1', [turn.id])
    })
    expect(await batch).toEqual([undefined])
    expect(await here.events.tip(turn.id)).toBe(turn.tip)
  })

  test('is written for the runs that are well though others in it are not', async () => {
    const [ended, deleted, replaced, well] = [
      await aTurn(),
      await aTurn(),
      await aTurn(),
      await aTurn(),
    ]
    await here.runs.end(ended.id, { status: 'cancelled' })
    await here.threads.delete(deleted.projectId, deleted.threadId)
    await here.turns.claim({ runId: replaced.id, turn: 0, generationId: randomUUID(), model: 'm' })
    const all = [ended, deleted, replaced, well]
    const seqs = await here.events.appendBatch(all.map((turn) => entry(turn, 'x')))
    expect(seqs).toEqual([undefined, undefined, undefined, well.tip + 1])
  })

  test('of no entries is nothing', async () => {
    expect(await here.events.appendBatch([])).toEqual([])
  })
})

describe('the deltas of turns that share a process', () => {
  test('of one that was replaced are lost with it, and those of the others arrive', async () => {
    const [lost, well] = [await claim(await createRun(here)), await claim(await createRun(here))]
    await lost.openMessage(call)
    await well.openMessage(call)
    await there.turns.claim({ runId: lost.run.id, turn: 0, generationId: randomUUID(), model: 'm' })
    using reader = follow(there, well.run.id, await here.events.tip(well.run.id))
    lost.pushText(0, 'text', { text: 'too late', first: true })
    well.pushText(0, 'text', { text: 'in time', first: true })
    expect((await reader.take(1)).map(textOf)).toEqual(['in time'])
    await aborted(lost.lost)
    expect(lost.lost.reason).toMatchObject({ name: 'FencedError' })
    expect(well.lost.aborted).toBe(false)
    const events = await here.events.read(lost.run.id, 0)
    expect(events.map(({ data }) => data).join('\n')).not.toContain('too late')
  })

  test('come before what is said after them', async () => {
    const turn = await claim(await createRun(here))
    await turn.openMessage(call)
    for (const [n, word] of ['One', ' two', ' three'].entries())
      turn.pushText(0, 'text', { text: word, first: n === 0 })
    await turn.stop({ status: 'cancelled' }, undefined)
    const events = await there.events.read(turn.run.id, 0)
    const names = events.map(({ event }) => event)
    expect(names.indexOf('thread.message.delta')).toBeGreaterThan(
      names.indexOf('thread.message.in_progress'),
    )
    expect(names.slice(-3)).toEqual([
      'thread.message.incomplete',
      'thread.run.step.cancelled',
      'thread.run.cancelled',
    ])
    const deltas = events.filter(({ event }) => event === 'thread.message.delta')
    expect(deltas.map(textOf).join('')).toBe('One two three')
    expect(JSON.parse(events.at(-3)?.data ?? '')).toMatchObject({
      content: [{ type: 'text', text: { value: 'One two three', annotations: [] } }],
    })
  })
})

describe('a batch of deltas whose connection breaks', () => {
  let own: Store
  beforeAll(async () => {
    // Without a poll: what was committed unheard must reach the followers of its own process without it.
    vi.useFakeTimers({ toFake: ['setInterval'] })
    own = stack.use(await openTestStore(databaseUrl))
    vi.useRealTimers()
    await connected(own)
  })

  /** Has everything that there is. */
  async function liveReader(runId: string): Promise<Reader> {
    const reader = follow(own, runId, 0)
    await reader.take(await own.events.tip(runId))
    return reader
  }

  test('while it waits for a lock is written once, and its statement writes no more', async () => {
    const turn = await claim(await createRun(own), own)
    await turn.openMessage(call)
    using reader = await liveReader(turn.run.id)
    await whileLocked(turn.run.id, async () => {
      turn.pushText(0, 'text', { text: 'Hello ', first: true })
      await waitingForLocks(1)
      own.db.giveUpConnections()
      // The old statement and what comes in its place.
      await waitingForLocks(2)
    })
    await turn.written()
    expect(await deltasOf(turn.run.id)).toEqual(['Hello '])
    expect((await reader.take(1)).map(textOf)).toEqual(['Hello '])
    // As the old statement would be that arrives only now.
    const old = { id: turn.run.id, fence: 1 }
    expect(await own.events.appendBatch([entry(old, 'late')])).toEqual([undefined])

    turn.pushText(0, 'text', { text: 'there.', first: false })
    await turn.stop({ status: 'cancelled' }, undefined)
    expect(await deltasOf(turn.run.id)).toEqual(['Hello ', 'there.'])
  })

  test('is written though the fence was raised before, and nobody heard of it', async () => {
    const turn = await claim(await createRun(own), own)
    await turn.openMessage(call)
    await whileLocked(turn.run.id, async (tx) => {
      turn.pushText(0, 'text', { text: 'Hello ', first: true })
      await waitingForLocks(1)
      await tx.sql('UPDATE run_turns SET fence = fence + 1 WHERE run_id = $1', [turn.run.id])
      own.db.giveUpConnections()
      await waitingForLocks(2)
    })
    await turn.written()
    expect(turn.lost.aborted).toBe(false)
    expect(await deltasOf(turn.run.id)).toEqual(['Hello '])
  })

  test('is lost where another attempt has claimed the turn meanwhile', async () => {
    const turn = await claim(await createRun(own), own)
    await turn.openMessage(call)
    await whileLocked(turn.run.id, async (tx) => {
      turn.pushText(0, 'text', { text: 'Hello ', first: true })
      await waitingForLocks(1)
      await tx.sql(
        'UPDATE run_turns SET fence = fence + 1, begun_at = clock_timestamp() WHERE run_id = $1',
        [turn.run.id],
      )
      own.db.giveUpConnections()
    })
    await aborted(turn.lost)
    expect(turn.lost.reason).toMatchObject({ name: 'FencedError' })
    expect(await deltasOf(turn.run.id)).toEqual([])
  })

  test('is not taken for written where earlier deltas were committed unheard', async () => {
    const turn = await claim(await createRun(own), own)
    await turn.openMessage(call)
    const tip = await own.events.tip(turn.run.id)
    using reader = await liveReader(turn.run.id)
    await using gate = await commitGate()
    turn.pushText(0, 'text', { text: 'Wait.', first: true })
    const said = [{ type: 'text' as const, text: { value: 'Wait.', annotations: [] } }]
    const opening = turn.openToolStep(call, said)
    await gate.reached()
    own.db.giveUpConnections()
    await gate.open()
    await opening
    const unheard = await own.events.read(turn.run.id, tip)
    expect(unheard.map(({ event }) => event)).toContain('thread.message.delta')
    expect(await reader.take(unheard.length)).toEqual(unheard)

    await whileLocked(turn.run.id, async () => {
      turn.pushCall(0, { id: 'call_1', type: 'function', name: 'weather' })
      await waitingForLocks(1)
      await there.db.sql(
        `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = current_database() AND wait_event_type = 'Lock'`,
      )
    })
    await turn.written()
    const [opened] = await reader.take(1)
    expect(opened).toMatchObject({ event: 'thread.run.step.delta' })
    expect(opened?.data).toContain('call_1')
  })
})

test('after a delta that could not be written nothing more of its turn is, and all of the others', async () => {
  const [bad, well] = [await claim(await createRun(here)), await claim(await createRun(here))]
  await bad.openMessage(call)
  await well.openMessage(call)
  await here.db.sql(
    `CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
     BEGIN RAISE EXCEPTION 'refused'; END $$`,
  )
  await here.db.sql(
    `CREATE TRIGGER refuses BEFORE INSERT ON run_events FOR EACH ROW
     WHEN (NEW.data LIKE '%unwritable%') EXECUTE FUNCTION refuse()`,
  )
  bad.pushText(0, 'text', { text: 'unwritable', first: true })
  well.pushText(0, 'text', { text: 'One ', first: true })
  await aborted(bad.lost)
  expect(bad.lost.reason).toMatchObject({ message: 'refused' })
  bad.pushText(0, 'text', { text: 'behind a hole', first: false })
  well.pushText(0, 'text', { text: 'two', first: false })
  await bad.written()
  await well.written()
  expect(await deltasOf(bad.run.id)).toEqual([])
  expect((await deltasOf(well.run.id)).join('')).toBe('One two')
  await here.db.sql('DROP TRIGGER refuses ON run_events')
})

test('a control message reaches the process that listens for the run, and no other run', async () => {
  const [a, b] = [await aRun(), await aRun()]
  const told = Promise.withResolvers<void>()
  let wrong = 0
  using _ = there.events.onControl(a.id, () => told.resolve())
  using __ = there.events.onControl(b.id, () => (wrong += 1))
  await here.db.tx((tx) => here.events.tellControl(tx, a.id))
  await told.promise
  expect(wrong).toBe(0)
})

interface Turn {
  id: string
  tip: number
  fence: number
  threadId: string
  projectId: string
}

async function aRun(): Promise<{ id: string; tip: number }> {
  const { id } = await createRun(here)
  return { id, tip: await here.events.tip(id) }
}

/** A run whose first turn has been taken by an attempt, whose fence is 1. */
async function aTurn(): Promise<Turn> {
  const run = await createRun(here)
  await claim(run)
  const tip = await here.events.tip(run.id)
  return { id: run.id, tip, fence: 1, threadId: run.thread_id, projectId: run.project_id }
}

async function claim(run: { id: string }, store = here) {
  const claimed = await store.turns.claim({
    runId: run.id,
    turn: 0,
    generationId: randomUUID(),
    model: 'm',
  })
  if (claimed.kind !== 'claimed') throw new Error(`The turn is ${claimed.kind}`)
  return claimed.turn
}

async function append(store: Store, runId: string, ...texts: string[]): Promise<void> {
  await store.db.tx((tx) => store.events.append(tx, runId, texts.map(delta)))
}

/** Holds the run's lock meanwhile. */
async function whileLocked(runId: string, act: (tx: Tx) => Promise<void>): Promise<void> {
  await there.db.tx(async (tx) => {
    await tx.sql('SELECT FROM run_streams WHERE run_id = $1 FOR UPDATE', [runId])
    await act(tx)
  })
}

/** Resolves once so many statements wait for a lock. */
async function waitingForLocks(count: number): Promise<void> {
  const waiting = `SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`
  await expect.poll(() => there.db.sql(waiting), { timeout: 10_000 }).toHaveLength(count)
}

/** Transactions that make a step stop here, where all is done but for the answer to their COMMIT. */
async function commitGate() {
  const client = new Client({ connectionString: databaseUrl })
  await client.connect()
  await client.query('SELECT pg_advisory_lock(1)')
  await client.query(`
    CREATE FUNCTION wait_for_test() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN NULL; END $$;
    CREATE CONSTRAINT TRIGGER waits AFTER INSERT ON run_steps DEFERRABLE INITIALLY DEFERRED
      FOR EACH ROW EXECUTE FUNCTION wait_for_test()`)
  return {
    reached: () => waitingForLocks(1),
    open: () => client.end(),
    async [Symbol.asyncDispose]() {
      await client.end()
      await there.db.sql('DROP TRIGGER waits ON run_steps')
    },
  }
}

async function deltasOf(runId: string): Promise<string[]> {
  const events = await there.events.read(runId, 0)
  return events.filter(({ event }) => event === 'thread.message.delta').map(textOf)
}

function entry({ id, fence }: Pick<Turn, 'id' | 'fence'>, text: string) {
  return { runId: id, turn: 0, fence, ...delta(text) }
}

function delta(text: string): RunEvent {
  const part = { index: 0, type: 'text', text: { value: text } }
  return { event: 'thread.message.delta', data: JSON.stringify({ delta: { content: [part] } }) }
}

function said(seq: number, text: string): StoredEvent {
  return { seq, ...delta(text) }
}

function textOf({ data }: StoredEvent): string {
  // Only deltas are looked into; other events have no text.
  const { delta: given } = JSON.parse(data) as {
    delta?: { content: { text: { value: string } }[] }
  }
  return given?.content[0]?.text.value ?? ''
}

interface Reader extends Disposable {
  /** The next `n` events; waits for them. */
  take(n: number): Promise<StoredEvent[]>
}

function follow(store: Store, runId: string, after: number): Reader {
  const leave = new AbortController()
  const batches = store.events.follow(runId, after, { signal: leave.signal })
  let held: StoredEvent[] = []
  return {
    async take(n) {
      while (held.length < n) {
        const { value, done } = await batches.next()
        if (done) throw new Error(`The follower ended after ${held.length} of ${n} events`)
        held.push(...value)
      }
      const taken = held.slice(0, n)
      held = held.slice(n)
      return taken
    },
    [Symbol.dispose]: () => leave.abort(),
  }
}

async function connected(...stores: Store[]): Promise<void> {
  await vi.waitFor(() => expect(stores.every((one) => one.events.connected())).toBe(true), 10_000)
}

async function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return
  await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }))
}

function range(from: number, to: number): number[] {
  return Array.from({ length: to - from + 1 }, (_, n) => from + n)
}
