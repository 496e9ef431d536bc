import type { OnActiveRun as Mode } from '../store/rows.ts'
import { invalidValue } from '../wire/errors.ts'
import { OnActiveRun } from './assistants.schema.ts'
import type { Context } from './context.ts'

/** Ours: what a request asks for where its thread is busy, for clients that cannot add a field to the body. */
export const onActiveRunHeader = 'Longrun-On-Active-Run'

/** Null where the header is not sent. Throws invalidValue. */
export function onActiveRunOf(ctx: Context): Mode | null {
  const value = ctx.get(onActiveRunHeader)
  if (value === '') return null
  const parsed = OnActiveRun.safeParse(value)
  if (!parsed.success) throw invalidValue(onActiveRunHeader, value, OnActiveRun.options)
  return parsed.data
}
