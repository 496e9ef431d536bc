import { describe, expect, test } from 'vitest'

import { Follower, gapIn, type LogState } from '../../store/follower.ts'
import type { StoredEvent } from '../../wire/events.ts'

describe('a follower', () => {
  test('of a run that is not there yet takes what comes, in order and once', () => {
    const follower = new Follower(0, { fresh: true })
    expect(follower.mustLook).toBe(false)
    follower.offer(events(1, 2))
    follower.offer(events(2, 3))
    expect(follower.take()).toEqual(events(1, 3))
    expect(follower.take()).toEqual([])
    follower.offer(events(1, 4))
    expect(follower.take()).toEqual(events(4, 4))
  })

  test('looks first where there may be something before, and lives from then on', () => {
    const follower = new Follower(2, { fresh: false })
    expect(follower.mustLook).toBe(true)
    // Offered means committed: the look will find it.
    follower.offer(events(3, 3))
    expect(follower.startLook()).toBe(2)
    follower.accept(events(3, 5), false)
    expect(follower.mustLook).toBe(false)
    follower.offer(events(6, 6))
    expect(follower.take()).toEqual(events(6, 6))
  })

  test('becomes live where its looks take longer than the time between events', () => {
    const follower = new Follower(0, { fresh: false })
    follower.startLook()
    // The look sees the first five; these come while it is under way, and the first of them is no neighbour of 0.
    follower.offer(events(6, 6))
    follower.offer(events(7, 7))
    follower.accept(events(1, 5), false)
    expect(follower.mustLook).toBe(false)
    expect(follower.take()).toEqual(events(6, 7))
  })

  test('keeps what comes during a look once, though the look has seen some of it', () => {
    const follower = new Follower(0, { fresh: false })
    follower.startLook()
    follower.offer(events(4, 6))
    follower.accept(events(1, 5), false)
    expect(follower.take()).toEqual(events(6, 6))
  })

  test('looks again where a look leaves a gap before what came during it', () => {
    const follower = new Follower(0, { fresh: false })
    follower.startLook()
    follower.offer(events(7, 7))
    follower.accept(events(1, 5), false)
    expect(follower.mustLook).toBe(true)
    expect(follower.startLook()).toBe(5)
    follower.accept(events(6, 7), false)
    expect(follower.mustLook).toBe(false)
    expect(follower.take()).toEqual([])
  })

  test('looks again where what comes during a look has a gap in itself', () => {
    const follower = new Follower(0, { fresh: false })
    follower.startLook()
    follower.offer(events(4, 4))
    follower.offer(events(6, 6))
    follower.accept(events(1, 3), false)
    expect(follower.mustLook).toBe(true)
    expect(follower.startLook()).toBe(3)
  })

  test('looks where an event is missing', () => {
    const follower = new Follower(0, { fresh: true })
    follower.offer(events(1, 1))
    follower.offer(events(3, 3))
    expect(follower.mustLook).toBe(true)
    // What it had is in the table too.
    expect(follower.startLook()).toBe(0)
  })

  test('goes on to look where a page was cut', () => {
    const follower = new Follower(0, { fresh: false })
    follower.startLook()
    follower.accept(events(1, 5), true)
    expect(follower.mustLook).toBe(true)
    expect(follower.startLook()).toBe(5)
  })

  test('whose reader is slow holds nothing of what it must read from the table', () => {
    const follower = new Follower(0, { fresh: true })
    const large = 'x'.repeat(300_000)
    for (let seq = 1; seq <= 4; seq += 1) follower.offer([{ ...event(seq), data: large }])
    expect(follower.mustLook).toBe(false)
    follower.offer([event(5)])
    expect(follower.mustLook).toBe(true)
    expect(follower.take()).toEqual([])
    expect(follower.startLook()).toBe(0)
  })

  test('that waits is woken by what is offered, by doubt, and by whoever lets it go', async () => {
    const follower = new Follower(0, { fresh: true })
    for (const wakes of [
      () => follower.offer(events(1, 1)),
      () => follower.look(),
      () => follower.wake(),
    ]) {
      const waiting = follower.waitForMore()
      wakes()
      await waiting
      follower.startLook()
      follower.accept([], false)
      follower.take()
    }
    follower.offer(events(2, 2))
    await follower.waitForMore()
    expect(follower.take()).toEqual(events(2, 2))
  })
})

describe('a follower that is compared with the log', () => {
  const at = (last_seq: number, closed_at: Date | null = null): LogState => ({
    last_seq,
    closed_at,
    holds: 'all',
  })

  test.each([
    { log: 'has come as far', state: at(2), looks: false },
    { log: 'was not as far when it was asked', state: at(1), looks: false },
    { log: 'is further', state: at(3), looks: true },
    { log: 'is closed', state: at(2, new Date()), looks: true },
    { log: 'is gone', state: undefined, looks: true },
  ])('looks ($looks) where the log $log', ({ state, looks }) => {
    const follower = new Follower(0, { fresh: true })
    follower.offer(events(1, 2))
    follower.take()
    follower.check(state)
    expect(follower.mustLook).toBe(looks)
  })

  test('counts what its reader has not taken yet', () => {
    const follower = new Follower(0, { fresh: true })
    follower.offer(events(1, 2))
    follower.check(at(2))
    expect(follower.take()).toEqual(events(1, 2))
  })

  test('does not take a run that is being created for one that is gone', () => {
    const follower = new Follower(0, { fresh: true })
    follower.check(undefined)
    expect(follower.mustLook).toBe(false)
    expect(follower.endIn(undefined)).toBeUndefined()
  })

  test.each(['offered', 'read'])('knows by events that are %s that there was a run', (how) => {
    const follower = new Follower(0, { fresh: true })
    if (how === 'offered') {
      follower.offer(events(1, 1))
      follower.take()
    } else {
      follower.startLook()
      follower.accept(events(1, 1), false)
    }
    expect(follower.endIn(undefined)).toBe('gone')
  })

  test.each([
    { state: at(5), end: undefined },
    { state: at(5, new Date()), end: 'over' },
    // Something came between the two statements: it is there to be read.
    { state: at(6, new Date()), end: undefined },
    { state: { ...at(6, new Date()), holds: 'objects' as const }, end: undefined },
    { state: { ...at(6, new Date()), holds: 'nothing' as const }, end: 'pruned' },
    { state: { ...at(5, new Date()), holds: 'nothing' as const }, end: 'over' },
  ])('after 5, and finding no more, ends in $state as $end', ({ state, end }) => {
    expect(new Follower(5, { fresh: false }).endIn(state)).toBe(end)
  })
})

test('a gap is before the first event that does not follow', () => {
  expect(gapIn([], 3)).toBe(-1)
  expect(gapIn(events(4, 6), 3)).toBe(-1)
  expect(gapIn(events(5, 6), 3)).toBe(0)
  expect(gapIn([...events(4, 5), ...events(8, 9)], 3)).toBe(2)
})

function events(from: number, to: number): StoredEvent[] {
  return Array.from({ length: to - from + 1 }, (_, n) => event(from + n))
}

function event(seq: number): StoredEvent {
  return { seq, event: 'thread.message.delta', data: `{"n":${seq}}` }
}
