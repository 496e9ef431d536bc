import { valueForSchema } from './demo-arguments.ts'
import { findLinearEquation } from './linear-equation.ts'
import type { ChatMessage, ChatRequest, FunctionTool } from './chat-completions.ts'

/** What the demo model answers: a text, or calls of tools. The same request, the same decision. */
export type Decision = { text: string | null; calls: WantedCall[] }
export type WantedCall = { name: string; arguments: string }

export function decide(request: ChatRequest): Decision {
  const turn = readTurn(request.messages)
  const calls = chooseCalls(request, turn)
  if (calls.length > 0) return { text: null, calls }
  const text = turn.results.length > 0 ? reportResults(turn) : answerPlainly(request, turn)
  return { text: inFormat(request, turn, `[demo model] ${text}`), calls: [] }
}

/** The last message of the user and what tools have done about it since. */
type Turn = {
  question: string
  images: number
  hasQuestion: boolean
  called: Set<string>
  results: ToolResult[]
}
type ToolResult = { name: string; output: string }

function readTurn(messages: ChatMessage[]): Turn {
  const at = messages.findLastIndex((message) => message.role === 'user')
  const last = messages[at]
  const since = messages.slice(at + 1)
  const made = since.flatMap((message) => (message.role === 'assistant' ? message.calls : []))
  const results = since.flatMap((message) => {
    if (message.role !== 'tool') return []
    const call = made.find((one) => one.id === message.callId)
    return [{ name: call?.name ?? 'tool', output: message.text }]
  })
  return {
    question: last?.role === 'user' ? last.text : '',
    images: last?.role === 'user' ? last.images : 0,
    hasQuestion: last !== undefined,
    called: new Set(made.map((call) => call.name)),
    results,
  }
}

function chooseCalls(request: ChatRequest, turn: Turn): WantedCall[] {
  const { tools, toolChoice } = request
  const limit = request.parallelToolCalls ? Infinity : 1
  switch (toolChoice.type) {
    case 'none':
      return []
    case 'function':
      return tools
        .filter((tool) => tool.name === toolChoice.name)
        .slice(0, 1)
        .map((tool) => callOf(tool, turn.question))
    case 'required': {
      const wanted = wantedTools(tools, turn)
      return (wanted.length > 0 ? wanted : tools.slice(0, 1))
        .slice(0, limit)
        .map((tool) => callOf(tool, turn.question))
    }
    case 'auto':
      return wantedTools(tools, turn)
        .slice(0, limit)
        .map((tool) => callOf(tool, turn.question))
    default:
      return toolChoice satisfies never
  }
}

/** Each tool at most once per message of the user, so that a run always comes to an end. */
function wantedTools(tools: FunctionTool[], turn: Turn): FunctionTool[] {
  const open = tools.filter((tool) => !turn.called.has(tool.name))
  const own = open.filter((tool) => {
    if (tool.name === 'code_interpreter') return codeIn(turn.question) !== null
    return tool.name === 'file_search' && turn.question.trim() !== ''
  })
  const named = open
    .filter((tool) => tool.name !== 'code_interpreter' && tool.name !== 'file_search')
    .map((tool) => ({ tool, at: mentionOf(tool.name, turn.question) }))
    .filter(({ at }) => at >= 0)
    .toSorted((one, other) => one.at - other.at)
    .map(({ tool }) => tool)
  return [...own, ...named]
}

function callOf(tool: FunctionTool, question: string): WantedCall {
  switch (tool.name) {
    case 'code_interpreter': {
      const code = codeIn(question) ?? `print(${JSON.stringify(quote(question, 60))})`
      return { name: tool.name, arguments: JSON.stringify({ code }) }
    }
    case 'file_search':
      return { name: tool.name, arguments: JSON.stringify({ queries: [quote(question, 300)] }) }
    default: {
      const value = valueForSchema(tool.parameters, withoutName(question, tool.name))
      return { name: tool.name, arguments: JSON.stringify(value) }
    }
  }
}

function codeIn(question: string): string | null {
  return pythonBlock(question) ?? findLinearEquation(question)?.python ?? null
}

/** By indexOf, not by one expression: a message of many opened fences must not cost n squared. */
function pythonBlock(text: string): string | null {
  const open = /```(?:python3?|py)[ \t]*\r?\n/i.exec(text)
  if (!open) return null
  const start = open.index + open[0].length
  const end = text.indexOf('```', start)
  const code = text.slice(start, end < 0 ? undefined : end).trimEnd()
  return code.trim() === '' ? null : code
}

/** Verbs that only read; a message about "the weather" may call `get_weather` without naming it. */
const READING = new Set([
  'get',
  'fetch',
  'find',
  'lookup',
  'list',
  'show',
  'read',
  'check',
  'current',
])

function mentionOf(name: string, question: string): number {
  const text = question.toLowerCase()
  const at = text.indexOf(name.toLowerCase())
  if (at >= 0) return at
  const words = wordsOf(name)
  const telling = words.filter((word) => !READING.has(word))
  const places = (telling.length > 0 ? telling : words).map((word) => placeOfWord(word, text))
  return places.length === 0 || places.includes(-1) ? -1 : Math.min(...places)
}

function wordsOf(name: string): string[] {
  return name
    .replaceAll(/([a-z])([A-Z])/g, '$1 $2')
    .toLowerCase()
    .split(/[^a-z0-9]+/)
    .filter(Boolean)
}

/** Words here are of letters and digits only, so nothing in them needs escaping. */
function placeOfWord(word: string, text: string): number {
  return text.search(new RegExp(`(?<![a-z0-9])${word}(?![a-z0-9])`))
}

function withoutName(question: string, name: string): string {
  return question.replaceAll(name, ' ').replaceAll(/ {2,}/g, ' ')
}

function answerPlainly(request: ChatRequest, turn: Turn): string {
  if (!turn.hasQuestion) return 'This conversation holds no message of a user yet.'
  const upTo = /\bcount (?:up )?to (\d{1,4})\b/i.exec(turn.question)?.[1]
  if (upTo !== undefined) return countTo(Number(upTo))
  const equation = findLinearEquation(turn.question)
  const solved = equation && `${equation.text} gives ${solutionOf(equation)}.`
  const instructions = request.messages.find((message) => message.role === 'instructions')?.text
  const said = request.messages.filter((message) => message.role !== 'instructions').length
  return [
    turn.question.trim() === '' ? 'You sent no text.' : `You said: "${quote(turn.question, 120)}"`,
    solved,
    turn.images > 0 && `With ${plural(turn.images, 'image')}, which a demo cannot see.`,
    instructions && `My instructions begin: "${quote(instructions, 80)}"`,
    `The thread has ${plural(said, 'message')}.`,
  ]
    .filter(Boolean)
    .join(' ')
}

function countTo(last: number): string {
  return Array.from({ length: last }, (_, index) => index + 1).join(' ')
}

function reportResults(turn: Turn): string {
  return turn.results.map((result) => reportResult(result, turn)).join('\n\n')
}

function reportResult(result: ToolResult, turn: Turn): string {
  switch (result.name) {
    case 'code_interpreter':
      return reportCode(result, turn)
    case 'file_search':
      return reportSearch(result)
    default:
      return `${result.name} returned: ${cut(result.output.trim(), 2000)}`
  }
}

function reportCode(result: ToolResult, turn: Turn): string {
  const { said, links } = readCodeReport(result.output)
  const output = cut(said, 4000)
  const equation = pythonBlock(turn.question) ? null : findLinearEquation(turn.question)
  const hasSolution = equation !== null && output.includes(`${equation.unknown} =`)
  const hasFailed = !hasSolution && FAILURE.test(output)
  const told = hasFailed
    ? `The code interpreter reported a problem:\n\n${output}`
    : `The code interpreter ran the code. Its output:\n\n${output || '(nothing)'}`
  const byHand =
    equation && !hasSolution && `Worked out without it: ${solutionOf(equation)} solves it.`
  const files = links.length > 0 && `Files: ${links.slice(0, 5).join(', ')}`
  return [told, byHand, files].filter(Boolean).join('\n\n')
}

const FAILURE =
  /not available|unavailable|not configured|no sandbox|cannot run|could not|failed|timed? ?out|error\b|traceback/i

interface CodeReport {
  /** What the code printed. */
  said: string
  /** To files that it wrote, as the tool says that they are linked. */
  links: string[]
}

/** Takes the notes of the tool, a line each, out of what the code printed. */
function readCodeReport(output: string): CodeReport {
  const said: string[] = []
  const links: string[] = []
  for (const line of output.split('\n')) {
    const linkedAs = line.indexOf(LINKED_AS)
    if (line.startsWith('[Wrote /mnt/data/') && line.endsWith('.]') && linkedAs >= 0) {
      links.push(line.slice(linkedAs + LINKED_AS.length, -'.]'.length))
    } else if (!SHOWN_ELSEWHERE.test(line)) said.push(line)
  }
  return { said: said.join('\n').trim(), links }
}

const LINKED_AS = ': link it as '
/** What the user sees without being told. */
const SHOWN_ELSEWHERE =
  /^\[(?:Figure \d+ was shown to the user|The code ran and printed nothing)\.\]$/

const MARKER = /【\d+:\d+†[^】]{1,300}】/gu

function reportSearch(result: ToolResult): string {
  const found = [...result.output.matchAll(MARKER)]
  if (found.length === 0) {
    return `I searched the files and found nothing to cite: ${cut(result.output.trim(), 300)}`
  }
  const seen = new Set<string>()
  const lines = found.flatMap((match, index) => {
    const [marker] = match
    if (seen.has(marker) || seen.size >= 3) return []
    seen.add(marker)
    const until = found[index + 1]?.index
    const passage = quote(result.output.slice(match.index + marker.length, until), 200)
    return [`${passage === '' ? 'See' : passage} ${marker}`]
  })
  return `I searched the files. This fits:\n\n${lines.map((line) => `- ${line}`).join('\n')}`
}

function solutionOf(equation: { unknown: string; solution: string | null }): string {
  return equation.solution === null
    ? `no single value of ${equation.unknown}`
    : `${equation.unknown} = ${equation.solution}`
}

/** Where JSON was asked for, the answer is JSON, and still says what made it. */
function inFormat(request: ChatRequest, turn: Turn, text: string): string {
  const format = request.responseFormat
  switch (format.type) {
    case 'text':
      return text
    case 'json_object':
      return JSON.stringify({ answer: text })
    case 'json_schema':
      return JSON.stringify(valueForSchema(format.schema, `[demo model] ${turn.question}`))
    default:
      return format satisfies never
  }
}

function quote(text: string, longest: number): string {
  return cut(text.slice(0, 20_000).replaceAll(/\s+/g, ' ').trim(), longest)
}

/** Counts code points, so that no emoji is cut in half. */
function cut(text: string, longest: number): string {
  if (text.length <= longest) return text
  const points = Array.from(text.slice(0, longest * 2))
  return points.length <= longest ? points.join('') : `${points.slice(0, longest - 1).join('')}…`
}

function plural(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : 's'}`
}
