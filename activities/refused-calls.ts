import type { RunFailure, ToolCallRow } from '../store/rows.ts'

/** For so many turns in a row a model may do nothing but call one tool in a way that cannot be carried out. */
export const mostRefusedTurns = 3

/**
 * Why a run is not to go on whose model makes the same mistake again and again, as of a turn that is kept; undefined where it
 * may still mend it. `calls` are those of the run, in order.
 */
export function refusedAgain(
  calls: ToolCallRow[],
  turn: number,
  model: string,
): RunFailure | undefined {
  const turns = Array.from({ length: mostRefusedTurns }, (_, n) =>
    calls.filter((call) => call.turn === turn - n),
  )
  const last = turns[0]?.at(-1)
  const isSame = (call: ToolCallRow): boolean => isRefused(call) && call.name === last?.name
  if (!last || !turns.every((made) => made.length > 0 && made.every(isSame))) return undefined
  const why = (last.output ?? '').replace(/^Error: /, '')
  const message = `The model '${model}' called '${last.name}' in ${mostRefusedTurns} turns in a row as it cannot be called. The last time it was told: ${why}`
  return { code: 'server_error', message }
}

/** A call that was answered without being carried out. */
function isRefused({ runs_on, output, fence }: ToolCallRow): boolean {
  return runs_on === 'server' && output !== null && fence === 0
}
