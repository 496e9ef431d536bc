import { z } from 'zod'
import {
  ApiError,
  arrayTooLong,
  arrayTooShort,
  decimalAbove,
  decimalBelow,
  invalidId,
  invalidIdCharacters,
  invalidParameter,
  integerAbove,
  integerBelow,
  invalidType,
  invalidValue,
  missingParameter,
  oneOf,
  patternMismatch,
  shown,
  stringTooLong,
  stringTooShort,
  tooDeep,
  unknownParameter,
  unstorableText,
} from '../wire/errors.ts'
import { prefixes } from '../wire/ids.ts'
import { MAX_BODY_DEPTH, MAX_ID_CHARS, MAX_INTEGER } from '../wire/limits.ts'

/**
 * A request body as its schema describes it, or an ApiError in the original's words.
 *
 * One error per answer. Text that cannot be stored comes first, because no other check may echo it. Then the kind decides:
 * unknown key, missing key, wrong type, wrong value; within one kind the schema's order does. An array is read up to its
 * first bad item, so that a body of a million bad items costs one issue.
 */
export function parse<Schema extends z.ZodType>(schema: Schema, body: unknown): z.output<Schema> {
  const value = body === undefined ? {} : body
  assertStorable(value, [])
  const result = schema.safeParse(value)
  if (result.success) return result.data
  throw firstOf(result.error.issues, value, [])
}

/** A query string in any shape that a router hands out. `include[]=a`, `include=a` and `include[0]=a` are all lists. */
export function parseQuery<Schema extends z.ZodType>(
  schema: Schema,
  query: URLSearchParams | Record<string, string | string[] | undefined>,
): z.output<Schema> {
  const values = new Map<string, string | string[]>()
  for (const [key, value] of pairs(query)) {
    const name = key.replace(/\[\d*\]$/, '')
    const before = values.get(name)
    if (Array.isArray(before)) before.push(value)
    else if (before !== undefined) values.set(name, [before, value])
    else if (name !== key) values.set(name, [value])
    // Clients that build query strings from templates send `after=&before=`: nothing was said.
    else if (value !== '') values.set(name, value)
  }
  return parse(schema, Object.fromEntries(values))
}

export type NamedId = keyof typeof prefixes

/** Refuses an id in a path that cannot be one: `undefined`, or characters that no id has. */
export function assertId(param: string, value: string, kind: NamedId): void {
  const error = idError(value, kind)
  if (error) throw error(param)
}

/** Where a string stands in a body: `tools[1].type`; undefined where it does not. */
export function pathOf(wanted: string, body: unknown): string | undefined {
  const path = findIn(body, wanted)
  return path && pathText(path)
}

// --- what schemas are built from ------------------------------------------------------------

/** Text between two lengths. The original counts code points, so an emoji is one character. */
export function text(maximum: number, minimum = 0) {
  return z.string().check((ctx) => {
    const length = codePoints(ctx.value)
    if (length > maximum) refuse(ctx, (path) => stringTooLong(path, maximum, length))
    else if (length < minimum) refuse(ctx, (path) => stringTooShort(path, minimum, length))
  })
}

/** The id of an object, inside a body. */
export function id(kind: NamedId) {
  return z.string().check((ctx) => {
    const error = idError(ctx.value, kind)
    if (error) refuse(ctx, error)
  })
}

/** An array that is measured before its items are read, and read up to the first bad one. `of` names the items. */
export function list<Item extends z.ZodType>(
  item: Item,
  limits: { of: 'objects' | 'strings'; minimum?: number; maximum?: number },
) {
  const { of, minimum = 0, maximum = Infinity } = limits
  return z
    .custom<z.input<Item>[]>((value) => Array.isArray(value), {
      params: { expected: `an array of ${of}` },
      abort: true,
    })
    .transform((values, ctx) => {
      const { length } = values
      if (length > maximum) refuse(ctx, (path) => arrayTooLong(path, maximum, length))
      if (length < minimum) refuse(ctx, (path) => arrayTooShort(path, minimum, length))
      const parsed: z.output<Item>[] = []
      for (const [index, value] of values.entries()) {
        if (ctx.issues.length > 0) return z.NEVER
        const result = item.safeParse(value)
        if (result.success) parsed.push(result.data)
        else fail(ctx, [index], { issues: result.error.issues })
      }
      return parsed
    })
}

/** A whole number between two bounds; without an upper one, what an integer column holds. */
export function integer(minimum: number, maximum = MAX_INTEGER) {
  return z
    .custom<number>(Number.isInteger, { params: { expected: 'an integer' }, abort: true })
    .check((ctx) => {
      const got = ctx.value
      if (got > maximum) refuse(ctx, (path) => integerAbove(path, maximum, got))
      if (got < minimum) refuse(ctx, (path) => integerBelow(path, minimum, got))
    })
}

/** The same, in a query string. */
export function queryInteger(minimum: number, maximum: number) {
  return z.preprocess(
    (value) => (typeof value === 'string' && /^-?\d+$/.test(value) ? Number(value) : value),
    integer(minimum, maximum),
  )
}

/** States a rule that zod has no word for: `error` is called with the path once that is known. */
export function refuse(
  ctx: { issues: z.core.$ZodRawIssue[]; value: unknown },
  error: (path: string) => ApiError,
  at: PropertyKey[] = [],
): void {
  fail(ctx, at, { error })
}

function fail(
  ctx: { issues: z.core.$ZodRawIssue[]; value: unknown },
  path: PropertyKey[],
  params: CustomParams,
): void {
  ctx.issues.push({ code: 'custom', input: ctx.value, path, params })
}

// --- ties to the official package -----------------------------------------------------------

/** `true` when both have the same keys, else a type that names the difference. `Added` are our own. */
export type SameKeys<Official, Ours, Added extends PropertyKey = never> = [
  Exclude<keyof Official, keyof Ours>,
  Exclude<keyof Ours, keyof Official | Added>,
] extends [never, never]
  ? true
  : {
      missing: Exclude<keyof Official, keyof Ours>
      unexpected: Exclude<keyof Ours, keyof Official | Added>
    }

/** `true` when every body that the official client can send fits our schema's input. */
export type Accepts<Official, Input> = [Official] extends [Input] ? true : { refuses: Official }

export type Holds<Fact extends true> = Fact

// --- the first error ------------------------------------------------------------------------

type Issue = z.core.$ZodIssue
type Path = PropertyKey[]
type CustomIssue = Extract<Issue, { code: 'custom' }>
type CustomParams = {
  expected?: string
  issues?: Issue[]
  error?: (path: string) => ApiError
}

const rankOf: Record<string, number> = {
  unknown_parameter: 0,
  missing_required_parameter: 1,
  invalid_type: 2,
}
const otherRank = 3

function firstOf(issues: Issue[], body: unknown, above: Path): ApiError {
  let first: { rank: number; error: ApiError } | undefined
  for (const issue of issues) {
    const error = errorOf(issue, body, above)
    const rank = rankOf[error.code ?? ''] ?? otherRank
    if (!first || rank < first.rank) first = { rank, error }
  }
  return first?.error ?? unacceptable(pathText(above))
}

function errorOf(issue: Issue, body: unknown, above: Path): ApiError {
  const at = [...above, ...issue.path]
  const path = pathText(at)
  const value = valueAt(body, at)
  switch (issue.code) {
    case 'unrecognized_keys':
      return unknownParameter(pathText([...at, issue.keys[0] ?? '']))
    case 'invalid_type':
      if (value === undefined) return missingParameter(path)
      return invalidType(path, nounOf(issue), kindOf(value))
    case 'invalid_value':
      return notOneOf(path, value, issue.values)
    case 'invalid_union':
      return unionError(issue, body, at)
    case 'invalid_format':
      return patternMismatch(path, (issue.pattern ?? issue.format).replace(/^\/|\/$/g, ''))
    case 'too_big':
      return decimalAbove(path, Number(issue.maximum), Number(value))
    case 'too_small':
      return decimalBelow(path, Number(issue.minimum), Number(value))
    case 'custom':
      return customError(issue, body, at)
    case 'not_multiple_of':
    case 'invalid_key':
    case 'invalid_element':
      return unacceptable(path)
    default:
      // A later zod may know more; whatever it is, the request is refused.
      issue satisfies never
      return unacceptable(path)
  }
}

/** Ours: `list` and `refuse` left what is to be said, for the place that knows the whole path. */
function customError(issue: CustomIssue, body: unknown, at: Path): ApiError {
  const path = pathText(at)
  const { expected = 'another value', issues, error }: CustomParams = issue.params ?? {}
  if (issues) return firstOf(issues, body, at)
  if (error) return error(path)
  const value = valueAt(body, at)
  if (value === undefined) return missingParameter(path)
  return invalidType(path, expected, kindOf(value))
}

/** Of a union's branches only the one that takes values of this type has something to say. */
function unionError(
  issue: Extract<Issue, { code: 'invalid_union' }>,
  body: unknown,
  at: Path,
): ApiError {
  const path = pathText(at)
  const value = valueAt(body, at)
  if (issue.errors.length === 0) {
    return notOneOf(path, value, 'options' in issue ? (issue.options ?? []) : [])
  }
  if (value === undefined) return missingParameter(path)
  const branch = issue.errors.find((issues) => !issues.some((one) => isOfOtherType(one, value)))
  if (branch) return firstOf(branch, body, at)
  // "one of a string or array of objects": only the first keeps its article.
  const words = issue.errors
    .flat()
    .flatMap(alternatives)
    .map((word, index) => (index === 0 ? word : word.replace(/^an? /, '')))
  return invalidType(path, `one of ${oneOf(words, 'or')}`, kindOf(value))
}

function isOfOtherType(issue: Issue, value: unknown): boolean {
  if (issue.path.length > 0) return false
  if (issue.code === 'invalid_value') return typeof value !== 'string'
  return (
    issue.code === 'invalid_type' || (issue.code === 'custom' && 'expected' in (issue.params ?? {}))
  )
}

function alternatives(issue: Issue): string[] {
  if (issue.code === 'invalid_value') return issue.values.map((one) => `'${String(one)}'`)
  if (issue.code === 'invalid_type') return [nounOf(issue)]
  if (issue.code === 'custom') return [String(issue.params?.expected)]
  return []
}

function notOneOf(path: string, value: unknown, supported: z.core.util.Primitive[]): ApiError {
  if (value === undefined) return missingParameter(path)
  const words = supported.map(String)
  if (typeof value === 'string') return invalidValue(path, value, words)
  const quoted = words.map((word) => `'${word}'`)
  const expected = quoted.length === 1 ? quoted.join('') : `one of ${oneOf(quoted, 'or')}`
  return invalidType(path, expected, kindOf(value))
}

function unacceptable(path: string): ApiError {
  return invalidParameter(path, 'the value is not acceptable.')
}

const nouns: Record<string, string> = {
  string: 'a string',
  number: 'a decimal',
  boolean: 'a boolean',
  array: 'an array',
  object: 'an object',
  record: 'an object',
}

function nounOf(issue: Extract<Issue, { code: 'invalid_type' }>): string {
  return nouns[issue.expected] ?? 'another value'
}

function kindOf(value: unknown): string {
  if (value === null) return 'null'
  if (Array.isArray(value)) return 'an array'
  if (typeof value === 'number') return Number.isInteger(value) ? 'an integer' : 'a decimal number'
  return typeof value === 'object' ? 'an object' : `a ${typeof value}`
}

function valueAt(body: unknown, path: Path): unknown {
  let value = body
  for (const key of path) {
    if (typeof value !== 'object' || value === null || !Object.hasOwn(value, key)) return undefined
    value = Reflect.get(value, key)
  }
  return value
}

function findIn(value: unknown, wanted: string): Path | undefined {
  if (value === wanted) return []
  if (typeof value !== 'object' || value === null) return undefined
  const entries: [PropertyKey, unknown][] = Array.isArray(value)
    ? [...value.entries()]
    : Object.entries(value)
  for (const [key, inner] of entries) {
    const path = findIn(inner, wanted)
    if (path) return [key, ...path]
  }
  return undefined
}

/** tools[1].type */
function pathText(path: Path): string {
  if (path.length === 0) return 'body'
  const steps = path.map((key) => (typeof key === 'number' ? `[${key}]` : `.${String(key)}`))
  return shown(steps.join('').replace(/^\./, ''))
}

// --- ids and text ---------------------------------------------------------------------------

function idError(value: string, kind: NamedId): ((path: string) => ApiError) | undefined {
  const prefix = prefixOf(kind)
  if (value.length > MAX_ID_CHARS) return (path) => stringTooLong(path, MAX_ID_CHARS, value.length)
  if (!value.startsWith(prefix)) return (path) => invalidId(path, value, prefix)
  if (!/^[A-Za-z0-9_-]*$/.test(value)) return (path) => invalidIdCharacters(path, value)
  return undefined
}

/** As the texts name it: 'thread', without the joint. */
function prefixOf(kind: NamedId): string {
  return prefixes[kind].slice(0, -1)
}

/** Refuses what neither Postgres nor JSON can keep, in any string or key, however deep. */
function assertStorable(value: unknown, path: Path): void {
  if (typeof value === 'string') return assertText(value, path)
  if (typeof value === 'number' && !Number.isFinite(value)) {
    throw invalidParameter(pathText(path), 'the number is out of range.')
  }
  if (typeof value !== 'object' || value === null) return
  if (path.length >= MAX_BODY_DEPTH) throw tooDeep(pathText(path), MAX_BODY_DEPTH)
  if (Array.isArray(value)) {
    for (let index = 0; index < value.length; index += 1) {
      path.push(index)
      assertStorable(value[index], path)
      path.pop()
    }
    return
  }
  for (const [key, inner] of Object.entries(value)) {
    path.push(key)
    // Assigning this key somewhere later would change a prototype; zod drops it without a word.
    if (key === '__proto__') throw unknownParameter(pathText(path))
    assertText(key, path)
    assertStorable(inner, path)
    path.pop()
  }
}

function assertText(value: string, path: Path): void {
  if (value.includes('\0')) throw unstorableText(printable(path), 'the character U+0000')
  if (!value.isWellFormed()) throw unstorableText(printable(path), 'half of a surrogate pair')
}

/** The path itself may hold the offending key. */
function printable(path: Path): string {
  return pathText(path).replaceAll('\0', '\u{fffd}')
}

/** As the original counts: an emoji is one. */
export function codePoints(value: string): number {
  let count = 0
  for (const _ of value) count += 1
  return count
}

function* pairs(
  query: URLSearchParams | Record<string, string | string[] | undefined>,
): Generator<[string, string]> {
  if (query instanceof URLSearchParams) {
    yield* query
    return
  }
  for (const [key, value] of Object.entries(query)) {
    for (const one of [value].flat()) if (one !== undefined) yield [key, one]
  }
}
