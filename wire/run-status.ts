/** The status machine of a Run: the only list of which status may follow which (spec section 3). */
const following = {
  // Incomplete: outputs were handed in, and no model turn is left to read them.
  queued: ['in_progress', 'incomplete', 'cancelling', 'cancelled', 'expired', 'failed'],
  in_progress: [
    'requires_action',
    'completed',
    'incomplete',
    'cancelling',
    'cancelled',
    'expired',
    'failed',
  ],
  // Incomplete: its workflow was begun anew, and no turn is left by a limit that is lower now.
  requires_action: ['queued', 'incomplete', 'cancelling', 'cancelled', 'expired', 'failed'],
  cancelling: ['cancelled', 'completed', 'incomplete', 'failed'],
  completed: [],
  incomplete: [],
  failed: [],
  cancelled: [],
  expired: [],
} as const satisfies Record<string, readonly string[]>

export type RunStatus = keyof typeof following
export type TerminalStatus = 'completed' | 'incomplete' | 'failed' | 'cancelled' | 'expired'

export const runStatuses = Object.keys(following) as RunStatus[]

export function isTerminal(status: RunStatus): status is TerminalStatus {
  return following[status].length === 0
}

/** A run that waits for nobody: what poll helpers stop at, beside the terminal ones. */
export function isSettled(status: RunStatus): boolean {
  return isTerminal(status) || status === 'requires_action'
}

/** The statuses from which `next` may be reached: the `WHERE status IN (...)` of a guarded move. */
export function mayBecome(next: RunStatus): RunStatus[] {
  return runStatuses.filter((status) => (following[status] as readonly string[]).includes(next))
}
