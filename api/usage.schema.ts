import { z } from 'zod'

import { invalidParameter, missingParameter } from '../wire/errors.ts'
import { MAX_ID_CHARS } from '../wire/limits.ts'
import { refuse, text } from './validation.ts'

const Day = z.string().check((ctx) => {
  const isDay = /^\d{4}-\d\d-\d\d$/.test(ctx.value) && isReal(ctx.value)
  if (!isDay) {
    refuse(ctx, (path) =>
      invalidParameter(path, 'a day of the years 0001 to 9999 looks like 2026-11-23.'),
    )
  }
})

/** Postgres has no year 0. */
function isReal(day: string): boolean {
  if (day < '0001') return false
  const date = new Date(`${day}T00:00:00Z`)
  return !Number.isNaN(date.getTime()) && date.toISOString().startsWith(day)
}

/** Ours: without an id, the project's own. Days are UTC, both included; without them, the last thirty. */
export const UsageQuery = z
  .strictObject({
    kind: z.enum(['project', 'assistant', 'thread']).default('project'),
    id: text(MAX_ID_CHARS, 1).optional(),
    from: Day.optional(),
    to: Day.optional(),
  })
  .check((ctx) => {
    const { kind, id } = ctx.value
    if (kind !== 'project' && id === undefined) refuse(ctx, missingParameter, ['id'])
  })
