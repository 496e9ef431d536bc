import { badToolChoice } from '../wire/errors.ts'
import type { RunRow } from './rows.ts'

/** Throws an ApiError where the run is to call a tool that it does not have. */
export function assertToolChoice({
  tool_choice: choice,
  tools,
}: Pick<RunRow, 'tool_choice' | 'tools'>): void {
  if (choice === 'auto' || choice === 'none') return
  if (tools.length === 0)
    throw badToolChoice("'tool_choice' is only allowed when 'tools' are specified.")
  if (typeof choice === 'string') return
  // As the schema of the body has it.
  const { type, function: named } = choice as { type: string; function?: { name: string } }
  if (type !== 'function') {
    if (tools.some((tool) => tool.type === type)) return
    throw badToolChoice(`no tool of type '${type}' was specified in the 'tools' parameter.`)
  }
  const isThere = tools.some(
    (tool) => tool.type === 'function' && tool.function.name === named?.name,
  )
  if (isThere) return
  throw badToolChoice(`no function named '${named?.name}' was specified in the 'tools' parameter.`)
}
