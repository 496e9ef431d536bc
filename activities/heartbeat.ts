import type { Context } from '@temporalio/activity'

/** By a timer and not by progress: a model that thinks in silence is alive. */
const heartbeatMs = 1000

/** Heartbeats until disposed; that is also how an activity hears of a cancellation. */
export function heartbeating(context: Context): Disposable {
  context.heartbeat()
  const timer = setInterval(() => context.heartbeat(), heartbeatMs)
  return { [Symbol.dispose]: () => clearInterval(timer) }
}
