import { z } from 'zod'

import type { Tokens } from '../../store/passed-usage.ts'
import { MAX_INTEGER } from '../../wire/limits.ts'
import { jsonIn } from './json.ts'

/**
 * The tokens that an answer, or one event of a stream, says were used: in the words of chat completions or in those of
 * responses, images and transcriptions. Undefined where it says nothing.
 */
export function tokensIn(value: unknown): Tokens | undefined {
  const { data } = Answer.safeParse(value)
  return tokensOf(data?.response?.usage ?? data?.usage)
}

/** The same for the end of an answer that is too long to be read whole: `usage` comes after what was made. */
export function tokensInTail(text: string): Tokens | undefined {
  const at = text.lastIndexOf('"usage"')
  const from = text.indexOf('{', at)
  if (at < 0 || from < 0) return undefined
  let depth = 0
  for (let to = from; to < text.length; to += 1) {
    if (text[to] === '{') depth += 1
    if (text[to] === '}') depth -= 1
    if (depth === 0) return tokensOf(Usage.safeParse(jsonIn(text.slice(from, to + 1))).data)
  }
  return undefined
}

const Count = z.number().int().min(0).max(MAX_INTEGER).nullish().catch(null)
const Details = z.object({ cached_tokens: Count, reasoning_tokens: Count }).nullish().catch(null)
const Usage = z
  .object({
    prompt_tokens: Count,
    input_tokens: Count,
    completion_tokens: Count,
    output_tokens: Count,
    prompt_tokens_details: Details,
    input_tokens_details: Details,
    completion_tokens_details: Details,
    output_tokens_details: Details,
  })
  .nullish()
  .catch(null)
const Answer = z.object({
  usage: Usage,
  response: z.object({ usage: Usage }).nullish().catch(null),
})

function tokensOf(usage: z.infer<typeof Usage>): Tokens | undefined {
  if (!usage) return undefined
  const taken = usage.prompt_tokens_details ?? usage.input_tokens_details
  const made = usage.completion_tokens_details ?? usage.output_tokens_details
  return {
    prompt: usage.prompt_tokens ?? usage.input_tokens ?? null,
    completion: usage.completion_tokens ?? usage.output_tokens ?? null,
    cached: taken?.cached_tokens ?? null,
    reasoning: made?.reasoning_tokens ?? null,
  }
}
