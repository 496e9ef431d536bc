import type { Context } from '@temporalio/activity'

import type { EventLog } from '../store/events.ts'

/** By a timer and not by progress: a model that thinks in silence is alive. */
const heartbeatMs = 1000
/** A worker that can write nothing is to be replaced; one whose Postgres says that it is down waits for it. */
const mostSilenceMs = 6000

/**
 * Heartbeats until disposed, while Postgres is heard of; that is also how an activity hears of a cancellation.
 */
export function heartbeating(context: Context, events: Pick<EventLog, 'silentMs'>): Disposable {
  // Not at once: most activities are over before, and each heartbeat is a write of the server.
  const timer = setInterval(() => {
    if (events.silentMs() < mostSilenceMs) context.heartbeat()
  }, heartbeatMs)
  return { [Symbol.dispose]: () => clearInterval(timer) }
}
