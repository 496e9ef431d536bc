import type { ModelRoute } from '../models.ts'
import type {
  ContentPart,
  FunctionTool,
  MessageRow,
  RunRow,
  ToolCallRow,
  ToolRow,
} from '../store/rows.ts'
import type {
  ChatCompletionCreateParamsStreaming as ChatRequest,
  ChatCompletionMessageParam as ChatMessage,
  ChatCompletionTool as ChatTool,
} from '../wire/openai.ts'

/** All that the model is to be told in one turn. */
export interface PromptInput {
  run: RunRow
  route: ModelRoute
  turn: number
  /** The thread before this run, oldest first; it may be cut at the old end. */
  thread: MessageRow[]
  /** What this run has said and called so far. */
  own: { messages: MessageRow[]; calls: ToolCallRow[] }
}

/** The request of a turn for a `/chat/completions` endpoint. Its beginning stays the same from turn to turn, for the provider's cache. */
export function chatRequest({ run, route, turn, thread, own }: PromptInput): ChatRequest {
  const tools = run.tool_choice === 'none' ? [] : run.tools.map(chatTool)
  const format = run.response_format
  const said: ChatMessage[] = [
    ...(run.instructions ? [{ role: 'system' as const, content: run.instructions }] : []),
    ...fitting(lastMessages(thread, run), route.contextSize).flatMap(threadMessage),
    ...turnsSoFar(own),
  ]
  return {
    model: route.upstreamName,
    stream: true,
    ...(!route.quirks.no_stream_options && { stream_options: { include_usage: true } }),
    // A run on an empty thread is allowed, and no endpoint takes an empty list.
    messages: said.length > 0 ? said : [{ role: 'user', content: '(There are no messages yet.)' }],
    ...(tools.length > 0 && { tools }),
    // A choice that is repeated would make the model call for ever: it is for the first turn.
    ...(tools.length > 0 &&
      turn === 0 &&
      run.tool_choice !== 'auto' && {
        tool_choice: toolChoice(run.tool_choice),
      }),
    ...(tools.length > 0 &&
      !run.parallel_tool_calls &&
      !route.quirks.no_parallel_tool_calls && { parallel_tool_calls: false }),
    // One is everybody's default, and reasoning models refuse to be told.
    ...(run.temperature !== null && run.temperature !== 1 && { temperature: run.temperature }),
    ...(run.top_p !== null && run.top_p !== 1 && { top_p: run.top_p }),
    ...(run.reasoning_effort !== null && {
      reasoning_effort: run.reasoning_effort as ChatRequest['reasoning_effort'],
    }),
    ...(typeof format === 'object' && {
      response_format: format as unknown as ChatRequest['response_format'],
    }),
    ...(run.max_completion_tokens !== null && {
      [route.quirks.max_tokens_name]: run.max_completion_tokens,
    }),
  }
}

/** The built-in tools as the functions that every model understands. */
const builtIn: Record<'code_interpreter' | 'file_search', FunctionTool> = {
  code_interpreter: {
    name: 'code_interpreter',
    description:
      'Runs Python in a sandbox that keeps its state, and returns what it prints and the value of the last expression. ' +
      'Files are in /mnt/data.',
    parameters: {
      type: 'object',
      properties: { code: { type: 'string', description: 'The Python code to run.' } },
      required: ['code'],
      additionalProperties: false,
    },
  },
  file_search: {
    name: 'file_search',
    description:
      'Searches the files of the user and returns passages, each with the marker to cite it by.',
    parameters: {
      type: 'object',
      properties: {
        queries: { type: 'array', items: { type: 'string' }, minItems: 1, maxItems: 5 },
      },
      required: ['queries'],
      additionalProperties: false,
    },
  },
}

/** Which of our tools a function name stands for, if the run has it. */
export function builtInTool(
  name: string,
  tools: ToolRow[],
): 'code_interpreter' | 'file_search' | undefined {
  const isDeclared = tools.some((tool) => tool.type === name)
  return isDeclared && (name === 'code_interpreter' || name === 'file_search') ? name : undefined
}

export function declaresFunction(name: string, tools: ToolRow[]): boolean {
  return tools.some((tool) => tool.type === 'function' && tool.function.name === name)
}

function chatTool(tool: ToolRow): ChatTool {
  const declared = tool.type === 'function' ? tool.function : builtIn[tool.type]
  return { type: 'function', function: declared }
}

function toolChoice(choice: RunRow['tool_choice']): ChatRequest['tool_choice'] {
  if (typeof choice === 'string') return choice as 'required'
  const { type, function: named } = choice as { type: string; function?: { name: string } }
  return { type: 'function', function: { name: named?.name ?? type } }
}

function lastMessages(thread: MessageRow[], { truncation_strategy }: RunRow): MessageRow[] {
  const { type, last_messages: n } = truncation_strategy
  return type === 'last_messages' && n !== null ? thread.slice(-n) : thread
}

/** Rough, and on the safe side for English; most of the context stays free for the answer. */
const charsPerToken = 3
const promptShare = 0.75

/** The newest messages that fit into the model's context; at least the last one, whatever its size. */
function fitting(thread: MessageRow[], contextSize: number): MessageRow[] {
  let room = contextSize * charsPerToken * promptShare
  const start = thread.findLastIndex((message) => {
    room -= textOf(message.content).length
    return room < 0
  })
  return thread.slice(Math.min(start + 1, thread.length - 1))
}

function threadMessage(message: MessageRow): ChatMessage[] {
  if (message.role === 'assistant') {
    const content = textOf(message.content)
    // Strict servers refuse an assistant message without content.
    return content === '' ? [] : [{ role: 'assistant', content }]
  }
  const isText = message.content.every(({ type }) => type === 'text')
  return [
    { role: 'user', content: isText ? textOf(message.content) : message.content.flatMap(userPart) },
  ]
}

function userPart(part: ContentPart): UserPart[] {
  switch (part.type) {
    case 'text':
      return [{ type: 'text', text: part.text.value }]
    case 'image_url':
      return [
        {
          type: 'image_url',
          image_url: { url: part.image_url.url, detail: part.image_url.detail as 'auto' },
        },
      ]
    case 'image_file':
      return [{ type: 'text', text: `[The image ${part.image_file.file_id} is not available.]` }]
    case 'refusal':
      return [{ type: 'text', text: part.refusal }]
    default:
      return part satisfies never
  }
}

type UserPart = Exclude<Extract<ChatMessage, { role: 'user' }>['content'], string>[number]

/** Each turn of this run: what the model wrote, what it called, and what came of it. */
function turnsSoFar({ messages, calls }: PromptInput['own']): ChatMessage[] {
  const turns = [...new Set([...messages, ...calls].map(({ turn }) => turn ?? 0))].toSorted(
    (a, b) => a - b,
  )
  return turns.flatMap((turn): ChatMessage[] => {
    const text = messages
      .filter((message) => message.turn === turn)
      .map(({ content }) => textOf(content))
      .join('\n')
    const called = calls.filter((call) => call.turn === turn)
    if (called.length === 0) return text === '' ? [] : [{ role: 'assistant', content: text }]
    return [
      {
        role: 'assistant',
        content: text === '' ? null : text,
        tool_calls: called.map(({ id, name, arguments: args }) => ({
          id,
          type: 'function',
          function: { name, arguments: args },
        })),
      },
      ...called.map(({ id, output }): ChatMessage => ({
        role: 'tool',
        tool_call_id: id,
        content: output ?? '',
      })),
    ]
  })
}

export function textOf(content: ContentPart[]): string {
  return content.flatMap((part) => (part.type === 'text' ? [part.text.value] : [])).join('\n')
}
