import type { Logger } from '../log.ts'
import { deltaEvent, imageFile, type Delta } from '../wire/deltas.ts'
import { runEvent, type RunEvent } from '../wire/events.ts'
import { idFrom } from '../wire/ids.ts'
import { presentMessage } from '../wire/present/message.ts'
import { isTerminal, type RunStatus } from '../wire/run-status.ts'
import { madeSinceMessage, usesCode } from './code-files.ts'
import type { Db, Tx } from './db.ts'
import { createDeltaWriter, type TurnDeltas } from './delta-writer.ts'
import type { EventLog } from './events.ts'
import type {
  Attachment,
  AttemptFailure,
  ContentPart,
  MessageRow,
  ModelCall,
  RunRow,
  RunStepRow,
  ToolCallRow,
  TurnResult,
  TurnRow,
  Usage,
} from './rows.ts'
import { endMessage } from './message-end.ts'
import { endRun, type IncompleteReason, type RunEnd } from './run-end.ts'
import { lockRun } from './run-state.ts'
import { insert } from './sql.ts'
import { requireAction } from './tool-outputs.ts'
import { claimTurn } from './turn-claim.ts'
import { finishStep, insertStep, keepCalls, settleRun, stepBegins } from './turn-rows.ts'
import { append, ending, outlasting, structural, type Parts } from './turn-tx.ts'
import { insertUsage, sumOfUsage, type CallUsage, type CountedUsage } from './usage.ts'

/** One model turn of a run, written so that it may be attempted twice and happens once. */
export interface Turns extends AsyncDisposable {
  /**
   * Takes the turn for this attempt: whoever held it before can write nothing more. A turn that has a result is not
   * attempted again. What an earlier attempt has shown to clients is closed as incomplete, and new ids are used.
   */
  claim(wanted: WantedTurn): Promise<Claim>
  /** Hands the run to the client once our own tools of the step are done; nothing where the run is not in progress. */
  askClient(runId: string, stepId: RunStepRow['id']): Promise<void>
}

export interface WantedTurn {
  runId: string
  /** 0 for the first turn of the run. */
  turn: number
  /** A uuid; what the turn makes has its ids from it. */
  generationId: string
  /** The model to ask, by the name that clients use. */
  model: string
}

export type Claim =
  | { kind: 'done'; result: TurnResult }
  | { kind: 'stopped'; status: RunStatus | 'gone' }
  | { kind: 'claimed'; turn: ClaimedTurn }

export interface ClaimedTurn extends Disposable {
  run: RunRow
  /** 0 for the first turn of the run. */
  number: number
  /** Which attempt at the turn this is: one that was replaced has a lower number. */
  fence: number
  /** The model to ask, by the name that clients use. */
  model: string
  /** What the run has used before this call. */
  spent: Usage
  /** Aborts when another attempt has taken over, or the run has ended. */
  lost: AbortSignal
  /** The id of the turn's call at this position. */
  callId(index: number): ToolCallRow['id']
  /**
   * Makes the step and the message that the model has begun to write. It begins with the images that code has shown since the
   * run's last message. `call` is kept, in case it is cut.
   */
  openMessage(call: ModelCall): Promise<void>
  /**
   * Makes the step that holds the tool calls of this turn. The message before it ends there, with what was `said` in it: clients
   * know one open step at a time.
   */
  openToolStep(call: ModelCall, said: ContentPart[]): Promise<void>
  pushText(index: number, type: 'text' | 'refusal', piece: TextPiece): void
  pushCall(index: number, call: Pick<TurnCall, 'id' | 'type' | 'name'>): void
  pushArguments(index: number, type: TurnCall['type'], text: string): void
  /** Resolves once clients can read all that was pushed: before an attempt that failed leaves its message to the next. */
  written(): Promise<void>
  /**
   * Keeps why this attempt failed: should it be the last, the run's `last_error` says so. And what it used, where the
   * provider has told it all the same.
   */
  keepFailure(failure: AttemptFailure, used?: CallUsage): Promise<void>
  /** Keeps what the model has said, as its result and for ever; ends the run where nothing is left to do. */
  commit(end: TurnEnd): Promise<TurnResult>
  /** Ends the run in the middle of the turn: cancelled, past its deadline, or at one of its limits. Counts what was used. */
  stop(how: RunEnd, used: CallUsage | undefined): Promise<TurnResult>
}

/** A piece of a message; one with an annotation is the mark that it stands for, whose position is among those of the message. */
export interface TextPiece {
  text: string
  /** Set for the first piece of its part. */
  first: boolean
  annotation?: { index: number } & object
}

export interface TurnCall {
  id: ToolCallRow['id']
  type: ToolCallRow['type']
  name: string
  arguments: string
  runsOn: ToolCallRow['runs_on']
  /** Set where the call is wrong in itself: the model is told so and nothing is carried out. */
  output: string | null
}

export interface TurnEnd {
  /** What the model wrote. */
  content: ContentPart[]
  calls: TurnCall[]
  used: CallUsage
  /** Whether a limit cut the model short in the middle of its message. */
  isCut: boolean
  /** Set where a limit is met: the run ends as incomplete. */
  incomplete?: IncompleteReason | undefined
}

export function createTurns(db: Db, events: EventLog, log: Logger): Turns {
  const writer = createDeltaWriter(db, events, log)
  return {
    // A claim that is repeated takes the turn from nobody but itself.
    async claim(wanted) {
      const claim = await outlasting(events, wanted.runId, () =>
        db.tx((tx) => claimTurn(tx, events, wanted)),
      )
      if (claim.kind !== 'claimed') return claim
      const { run, row, lastSeq, spent } = claim
      const deltas = writer.open({ ...row, runId: run.id, lastSeq })
      return { kind: 'claimed', turn: claimedTurn({ db, events }, { run, row, spent }, deltas) }
    },
    askClient: (runId, stepId) =>
      db.tx(async (tx) => {
        const run = await lockRun(tx, runId)
        if (run?.status !== 'in_progress') return
        await events.append(tx, runId, await requireAction(tx, run, stepId))
      }),
    [Symbol.asyncDispose]: () => writer[Symbol.asyncDispose](),
  }
}

function claimedTurn(
  parts: Parts,
  { run, row, spent }: { run: RunRow; row: TurnRow; spent: CountedUsage },
  deltas: TurnDeltas,
): ClaimedTurn {
  // Ids follow from the generation, so that an attempt which nobody has seen is repeated under the same ids.
  const idOf = <Kind extends 'message' | 'step' | 'call'>(kind: Kind, n: number) =>
    idFrom(kind, row.generation_id, row.generation * 1000 + n)
  const messageId = idOf('message', 0)
  const messageStepId = idOf('step', 1)
  const toolStepId = idOf('step', 2)
  const opened = { message: false, tools: false }
  /** Whether the message has ended before its turn. */
  let isSaid = false
  /** What its message begins with. */
  let images: ContentPart[] = []
  const fenced = { ...parts, run, row, deltas }

  /** With its step. */
  async function closeMessage(
    tx: Tx,
    content: ContentPart[],
    { isCut, usage }: { isCut: boolean; usage: Usage | null },
  ): Promise<RunEvent[]> {
    const incompleteReason = isCut ? 'max_tokens' : null
    return [
      await endMessage(tx, run.id, messageId, {
        content: [...images, ...content],
        incompleteReason,
      }),
      ...(await finishStep(tx, run, messageStepId, usage)),
    ]
  }

  return {
    run,
    number: row.turn,
    get fence() {
      return deltas.fence
    },
    model: row.model ?? run.model,
    spent: spent.usage,
    lost: deltas.lost,
    callId: (index) => idOf('call', 10 + index),
    async openMessage(call) {
      opened.message = true
      // Earlier turns are over, so this stays as it is.
      const made = usesCode(run) && (await madeSinceMessage(parts.db.sql, run.id, row.turn))
      images = made
        ? made.images.map((id) => ({ type: 'image_file', image_file: imageFile(id) }))
        : []
      await structural(fenced, messageStepId, call, async (tx) => {
        const step = await insertStep(tx, run, row, {
          id: messageStepId,
          type: 'message_creation',
          message_id: messageId,
        })
        const [message] = await insert<MessageRow>(tx.sql, 'messages', [
          {
            id: messageId,
            project_id: run.project_id,
            thread_id: run.thread_id,
            created_at: new Date(),
            role: 'assistant',
            status: 'in_progress',
            content: [],
            attachments: made ? made.files.map(attachedCodeFile) : [],
            metadata: {},
            assistant_id: run.assistant_id,
            run_id: run.id,
            turn: row.turn,
          },
        ])
        if (!message) throw new Error('INSERT INTO messages returned no row')
        const object = presentMessage(message)
        return [
          ...stepBegins(run, step),
          runEvent('thread.message.created', object),
          runEvent('thread.message.in_progress', object),
          ...(made ? made.images : []).map((fileId, index) =>
            deltaEvent({ of: 'image', id: messageId, index, fileId }),
          ),
        ]
      })
    },
    async openToolStep(call, said) {
      opened.tools = true
      isSaid = opened.message
      await structural(fenced, toolStepId, call, async (tx) => [
        ...(isSaid ? await closeMessage(tx, said, { isCut: false, usage: null }) : []),
        ...stepBegins(run, await insertStep(tx, run, row, { id: toolStepId, type: 'tool_calls' })),
      ])
    },
    pushText(index, type, piece) {
      const at = images.length + index
      deltas.push({ of: 'message', id: messageId, index: at, type, ...piece } satisfies Delta)
    },
    pushCall(index, { id, type, name }) {
      deltas.push({ of: 'call', stepId: toolStepId, index, opened: { id, type, name } })
    },
    pushArguments(index, type, text) {
      deltas.push({ of: 'arguments', stepId: toolStepId, index, type, text })
    },
    written: () => deltas.written(),
    async keepFailure(failure, used) {
      await outlasting(parts.events, run.id, () =>
        parts.db.tx(async (tx) => {
          const current = await lockRun(tx, run.id)
          // Its end has counted what it used.
          if (!current || isTerminal(current.status)) return
          // A call that was counted is a generation of its own, even where clients saw nothing of it.
          const [kept] = await tx.sql(
            `UPDATE run_turns SET failure = $4, failed_at = clock_timestamp(), emitted = emitted OR $5
             WHERE run_id = $1 AND turn = $2 AND fence = $3 RETURNING turn`,
            [run.id, row.turn, deltas.fence, JSON.stringify(failure), used !== undefined],
          )
          if (kept && used) await insertUsage(tx, run, row, used)
          if (kept && failure.is_filtered) {
            await tx.sql(`UPDATE messages SET incomplete_reason = 'content_filter' WHERE id = $1`, [
              messageId,
            ])
          }
        }),
      )
    },
    async commit(end) {
      return ending(fenced, async (tx, current, pending) => {
        await insertUsage(tx, run, row, end.used)
        const said: RunEvent[] = [...pending]
        if (isSaid) {
          // Words that came after the calls are kept all the same, though no stream has them.
          const content = JSON.stringify([...images, ...end.content])
          await tx.sql('UPDATE messages SET content = $2 WHERE id = $1', [messageId, content])
        } else if (opened.message) {
          const usage = end.calls.length > 0 ? null : end.used.usage
          said.push(...(await closeMessage(tx, end.content, { isCut: end.isCut, usage })))
        }
        const outcome = opened.tools
          ? await keepCalls(tx, run, row, toolStepId, end)
          : ({ kind: 'ended', status: end.incomplete ? 'incomplete' : 'completed' } as const)
        // Nobody else counts for this run while the turn is ours, so the sum need not be asked for.
        said.push(...(await settleRun(tx, current, outcome, end, sumOfUsage(spent, end.used))))
        await append(fenced, tx, said, { last: outcome.kind === 'ended' })
        return outcome
      })
    },
    async stop(how, used) {
      return ending(fenced, async (tx, current, pending) => {
        if (used) await insertUsage(tx, run, row, used)
        // Before the message is put together from the log.
        if (pending.length > 0) await append(fenced, tx, pending)
        const ended = await endRun(tx, parts.events, current, how)
        const outcome = { kind: 'ended', status: ended.status } as const
        return outcome
      })
    },
    [Symbol.dispose]: () => deltas[Symbol.dispose](),
  }
}

/** A file that code has written is with the message that follows, whether the model remembers to link it or not. */
function attachedCodeFile(file_id: string): Attachment {
  return { file_id, tools: [{ type: 'code_interpreter' }] }
}
