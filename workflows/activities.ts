import { ActivityCancellationType, proxyActivities } from '@temporalio/workflow'

import type { Activities } from '../activities/index.ts'

/**
 * The timeout policies, by name. All activities are on the workflow's own task queue, so that they may start eagerly.
 * A heartbeat that stays away for five seconds means that the worker is gone: a run goes on elsewhere within ten.
 */
const heartbeatTimeout = '5s'

/**
 * The model streams for as long as the run may last. Retries are for what a provider does to it: a worker that vanished
 * is the workflow's to replace, since that says nothing against the provider and must not use up its attempts.
 */
export function modelPolicy(remainingMs: number, attempts: number) {
  return proxyActivities<Activities>({
    scheduleToCloseTimeout: remainingMs + deadlineGraceMs,
    heartbeatTimeout,
    retry: {
      initialInterval: '500ms',
      backoffCoefficient: 2,
      maximumInterval: '20s',
      maximumAttempts: attempts,
      nonRetryableErrorTypes: ['TemporalTimeout:Heartbeat'],
    },
    cancellationType: ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
  })
}

/** A turn ends itself at the deadline; the server's clock is the one that ends it where the worker is gone. */
const deadlineGraceMs = 2000

/** `hostQueue` is that of the one process that has a sandbox; who does not take the activity from it soon is gone. */
export function toolPolicy(remainingMs: number, hostQueue?: string) {
  return proxyActivities<Activities>({
    ...(hostQueue !== undefined && { taskQueue: hostQueue, scheduleToStartTimeout: '5s' }),
    scheduleToCloseTimeout: remainingMs + deadlineGraceMs,
    heartbeatTimeout,
    retry: {
      initialInterval: '500ms',
      maximumInterval: '10s',
      maximumAttempts: 5,
      nonRetryableErrorTypes: ['TemporalTimeout:Heartbeat'],
    },
    cancellationType: ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
  })
}

/** Short statements against Postgres: repeated until they have gone through. */
export const rows = proxyActivities<Activities>({
  startToCloseTimeout: '30s',
  retry: { initialInterval: '500ms', maximumInterval: '10s' },
})
