import type { Context } from '@temporalio/activity'
import { CancelledFailure } from '@temporalio/common'

/** Why Temporal or a client stops an activity: `replaced` is everything that takes it away from this worker. */
export type StopReason = 'cancelled' | 'replaced' | 'shutdown'

export interface StopSignal<Reason> extends Disposable {
  /** Aborts with a reason; the first one stands. */
  signal: AbortSignal
  because(reason: Reason): void
}

/** What may stop an activity, as one signal. `onControl` tells of a client's cancel, sooner than Temporal does. */
export function stopSignal<Reason>(
  context: Context,
  onControl: (act: () => void) => Disposable,
): StopSignal<Reason | StopReason> {
  const abort = new AbortController()
  const control = onControl(() => abort.abort('cancelled' satisfies StopReason))
  // Read once, here: in a listener the context would be gone.
  const temporal = context.cancellationSignal
  const onTemporal = (): void => {
    const reason: unknown = temporal.reason
    const name = reason instanceof CancelledFailure ? reason.message : ''
    if (name === 'WORKER_SHUTDOWN') abort.abort('shutdown' satisfies StopReason)
    else abort.abort((name === 'CANCELLED' ? 'cancelled' : 'replaced') satisfies StopReason)
  }
  temporal.addEventListener('abort', onTemporal)
  return {
    signal: abort.signal,
    because: (reason) => abort.abort(reason),
    [Symbol.dispose]() {
      control[Symbol.dispose]()
      temporal.removeEventListener('abort', onTemporal)
    },
  }
}
