import { describe, expect, test } from 'vitest'

import {
  isSettled,
  isTerminal,
  mayBecome,
  runStatuses,
  type RunStatus,
} from '../../wire/run-status.ts'

/** From the documentation of the life of a run: what may come right before each status. */
const before: Record<RunStatus, RunStatus[]> = {
  queued: ['requires_action'],
  in_progress: ['queued'],
  requires_action: ['in_progress'],
  cancelling: ['queued', 'in_progress', 'requires_action'],
  completed: ['in_progress', 'cancelling'],
  incomplete: ['queued', 'in_progress', 'requires_action', 'cancelling'],
  failed: ['queued', 'in_progress', 'requires_action', 'cancelling'],
  cancelled: ['queued', 'in_progress', 'requires_action', 'cancelling'],
  // What was cancelled in time did not expire.
  expired: ['queued', 'in_progress', 'requires_action'],
}
const terminal: RunStatus[] = ['completed', 'incomplete', 'failed', 'cancelled', 'expired']

describe('a run', () => {
  test.each(Object.entries(before))('becomes %s only from %j', (status, allowed) => {
    expect(mayBecome(status as RunStatus).toSorted()).toEqual(allowed.toSorted())
  })

  test('that has ended stays as it ended', () => {
    expect(runStatuses.filter(isTerminal).toSorted()).toEqual(terminal.toSorted())
    for (const status of runStatuses) {
      expect(mayBecome(status).filter(isTerminal)).toEqual([])
    }
  })

  test('can come to an end from wherever it stands', () => {
    for (const status of runStatuses.filter((one) => !isTerminal(one))) {
      for (const end of ['cancelled', 'failed'] as const) {
        expect(mayBecome(end)).toContain(status)
      }
    }
  })

  test('is settled when it waits for nobody but its client', () => {
    expect(runStatuses.filter(isSettled).toSorted()).toEqual(
      [...terminal, 'requires_action'].toSorted(),
    )
  })
})
