import { isRecord } from './chat-completions.ts'

/**
 * A value that fits a JSON schema, with words and numbers taken from a message where they fit:
 * what a model would fill in, as far as a demo can. Never throws; an unreadable schema gives `{}`.
 */
export function valueForSchema(schema: unknown, message: string): unknown {
  const hints = hintsFrom(message)
  return valueFor(schema, { root: schema, name: '', hints, depth: 0 })
}

type Hints = {
  message: string
  quoted: string[]
  names: string[]
  numbers: number[]
}
type Place = { root: unknown; name: string; hints: Hints; depth: number }

const DEEPEST = 12

function valueFor(schema: unknown, place: Place): unknown {
  if (!isRecord(schema) || place.depth > DEEPEST) return place.depth === 0 ? {} : null
  if (typeof schema.$ref === 'string') {
    return valueFor(resolve(schema.$ref, place.root), { ...place, depth: place.depth + 1 })
  }
  if ('const' in schema) return schema.const
  if (Array.isArray(schema.enum) && schema.enum.length > 0) return fromEnum(schema.enum, place)
  for (const choices of [schema.anyOf, schema.oneOf]) {
    if (!Array.isArray(choices)) continue
    const choice: unknown = choices.find((one) => isRecord(one) && one.type !== 'null')
    return valueFor(choice, { ...place, depth: place.depth + 1 })
  }
  if (Array.isArray(schema.allOf)) return valueFor(merged(schema), place)
  switch (typeOf(schema)) {
    case 'object':
      return objectFor(schema, place)
    case 'array':
      return arrayFor(schema, place)
    case 'string':
      return stringFor(schema, place)
    case 'integer':
    case 'number':
      return numberFor(schema, place)
    case 'boolean':
      return typeof schema.default === 'boolean' ? schema.default : true
    default:
      return place.depth === 0 ? {} : (schema.default ?? null)
  }
}

function typeOf(schema: Record<string, unknown>): unknown {
  if (Array.isArray(schema.type)) return schema.type.find((type) => type !== 'null')
  if (schema.type !== undefined) return schema.type
  if (isRecord(schema.properties)) return 'object'
  return 'items' in schema ? 'array' : undefined
}

/** What is required; when nothing is, all that is declared. */
function objectFor(schema: Record<string, unknown>, place: Place): Record<string, unknown> {
  const properties = isRecord(schema.properties) ? schema.properties : {}
  const declared = Object.keys(properties)
  const required = Array.isArray(schema.required)
    ? schema.required.filter((name) => typeof name === 'string')
    : []
  const names = required.length > 0 ? required : declared
  const child = (name: string) => ({ ...place, name, depth: place.depth + 1 })
  return Object.fromEntries(
    names.slice(0, 100).map((name) => [name, valueFor(properties[name] ?? true, child(name))]),
  )
}

function arrayFor(schema: Record<string, unknown>, place: Place): unknown[] {
  const atLeast = typeof schema.minItems === 'number' ? schema.minItems : 1
  const atMost = typeof schema.maxItems === 'number' ? schema.maxItems : Infinity
  const length = Math.min(Math.max(atLeast, 1), atMost, 20)
  const item = () => valueFor(schema.items ?? true, { ...place, depth: place.depth + 1 })
  return Array.from({ length: Math.max(0, Math.floor(length)) }, item)
}

function fromEnum(values: unknown[], place: Place): unknown {
  const message = place.hints.message.toLowerCase()
  const isMentioned = (value: unknown) =>
    typeof value === 'string' && value !== '' && message.includes(value.toLowerCase())
  return values.find(isMentioned) ?? values.find((value) => value !== null) ?? null
}

function numberFor(schema: Record<string, unknown>, place: Place): number {
  const isInteger = typeOf(schema) === 'integer'
  const least = limit(schema.minimum, schema.exclusiveMinimum, isInteger ? 1 : 0.5, -Infinity)
  const most = limit(schema.maximum, schema.exclusiveMaximum, isInteger ? -1 : -0.5, Infinity)
  const fits = (n: number) => n >= least && n <= most && (!isInteger || Number.isInteger(n))
  const taken = place.hints.numbers.findIndex(fits)
  // Each number of the message is used once, so that `add 2 and 3` fills a and b differently.
  const [mentioned] = taken < 0 ? [] : place.hints.numbers.splice(taken, 1)
  if (mentioned !== undefined) return mentioned
  if (typeof schema.default === 'number') return schema.default
  return Math.min(Math.max(1, isInteger ? Math.ceil(least) : least), most)
}

function limit(inclusive: unknown, exclusive: unknown, step: number, none: number): number {
  if (typeof inclusive === 'number') return inclusive
  return typeof exclusive === 'number' ? exclusive + step : none
}

const BY_FORMAT: Record<string, string> = {
  date: '2025-01-31',
  'date-time': '2025-01-31T12:00:00Z',
  time: '12:00:00Z',
  duration: 'PT1H',
  email: 'someone@example.com',
  hostname: 'example.com',
  ipv4: '192.0.2.1',
  ipv6: '2001:db8::1',
  uri: 'https://example.com/',
  url: 'https://example.com/',
  uuid: '00000000-0000-4000-8000-000000000000',
}
const FREE_TEXT =
  /query|question|text|message|prompt|content|body|description|input|task|answer|reason|summary/i

function stringFor(schema: Record<string, unknown>, place: Place): string {
  const { hints, name } = place
  const format = typeof schema.format === 'string' ? BY_FORMAT[schema.format] : undefined
  const guess =
    format ??
    (/e-?mail/i.test(name) ? (hints.message.match(/[\w.+-]+@[\w-]+(\.[\w-]+)+/)?.[0] ?? '') : '')
  const text =
    guess ||
    hints.quoted.shift() ||
    (FREE_TEXT.test(name) ? hints.message : hints.names.shift()) ||
    (typeof schema.default === 'string' ? schema.default : '') ||
    firstText(schema.examples) ||
    hints.message ||
    name ||
    'demo'
  const longest = typeof schema.maxLength === 'number' ? schema.maxLength : 200
  const shortest = typeof schema.minLength === 'number' ? Math.min(schema.minLength, 1000) : 0
  return Array.from(text).slice(0, longest).join('').padEnd(shortest, 'x')
}

function firstText(values: unknown): string {
  const text: unknown = Array.isArray(values) ? values.find((v) => typeof v === 'string') : ''
  return typeof text === 'string' ? text : ''
}

function hintsFrom(whole: string): Hints {
  const message = whole.slice(0, 4000).trim()
  const name = /(?<!^|[.!?:\]]\s)(?<![\p{L}\p{N}_])\p{Lu}[\p{L}'-]+(?:\s\p{Lu}[\p{L}'-]+){0,3}/gu
  return {
    message,
    quoted: [...message.matchAll(/["“]([^"”\n]{1,200})["”]/g)].map((match) => match[1] ?? ''),
    names: message.match(name) ?? [],
    numbers: (message.match(/(?<![\w.-])-?\d{1,15}(?:\.\d{1,10})?(?![\w])/g) ?? []).map(Number),
  }
}

function resolve(ref: string, root: unknown): unknown {
  if (!ref.startsWith('#')) return {}
  const steps = ref.slice(1).split('/').filter(Boolean)
  return steps.reduce<unknown>(
    (at, step) => (isRecord(at) ? at[step.replaceAll('~1', '/').replaceAll('~0', '~')] : undefined),
    root,
  )
}

function merged(schema: Record<string, unknown>): Record<string, unknown> {
  const { allOf, ...own } = schema
  const parts = [...(Array.isArray(allOf) ? allOf.filter(isRecord) : []), own]
  return {
    ...Object.assign({}, ...parts),
    properties: Object.assign({}, ...parts.map((part) => part.properties ?? {})),
    required: parts.flatMap((part) => (Array.isArray(part.required) ? part.required : [])),
  }
}
