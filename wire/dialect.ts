import type { RunEvent } from './events.ts'
import type {
  Annotation,
  AnnotationDelta,
  Message,
  MessageContent,
  MessageContentDelta,
  MessageDeltaEvent,
  RunStepDeltaEvent,
  Thread,
  ToolCall,
  ToolCallDelta,
} from './openai.ts'
import type { Page } from './page.ts'
import type { AssistantObject } from './present/assistant.ts'
import type { RunObject } from './present/run.ts'
import type { RunSnapshot } from './present/run-snapshot.ts'
import type { RunStepObject } from './present/run-step.ts'

/**
 * Two dialects over the same rows. `assistants=v2` is what rows, presenters and the event log speak; this file says the
 * same in `assistants=v1`, and reads v1's words back. What v1 has no word for is said in the nearest one that its clients
 * know, because they end their polls and build their objects by those words alone.
 */
export type Dialect = 'v1' | 'v2'

/** What an `OpenAI-Beta` header asks for: the newer dialect where it names both. */
export function dialectOf(header: string): Dialect | undefined {
  const asked = header.split(',').map((part) => part.trim())
  if (asked.includes('assistants=v2')) return 'v2'
  return asked.includes('assistants=v1') ? 'v1' : undefined
}

/** What v1 calls the `file_ids` of an assistant or a run, by its id; one that is not named has none. */
export type FileIds = ReadonlyMap<string, string[]>

/** An answer of ours in v1's words; what is the same in both comes back as it is. */
export function answerInV1(answer: Answer, fileIds: FileIds): object {
  switch (answer.object) {
    case 'list':
      return { ...answer, data: answer.data.map((item) => answerInV1(item, fileIds)) }
    case 'assistant':
      return assistantInV1(answer, fileIds.get(answer.id) ?? [])
    case 'thread':
      return threadInV1(answer)
    case 'thread.message':
      return messageInV1(answer)
    case 'thread.message.delta':
      return messageDeltaInV1(answer)
    case 'thread.run':
      return runInV1(answer, fileIds.get(answer.id) ?? [])
    case 'thread.run.snapshot':
      return {
        ...answer,
        run: answerInV1(answer.run, fileIds),
        steps: answer.steps.map((step) => answerInV1(step, fileIds)),
        messages: answer.messages.map((message) => answerInV1(message, fileIds)),
      }
    case 'thread.run.step':
      return stepInV1(answer)
    case 'thread.run.step.delta':
      return stepDeltaInV1(answer)
    case 'assistant.deleted':
    case 'assistant.file':
    case 'assistant.file.deleted':
    case 'thread.deleted':
    case 'thread.message.deleted':
    case 'thread.message.file':
    case 'thread.import':
      return answer
    default:
      return answer satisfies never
  }
}

export type Answer =
  | Page<Answer & { id: string }>
  | AssistantObject
  | Thread
  | Message
  | MessageDeltaEvent
  | RunObject
  | RunStepObject
  | RunStepDeltaEvent
  | RunSnapshot
  | Unchanged

/** What has nothing in it that v1 would say otherwise. */
type Unchanged =
  | {
      id: string
      object:
        | 'assistant.deleted'
        | 'assistant.file'
        | 'assistant.file.deleted'
        | 'thread.deleted'
        | 'thread.message.deleted'
        | 'thread.message.file'
    }
  | { object: 'thread.import' }

/** The assistants and runs in an answer: what v1 shows of them is partly kept elsewhere. */
export function idsWithFiles(answer: Answer): string[] {
  if (answer.object === 'list') return answer.data.flatMap(idsWithFiles)
  return answer.object === 'assistant' || answer.object === 'thread.run' ? [answer.id] : []
}

export function eventInV1({ event, data }: RunEvent, fileIds: FileIds): RunEvent {
  // The log holds what our presenters made.
  const object = answerInV1(JSON.parse(data) as Answer, fileIds)
  return {
    event: event === 'thread.run.incomplete' ? 'thread.run.completed' : event,
    data: JSON.stringify(object),
  }
}

/** Which files of a message v1 shows: those that are attached for any tool, each once. */
export function messageFileIds(attachments: { file_id?: unknown }[]): string[] {
  const ids = attachments.map(({ file_id }) => file_id)
  return [...new Set(ids.filter((id) => typeof id === 'string'))]
}

// --- v2 said in v1 ---------------------------------------------------------------------------

function assistantInV1(assistant: AssistantObject, file_ids: string[]): object {
  const same = without(assistant, ['tool_resources', 'reasoning_effort'])
  return {
    ...same,
    tools: same.tools.map(toolInV1),
    file_ids,
    response_format: responseFormatInV1(same.response_format),
  }
}

function threadInV1(thread: Thread): object {
  return without(thread, ['tool_resources'])
}

function messageInV1({ attachments, content, ...same }: Message): object {
  return {
    ...same,
    content: content.map(contentInV1),
    file_ids: messageFileIds(attachments ?? []),
  }
}

function runInV1(run: RunObject, file_ids: string[]): object {
  const same = without(run, ['tool_resources', 'reasoning_effort', 'parallel_tool_calls'])
  return {
    ...same,
    // As v1's own documents say of a run that exceeds its tokens: it is complete, see incomplete_details. The helpers of
    // its clients poll for ever on a status that they do not know, and take only a known event for a stream's last run.
    status: same.status === 'incomplete' ? 'completed' : same.status,
    tools: same.tools.map(toolInV1),
    file_ids,
    usage: usageInV1(same.usage),
    tool_choice: toolChoiceInV1(same.tool_choice),
    response_format: responseFormatInV1(same.response_format),
  }
}

function stepInV1(step: RunStepObject): object {
  const { step_details: details, usage } = step
  return {
    ...without(step, ['expires_at']),
    step_details:
      details.type === 'tool_calls'
        ? { ...details, tool_calls: details.tool_calls.map(callInV1) }
        : details,
    usage: usageInV1(usage),
  }
}

function usageInV1(usage: RunObject['usage']): RunObject['usage'] {
  if (!usage) return null
  const { prompt_tokens, completion_tokens, total_tokens } = usage
  return { prompt_tokens, completion_tokens, total_tokens }
}

function stepDeltaInV1(event: RunStepDeltaEvent): object {
  const details = event.delta.step_details
  if (details?.type !== 'tool_calls' || !details.tool_calls) return event
  return {
    ...event,
    delta: { step_details: { ...details, tool_calls: details.tool_calls.map(callDeltaInV1) } },
  }
}

function messageDeltaInV1(event: MessageDeltaEvent): object {
  const { content, ...same } = event.delta
  if (!content) return event
  return { ...event, delta: { ...same, content: content.map(contentDeltaInV1) } }
}

function toolInV1(tool: RunObject['tools'][number]): object {
  switch (tool.type) {
    case 'code_interpreter':
      return tool
    case 'file_search':
      return { type: 'retrieval' }
    case 'function':
      return { type: 'function', function: without(tool.function, ['strict']) }
    default:
      return tool satisfies never
  }
}

/** v1 has no word for "some tool, whichever": `auto` is what it would have taken. */
function toolChoiceInV1(choice: RunObject['tool_choice']): RunObject['tool_choice'] | object {
  if (choice === 'required') return 'auto'
  if (typeof choice === 'string' || choice?.type !== 'file_search') return choice
  return { type: 'retrieval' }
}

/** A schema is more than v1 can say; that the answer is JSON it can. */
function responseFormatInV1(format: RunObject['response_format'] | undefined): unknown {
  if (typeof format !== 'object' || format?.type !== 'json_schema') return format
  return { type: 'json_object' }
}

function callInV1(call: ToolCall): object {
  if (call.type !== 'file_search') return call
  return { id: call.id, type: 'retrieval', retrieval: {} }
}

function callDeltaInV1(call: ToolCallDelta): object {
  if (call.type !== 'file_search') return call
  const { index, id } = call
  return { index, ...(id !== undefined && { id }), type: 'retrieval', retrieval: {} }
}

/** v1's clients know texts and images of files; a refusal and the address of an image are texts to them. */
function contentInV1(part: MessageContent): object {
  switch (part.type) {
    case 'text': {
      const { value, annotations } = part.text
      return textPart(value, annotations.map(annotationInV1))
    }
    case 'image_file':
      return { type: 'image_file', image_file: { file_id: part.image_file.file_id } }
    case 'image_url':
      return textPart(part.image_url.url)
    case 'refusal':
      return textPart(part.refusal)
    default:
      return part satisfies never
  }
}

function contentDeltaInV1(part: MessageContentDelta): object {
  const { index } = part
  switch (part.type) {
    case 'text': {
      const annotations = part.text?.annotations?.map(annotationInV1)
      return annotations ? { ...part, text: { ...part.text, annotations } } : part
    }
    case 'image_file': {
      const file_id = part.image_file?.file_id
      return { index, type: 'image_file', image_file: file_id === undefined ? {} : { file_id } }
    }
    // Which delta of its part this is cannot be seen here. An empty list adds nothing to one that is there already.
    case 'image_url':
      return { index, ...textPart(part.image_url?.url ?? '') }
    case 'refusal':
      return { index, ...textPart(part.refusal ?? '') }
    default:
      return part satisfies never
  }
}

function textPart(value: string, annotations: object[] = []): object {
  return { type: 'text', text: { value, annotations } }
}

/** v1 quotes what it cites; nothing, where nobody wrote the words down. */
function annotationInV1(annotation: Annotation | AnnotationDelta): object {
  if (annotation.type !== 'file_citation' || !annotation.file_citation) return annotation
  return { ...annotation, file_citation: { quote: '', ...annotation.file_citation } }
}

function without<T extends object, Key extends keyof T>(object: T, keys: Key[]): Omit<T, Key> {
  const left = { ...object }
  for (const key of keys) delete left[key]
  return left
}

// --- v1 read as v2 ---------------------------------------------------------------------------

/** `retrieval` was `file_search` without options. */
export function toolFromV1<Tool extends { type: string }>(tool: Tool) {
  if (tool.type === 'retrieval') return { type: 'file_search' as const }
  // The comparison above does not narrow a type parameter.
  return tool as Exclude<Tool, { type: 'retrieval' }>
}

/** The files of a v1 message serve whatever tools the runs of its thread will have. */
export function attachmentsFromV1(fileIds: string[]) {
  return fileIds.map((file_id) => ({
    file_id,
    tools: [{ type: 'code_interpreter' as const }, { type: 'file_search' as const }],
  }))
}
