import type { ModelRoute } from '../models.ts'
import type { Store } from '../store/index.ts'
import type { RunRow } from '../store/rows.ts'
import type { ClaimedTurn } from '../store/turns.ts'
import type { ChatCompletionCreateParamsStreaming as ChatRequest } from '../wire/openai.ts'
import { chatRequest } from './prompt.ts'

/** What is asked of the model in a turn, or the limit of the run that leaves no room to ask. */
export type Prepared =
  | {
      request: ChatRequest
      /** About how many tokens the prompt has; counted when it is called for, piece by piece. */
      promptTokens(): Promise<number>
    }
  | { incomplete: 'max_prompt_tokens' | 'max_completion_tokens' }

/** How many of the newest messages of a thread are looked at; more than any context holds. */
const threadWindow = 2000

/** Puts together what the model is told in a turn. */
export async function prepare(
  store: Store,
  { run, number }: ClaimedTurn,
  route: ModelRoute,
): Promise<Prepared> {
  const thread = await store.messages.newest(run, windowOf(run))
  const own = number === 0 ? { messages: [], calls: [] } : await store.messages.ofRun(run.id)
  const request = chatRequest({ run, route, turn: number, thread, own })
  return { request, promptTokens: async () => Math.ceil(JSON.stringify(request).length / 4) }
}

function windowOf({ truncation_strategy: { type, last_messages: n } }: RunRow): number {
  return type === 'last_messages' && n !== null ? Math.min(n, threadWindow) : threadWindow
}
