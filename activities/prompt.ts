import type { ModelRoute } from '../models.ts'
import type { DataFiles } from '../store/code-files.ts'
import type { OwnMessage, ThreadMessage } from '../store/context.ts'
import type { ContentPart, FunctionTool, RunRow, ToolCallRow, ToolRow } from '../store/rows.ts'
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
  /** What is shown of the thread before this run, oldest first. */
  thread: Pick<ThreadMessage, 'role' | 'content'>[]
  /** What is shown of what this run has said and called so far. */
  rounds: Round[]
  /** The images of the thread that were uploaded as files, by the ids of these. */
  images: ReadonlyMap<string, ShownImage>
  /** The most that the model may write; null where nobody has said. */
  completionTokens: number | null
  /** What lies in /mnt/data for its code. */
  dataFiles: DataFiles
}

/** One turn of the run that has been: what the model wrote and called, and all outputs of that. */
export interface Round {
  /** Stands for no other round. */
  key: string | undefined
  /** How many it called. */
  calls: number
  messages: ChatMessage[]
}

/** An image as a URL that holds it, or in words why there is none. */
export type ShownImage = { url: string } | { missing: string }

/** The request of a turn for a `/chat/completions` endpoint. Its beginning stays the same from turn to turn, for the provider's cache. */
export function chatRequest(input: PromptInput): ChatRequest {
  const { run, route, turn, completionTokens } = input
  const { quirks } = route
  const { tools, response_format } = declarations(input)
  const said = withInstructions(run.instructions, quirks.system_role, [
    ...input.thread.flatMap((message) => threadMessage(message, input)),
    ...input.rounds.flatMap(({ messages }) => messages),
  ])
  return {
    model: route.upstreamName,
    stream: true,
    ...(!quirks.no_stream_options && { stream_options: { include_usage: true } }),
    // A run on an empty thread is allowed, and no endpoint takes an empty list.
    messages: said.length > 0 ? said : [{ role: 'user', content: '(There are no messages yet.)' }],
    ...(tools && { tools }),
    // A choice that is repeated would make the model call for ever: it is for the first turn.
    ...(tools &&
      turn === 0 &&
      run.tool_choice !== 'auto' &&
      !quirks.no_tool_choice && { tool_choice: toolChoice(run.tool_choice) }),
    ...(tools &&
      !run.parallel_tool_calls &&
      !quirks.no_parallel_tool_calls && { parallel_tool_calls: false }),
    // One is everybody's default, and reasoning models refuse to be told.
    ...(run.temperature !== null && run.temperature !== 1 && { temperature: run.temperature }),
    ...(run.top_p !== null && run.top_p !== 1 && { top_p: run.top_p }),
    ...(run.reasoning_effort !== null && {
      reasoning_effort: run.reasoning_effort as ChatRequest['reasoning_effort'],
    }),
    ...(response_format && { response_format }),
    ...(completionTokens !== null && { [quirks.max_tokens_name]: completionTokens }),
  }
}

/** What goes with every prompt of the run beside its messages. */
export function declarations({
  run,
  route: { quirks },
  dataFiles,
}: Pick<PromptInput, 'run' | 'route' | 'dataFiles'>): Pick<
  ChatRequest,
  'tools' | 'response_format'
> {
  const tools = offeredTools(run)
  const format = run.response_format
  return {
    ...(tools.length > 0 && {
      tools: tools.map((tool) => chatTool(tool, quirks.no_strict, dataFiles)),
    }),
    ...(typeof format === 'object' &&
      !quirks.no_response_format && {
        response_format: format as unknown as ChatRequest['response_format'],
      }),
  }
}

/** The tools that the model may call. */
export function offeredTools({ tool_choice, tools }: RunRow): ToolRow[] {
  return tool_choice === 'none' ? [] : tools
}

/** The built-in tools as the functions that every model understands. */
const builtIn: Record<'code_interpreter' | 'file_search', FunctionTool> = {
  code_interpreter: {
    name: 'code_interpreter',
    description:
      'Runs Python in a sandbox that keeps its state between calls, and returns what it prints and the value of the last ' +
      'expression. numpy, pandas, matplotlib, scipy, scikit-learn, Pillow, openpyxl, python-docx, python-pptx, pypdf and ' +
      'reportlab are there; the internet cannot be reached, but for hosts that this server allows. Figures are shown to the user. Files are in /mnt/data: what you write ' +
      'there the user gets by a link such as [report.csv](sandbox:/mnt/data/report.csv).',
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

function chatTool(tool: ToolRow, withoutStrict: boolean, dataFiles: DataFiles): ChatTool {
  if (tool.type === 'code_interpreter') {
    const declared = builtIn.code_interpreter
    const description = `${declared.description}${listed(dataFiles)}`
    return { type: 'function', function: { ...declared, description } }
  }
  if (tool.type === 'file_search') return { type: 'function', function: builtIn.file_search }
  const { strict: _strict, ...rest } = tool.function
  return { type: 'function', function: withoutStrict ? rest : tool.function }
}

/** So that a model need not look around first; what this run has written it knows from its own calls. */
function listed({ given, written }: DataFiles): string {
  const files = given.map(({ name, filename, id }) =>
    name === id
      ? `${JSON.stringify(filename)}, as ${id}`
      : `${JSON.stringify(name)} (also as ${id})`,
  )
  const old = written.filter(({ isOld }) => isOld).map(({ path }) => JSON.stringify(path))
  return [
    ...(files.length > 0 ? [` The user's files there: ${named(files)}.`] : []),
    ...(old.length > 0 ? [` Written there before: ${named(old)}.`] : []),
  ].join('')
}

const mostNamed = 50

function named(files: string[]): string {
  const more = files.length - mostNamed
  return files.slice(0, mostNamed).join(', ') + (more > 0 ? ` and ${more} more` : '')
}

function toolChoice(choice: RunRow['tool_choice']): ChatRequest['tool_choice'] {
  if (typeof choice === 'string') return choice as 'required'
  const { type, function: named } = choice as { type: string; function?: { name: string } }
  return { type: 'function', function: { name: named?.name ?? type } }
}

function withInstructions(
  instructions: string | null,
  role: ModelRoute['quirks']['system_role'],
  said: ChatMessage[],
): ChatMessage[] {
  if (!instructions) return said
  if (role !== 'none') return [{ role, content: instructions }, ...said]
  const at = said.findIndex((message) => message.role === 'user')
  const first = said[at]
  if (first?.role !== 'user') return [{ role: 'user', content: instructions }, ...said]
  const content =
    typeof first.content === 'string'
      ? `${instructions}\n\n${first.content}`
      : [textPart(instructions), ...first.content]
  return said.with(at, { ...first, content })
}

function threadMessage(
  { role, content: parts }: PromptInput['thread'][number],
  input: PromptInput,
): ChatMessage[] {
  if (role === 'assistant') {
    const content = textOf(parts)
    // Strict servers refuse an assistant message without content.
    return content === '' ? [] : [{ role, content }]
  }
  const isText = parts.every(({ type }) => type === 'text')
  return [{ role, content: isText ? textOf(parts) : parts.map((part) => userPart(part, input)) }]
}

function userPart(part: ContentPart, { route, images }: PromptInput): UserPart {
  switch (part.type) {
    case 'text':
      return textPart(part.text.value)
    case 'refusal':
      return textPart(part.refusal)
    case 'image_url':
      return imagePart({ url: part.image_url.url }, part.image_url.detail, route)
    case 'image_file': {
      const { file_id, detail } = part.image_file
      const image = images.get(file_id) ?? { missing: 'it could not be read' }
      return imagePart(image, detail, route)
    }
    default:
      return part satisfies never
  }
}

function imagePart(image: ShownImage, detail: string, { quirks }: ModelRoute): UserPart {
  if (quirks.no_images) return textPart('[There was an image here. You cannot see images.]')
  if ('missing' in image) return textPart(`[There was an image here: ${image.missing}.]`)
  return { type: 'image_url', image_url: { url: image.url, detail: detail as 'auto' } }
}

function textPart(text: string): UserPart {
  return { type: 'text', text }
}

type UserPart = Exclude<Extract<ChatMessage, { role: 'user' }>['content'], string>[number]

/** The turns of a run that have been, in order. */
export function roundsOf(own: { messages: OwnMessage[]; calls: ToolCallRow[] }): Round[] {
  const turns = [...new Set([...own.messages, ...own.calls].map(({ turn }) => turn ?? 0))]
  return turns
    .toSorted((a, b) => a - b)
    .map((turn) => ({
      text: own.messages
        .filter((message) => message.turn === turn)
        .map(({ content }) => textOf(content))
        .join('\n'),
      called: own.calls.filter((call) => call.turn === turn),
    }))
    .filter(({ text, called }) => text !== '' || called.length > 0)
    .map(({ text, called }) => ({
      key: called[0]?.id,
      calls: called.length,
      messages: roundMessages(text, called),
    }))
}

function roundMessages(text: string, called: ToolCallRow[]): ChatMessage[] {
  if (called.length === 0) return [{ role: 'assistant', content: text }]
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
}

export function textOf(content: ContentPart[]): string {
  return content.flatMap((part) => (part.type === 'text' ? [part.text.value] : [])).join('\n')
}
