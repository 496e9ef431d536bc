import type { RunRow, Usage } from '../store/rows.ts'

/** Which limit a run has met that has used this much; limits are over all its model calls. Undefined where none is. */
export function metBudget(
  run: Pick<RunRow, 'max_prompt_tokens' | 'max_completion_tokens'>,
  ...used: Usage[]
): 'max_prompt_tokens' | 'max_completion_tokens' | undefined {
  if (
    reaches(
      run.max_prompt_tokens,
      used.map(({ prompt_tokens }) => prompt_tokens),
    )
  ) {
    return 'max_prompt_tokens'
  }
  return reaches(
    run.max_completion_tokens,
    used.map(({ completion_tokens }) => completion_tokens),
  )
    ? 'max_completion_tokens'
    : undefined
}

function reaches(limit: number | null, used: number[]): boolean {
  return limit !== null && used.reduce((sum, tokens) => sum + tokens, 0) >= limit
}
