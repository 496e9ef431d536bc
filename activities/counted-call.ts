import type { ModelRoute } from '../models.ts'
import type { ModelCall, Usage } from '../store/rows.ts'
import { estimatedUsage, toldUsage, type CallUsage } from '../store/usage.ts'
import { countTokens } from '../tokens.ts'
import type { Answer } from './answer.ts'

/** What a call of a model uses: told by its provider, or counted here. */
export interface CountedCall {
  /** Begins to count the prompt. */
  begin(): void
  /** What must be known of the call, should it be cut; resolves once the prompt is counted. */
  asked(): Promise<ModelCall>
  told(usage: Usage): CallUsage
  /** What the call used until now. */
  used(answer: Answer): Promise<CallUsage>
}

export function countedCall(
  model: string,
  { price }: ModelRoute,
  promptTokens: () => Promise<number>,
): CountedCall {
  let counting: Promise<number> | undefined
  const count = (): Promise<number> => (counting ??= promptTokens())
  const asked = async () => ({ model, price, prompt_tokens: await count() })
  const told = (usage: Usage) => toldUsage({ model, price }, usage)
  return {
    begin() {
      // Whoever asks for the number hears of the error; nobody may.
      count().catch(() => {})
    },
    asked,
    told,
    async used(answer) {
      const usage = answer.usage()
      if (usage) return told(usage)
      return estimatedUsage(await asked(), await countTokens(answer.written()))
    },
  }
}
