import { invalidFunctionSchema, type ApiError } from '../wire/errors.ts'
import { MAX_STRICT_LEVELS, MAX_STRICT_PROPERTIES } from '../wire/limits.ts'

/** Where a schema does not fit strict mode: the keys that lead there, and the sentence about it. */
interface Misfit {
  at: string[]
  rule: string
}

/** A schema inside of another. It knows its way, so that a walk need not copy it at each step. */
interface Place {
  schema: Record<string, unknown>
  /** The keys that lead here from `outer`. */
  keys: string[]
  outer: Place | undefined
  /** How many objects it is in. A definition begins anew, wherever it is referred to. */
  level: number
}

/**
 * Why strict mode does not accept the parameters of a function; undefined where it does. Every object must be closed and
 * require all of its properties, however deep, so that there is one shape that a model may write.
 */
export function strictMisfit(
  name: string,
  parameters: object,
): ((path: string) => ApiError) | undefined {
  if (!isRecord(parameters) || parameters['type'] !== 'object') {
    const got = Reflect.get(parameters, 'type') ?? 'None'
    return (path) =>
      invalidFunctionSchema(
        path,
        name,
        `schema must be a JSON Schema of 'type: "object"', got 'type: "${String(got)}"'.`,
      )
  }
  const excess = excessIn(parameters)
  if (excess) return (path) => invalidFunctionSchema(path, name, excess)
  const misfit = misfitIn(parameters)
  if (!misfit) return undefined
  const keys = misfit.at.map((key) => `'${key}'`)
  // As Python writes tuples: one alone has a comma behind it.
  const context = keys.length === 1 ? `(${keys[0]},)` : `(${keys.join(', ')})`
  return (path) => invalidFunctionSchema(path, name, `In context=${context}, ${misfit.rule}`)
}

/** More than strict mode takes, of a whole schema. */
function excessIn(parameters: Record<string, unknown>): string | undefined {
  let levels = 0
  let properties = 0
  for (const { schema, level } of placesIn(parameters)) {
    if (isObjectSchema(schema)) levels = Math.max(levels, level)
    if (isRecord(schema['properties'])) properties += Object.keys(schema['properties']).length
  }
  if (levels > MAX_STRICT_LEVELS)
    return `${levels} levels of nesting exceeds limit of ${MAX_STRICT_LEVELS}.`
  if (properties > MAX_STRICT_PROPERTIES)
    return `${properties} parameters exceeds limit of ${MAX_STRICT_PROPERTIES}.`
  return undefined
}

function misfitIn(parameters: Record<string, unknown>): Misfit | undefined {
  for (const place of placesIn(parameters)) {
    const rule = brokenRule(place.schema)
    if (rule) return { at: wayTo(place), rule }
  }
  return undefined
}

/** All schemas of a schema, the outer before the inner. Not by recursion, since strangers nest as deeply as they like. */
function* placesIn(schema: Record<string, unknown>): Generator<Place> {
  const waiting: Place[] = [{ schema, keys: [], outer: undefined, level: 0 }]
  for (let place = waiting.pop(); place; place = waiting.pop()) {
    yield place
    const outer = place
    const level = outer.level + (isObjectSchema(outer.schema) ? 1 : 0)
    for (const [keys, inner] of subschemas(outer.schema).toReversed()) {
      if (!isRecord(inner)) continue
      const isDefinition = keys[0] === '$defs' || keys[0] === 'definitions'
      waiting.push({ schema: inner, keys, outer, level: isDefinition ? 0 : level })
    }
  }
}

function wayTo(place: Place): string[] {
  const way: string[][] = []
  for (let at: Place | undefined = place; at; at = at.outer) way.push(at.keys)
  return way.toReversed().flat()
}

function brokenRule(schema: Record<string, unknown>): string | undefined {
  const refused = ['oneOf', 'allOf'].find((key) => key in schema)
  if (refused) return `'${refused}' is not permitted.`
  const types = [schema['type']].flat()
  if (types.includes('array') && !('items' in schema)) return 'array schema missing items.'
  return isObjectSchema(schema) ? brokenRuleOfObject(schema) : undefined
}

function isObjectSchema(schema: Record<string, unknown>): boolean {
  return [schema['type']].flat().includes('object') || 'properties' in schema
}

function brokenRuleOfObject(schema: Record<string, unknown>): string | undefined {
  if (schema['additionalProperties'] !== false) {
    return "'additionalProperties' is required to be supplied and to be false."
  }
  const { properties = {}, required = [] } = schema
  const names = new Set(isRecord(properties) ? Object.keys(properties) : [])
  const listed = new Set<unknown>(Array.isArray(required) ? required : [])
  const wanted =
    "'required' is required to be supplied and to be an array including every key in properties."
  const missing = [...names].find((name) => !listed.has(name))
  if (missing !== undefined) return `${wanted} Missing '${missing}'.`
  const extra = [...listed].find((name) => typeof name === 'string' && !names.has(name))
  return typeof extra === 'string' ? `${wanted} Extra required key '${extra}' supplied.` : undefined
}

/** The schemas inside of a schema, by the keys that lead to them. */
function subschemas(schema: Record<string, unknown>): [string[], unknown][] {
  const named = ['properties', '$defs', 'definitions'].flatMap((key) => {
    const inner = schema[key]
    return isRecord(inner) ? Object.entries(inner).map(pair(key)) : []
  })
  const { anyOf, items } = schema
  return [
    ...named,
    ...(Array.isArray(anyOf) ? Object.entries(anyOf as unknown[]).map(pair('anyOf')) : []),
    ...(isRecord(items) ? [[['items'], items] satisfies [string[], unknown]] : []),
  ]
}

function pair(key: string) {
  return ([name, inner]: [string, unknown]): [string[], unknown] => [[key, name], inner]
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
