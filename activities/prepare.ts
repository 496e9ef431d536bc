import type { ModelRoute } from '../models.ts'
import { usesCode } from '../store/code-files.ts'
import type { NewCut } from '../store/context.ts'
import type { Store } from '../store/index.ts'
import type { Json, RunRow } from '../store/rows.ts'
import type { ClaimedTurn } from '../store/turns.ts'
import type { ChatCompletionCreateParamsStreaming as ChatRequest } from '../wire/openai.ts'
import { metBudget } from './budget.ts'
import { linksTo, noFiles } from './code-links.ts'
import type { Deps } from './index.ts'
import { keptParts, type EarlierCut, type Kept } from './context.ts'
import { readImages } from './images.ts'
import { countPieces, messagePiece, roundPiece, settingsPiece } from './prompt-size.ts'
import { chatRequest, roundsOf } from './prompt.ts'
import { readParts, type PromptParts, type PromptRound, type SizedMessage } from './thread-parts.ts'

/** What is asked of the model in a turn, or the limit of the run that leaves no room to ask. */
export type Prepared =
  | {
      request: ChatRequest
      /** What stands in the model's text for an annotation, and that annotation. */
      marks: ReadonlyMap<string, Json>
      /** About how many tokens the prompt has; counted when it is called for, piece by piece. */
      promptTokens(): Promise<number>
      /** Resolves once the run says what its prompt leaves out; to be awaited before the turn is kept. */
      kept: Promise<void>
    }
  | { incomplete: 'max_prompt_tokens' | 'max_completion_tokens' }

type KeptParts = Kept<SizedMessage, PromptRound>

/** Puts together what the model is told in a turn. */
export async function prepare(
  { store, log }: Pick<Deps, 'store' | 'log'>,
  { run, number, fence, spent }: Pick<ClaimedTurn, 'run' | 'number' | 'fence' | 'spent'>,
  route: ModelRoute,
): Promise<Prepared> {
  const incomplete = metBudget(run, spent)
  if (incomplete) return { incomplete }
  const completionTokens = leftOf(run.max_completion_tokens, spent.completion_tokens)
  const promptTokens = leftOf(run.max_prompt_tokens, spent.prompt_tokens)

  const view = { threadId: run.thread_id, runId: run.id }
  const rounds = number === 0 ? [] : roundsOf(await store.context.own(run.id))
  const dataFiles = usesCode(run) ? await store.codeFiles.of(run) : noFiles
  const settings = settingsPiece({ run, route, dataFiles })
  const room = Math.min(roomOf(route.contextSize, completionTokens), promptTokens ?? Infinity)
  const parts = await readParts(store, {
    view,
    last: lastMessages(run),
    settings,
    rounds,
    route,
    room,
  })
  const shown = keptParts(parts, room - parts.settings, await earlierCut(store, run, parts, room))
  // What does not fit into the context alone is for the provider to refuse: sizes are not exact.
  if (promptTokens !== null && parts.settings + shown.tokens > promptTokens) {
    return { incomplete: 'max_prompt_tokens' }
  }

  const thread = [...shown.head, ...shown.tail]
  const pieces = [
    settings,
    ...thread.map((message) => messagePiece(message, route)),
    ...shown.rounds.map(roundPiece),
  ]
  const cut = newCut(parts, shown)
  const images = route.quirks.no_images
    ? new Map()
    : await readImages(store, run.project_id, thread)
  return {
    request: chatRequest({
      run,
      route,
      turn: number,
      thread,
      rounds: shown.rounds,
      images,
      completionTokens,
      dataFiles,
    }),
    marks: linksTo(dataFiles),
    promptTokens: async () =>
      (await countPieces(pieces)).reduce((total, tokens) => total + tokens, 0),
    kept: isSaid(run, cut)
      ? Promise.resolve()
      : store.context.keepCut(view, { number, fence }, cut).catch((error: unknown) => {
          // What the model says is worth more than the note of what it was not shown.
          log.error({ err: error, run_id: run.id }, 'what the prompt left out was not kept')
        }),
  }
}

function leftOf(limit: number | null, spent: number): number | null {
  return limit === null ? null : limit - spent
}

function lastMessages({ truncation_strategy: { type, last_messages: n } }: RunRow): number | null {
  return type === 'last_messages' ? n : null
}

/** Tokens that stay free for an answer of which nobody has said how long it may be: a quarter of a small context. */
const answerTokens = 16_384

/** Tokens of the context that a prompt may have. A long answer does not take more than half of it. */
function roomOf(contextSize: number, completionTokens: number | null): number {
  const answer =
    completionTokens === null
      ? Math.min(answerTokens, contextSize / 4)
      : Math.min(completionTokens, contextSize / 2)
  return Math.floor(contextSize - answer)
}

/** The cut to begin from: of this run's earlier turns, else of the thread's earlier runs, where one is needed. */
async function earlierCut(
  store: Store,
  run: RunRow,
  { isWhole, settings, newest, rounds }: PromptParts,
  room: number,
): Promise<EarlierCut | undefined> {
  if (run.context) return { ...run.context, isOwn: true }
  const tokens = [...newest, ...rounds].reduce((sum, part) => sum + part.tokens, settings)
  if ((isWhole && tokens <= room) || lastMessages(run) !== null) return undefined
  const cut = await store.context.cutBefore(run)
  return cut && { ...cut, isOwn: false }
}

/** What is left out of the parts that there are; undefined where nothing is. */
function newCut(parts: PromptParts, { head, tail, rounds }: KeptParts): NewCut | undefined {
  const callsIn = (some: PromptRound[]) => some.reduce((sum, { calls }) => sum + calls, 0)
  const dropped_tool_calls = callsIn(parts.rounds) - callsIn(rounds)
  const isShownWhole = parts.isAll && head.length + tail.length === parts.newest.length
  if (isShownWhole) {
    if (dropped_tool_calls === 0) return undefined
    return { dropped_tool_calls, head_until: null, tail_from: null, headMessages: 0 }
  }
  return {
    dropped_tool_calls,
    head_until: head.at(-1)?.seq ?? null,
    tail_from: tail[0]?.seq ?? null,
    headMessages: head.length,
  }
}

/** Whether the run says it already. */
function isSaid({ context }: RunRow, cut: NewCut | undefined): cut is undefined {
  return (
    cut === undefined ||
    (context?.dropped_tool_calls === cut.dropped_tool_calls &&
      context.head_until === cut.head_until &&
      context.tail_from === cut.tail_from)
  )
}
