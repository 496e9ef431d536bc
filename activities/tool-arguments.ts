import { Validator, type OutputUnit, type Schema } from '@cfworker/json-schema'

import type { Json, ToolRow } from '../store/rows.ts'
import { storable } from '../wire/storable.ts'

/** The schema that the arguments of a strict function must fit. Many local models write what they like all the same. */
export function strictSchema(name: string, tools: ToolRow[]): Json | undefined {
  const tool = tools.find((one) => one.type === 'function' && one.function.name === name)
  return tool?.type === 'function' && tool.function.strict ? tool.function.parameters : undefined
}

/** Looks at a schema: far more than real ones take, and less than a second. */
const mostLooks = 100_000
/** So many characters to compare or to count are another look. */
const charsPerLook = 2000
/** What the name of a property costs to look for, in characters. */
const charsPerName = 20
/** The list of the values that are allowed may be long, and the model reads it with every later turn. */
const mostChars = 2000

/**
 * Why the arguments of a call do not fit the schema of its function, as the model is told it; undefined where they fit. The
 * schema is a stranger's: what cannot be checked in a bounded time counts as fitting.
 */
export function argumentsMisfit(args: unknown, parameters: Json): string | undefined {
  let looks = 0
  const look = (chars: number): void => {
    looks += 1 + chars / charsPerLook
    if (looks > mostLooks) throw new Error('The schema takes too long to check')
  }
  try {
    const checked = checkable(parameters, { look, argsChars: charsOf(args) })
    const { errors } = new Validator(checked as Schema).validate(args)
    // The last is the innermost.
    const error = errors.at(-1)
    return error && `${told(whatIsWrong(error))} (at ${told(error.instanceLocation)}).`
  } catch {
    return undefined
  }
}

function whatIsWrong({ keyword, error, instanceLocation }: OutputUnit): string {
  // What the schema `false` refuses is a property that is not declared. Models know the word, and not this schema.
  if (keyword !== 'false') return error.replace(/\.$/, '')
  const name = decodeURIComponent(instanceLocation.split('/').at(-1) ?? '')
  return `property '${name.replaceAll('~1', '/').replaceAll('~0', '~')}' is not allowed`
}

function told(said: string): string {
  const short = said.length <= mostChars ? said : `${said.slice(0, mostChars)}...`
  return storable(short)
}

/** Strangers' regular expressions may run for ever, and unique items are compared each with each. */
const unchecked = new Set(['pattern', 'patternProperties', 'format', 'uniqueItems'])
/** What is a value, and what holds schemas by names that are anybody's. */
const values = new Set(['enum', 'const', 'default', 'examples'])
const maps = new Set(['properties', '$defs', 'definitions', 'dependentSchemas'])

interface Count {
  look(chars: number): void
  argsChars: number
}

/** A copy without what is not checked. The validator reads this keyword of each schema that it looks at, which counts. */
function checkable(schema: unknown, count: Count): unknown {
  if (Array.isArray(schema)) return schema.map((inner) => checkable(inner, count))
  // The validator would not look into this one, which says the same.
  if (schema === true) return checkable({}, count)
  if (!isRecord(schema)) return schema
  const entries = Object.entries(schema).flatMap(([key, inner]): [string, unknown][] => {
    if (unchecked.has(key)) return []
    if (values.has(key)) return [[key, inner]]
    if (!maps.has(key) || !isRecord(inner)) return [[key, checkable(inner, count)]]
    const named = Object.entries(inner).map(([name, one]) => [name, checkable(one, count)])
    return [[key, Object.fromEntries(named)]]
  })
  const chars = charsToRead(schema, count.argsChars)
  return Object.defineProperty(Object.fromEntries(entries), '$recursiveAnchor', {
    get: () => count.look(chars),
  })
}

/** What one look at a schema may take, beside the looks at the schemas in it. */
function charsToRead(schema: Record<string, unknown>, argsChars: number): number {
  const own = ['enum', 'const', 'type', 'required', 'dependentRequired'].map((key) =>
    charsOf(schema[key] ?? null),
  )
  const { properties } = schema
  if (isRecord(properties)) own.push(charsPerName * Object.keys(properties).length)
  // The characters of a text are counted, to its end.
  if ('minLength' in schema || 'maxLength' in schema) own.push(argsChars)
  return own.reduce((sum, chars) => sum + chars, 0)
}

function charsOf(value: unknown): number {
  return JSON.stringify(value).length
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
