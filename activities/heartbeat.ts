import type { Context } from '@temporalio/activity'

/** By a timer and not by progress: a model that thinks in silence is alive. */
const heartbeatMs = 1000

/** Heartbeats until disposed; that is also how an activity hears of a cancellation. */
export function heartbeating(context: Context): Disposable {
  // Not at once: most activities are over before, and each heartbeat is a write of the server.
  const timer = setInterval(() => context.heartbeat(), heartbeatMs)
  return { [Symbol.dispose]: () => clearInterval(timer) }
}
