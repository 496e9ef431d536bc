import { afterEach, beforeEach, expect, test, vi } from 'vitest'

import { sseFrames } from '../../api/sse.ts'
import type { StoredEvent } from '../../wire/events.ts'

beforeEach(() => void vi.useFakeTimers())
afterEach(() => void vi.useRealTimers())

/** Says one thing, and then nothing. */
async function* quiet(): AsyncGenerator<StoredEvent[]> {
  yield [{ seq: 1, event: 'thread.run.in_progress', data: '{}' }]
  await new Promise(() => {})
}

test('a comment ends no event: the Python client would take an empty line for the end of one', async () => {
  const draining = new AbortController()
  const frames = sseFrames(quiet(), draining.signal, () => {})
  expect((await frames.next()).value).toBe('id: 1\nevent: thread.run.in_progress\ndata: {}\n\n')
  const ping = frames.next()
  await vi.advanceTimersByTimeAsync(15_000)
  expect((await ping).value).toBe(': ping\n')
  const last = frames.next()
  draining.abort()
  expect((await last).value).toBe(': draining\n')
})
