import { invalidFunctionSchema, type ApiError } from '../wire/errors.ts'

/** Where a schema does not fit strict mode: the keys that lead there, and the sentence about it. */
interface Misfit {
  at: string[]
  rule: string
}

/**
 * Why strict mode does not accept the parameters of a function; undefined where it does. Every object must be closed and
 * require all of its properties, however deep, so that there is one shape that a model may write.
 */
export function strictMisfit(
  name: string,
  parameters: object,
): ((path: string) => ApiError) | undefined {
  if (Reflect.get(parameters, 'type') !== 'object') {
    const got = Reflect.get(parameters, 'type') ?? 'None'
    return (path) =>
      invalidFunctionSchema(
        path,
        name,
        `schema must be a JSON Schema of 'type: "object"', got 'type: "${String(got)}"'.`,
      )
  }
  const misfit = misfitIn(parameters, [])
  if (!misfit) return undefined
  const keys = misfit.at.map((key) => `'${key}'`)
  // As Python writes tuples: one alone has a comma behind it.
  const context = keys.length === 1 ? `(${keys[0]},)` : `(${keys.join(', ')})`
  return (path) => invalidFunctionSchema(path, name, `In context=${context}, ${misfit.rule}`)
}

function misfitIn(schema: unknown, at: string[]): Misfit | undefined {
  if (!isRecord(schema)) return undefined
  const rule = brokenRule(schema)
  if (rule) return { at, rule }
  for (const [key, inner] of subschemas(schema)) {
    const misfit = misfitIn(inner, [...at, ...key])
    if (misfit) return misfit
  }
  return undefined
}

function brokenRule(schema: Record<string, unknown>): string | undefined {
  const refused = ['oneOf', 'allOf'].find((key) => key in schema)
  if (refused) return `'${refused}' is not permitted.`
  const types = [schema['type']].flat()
  if (types.includes('array') && !('items' in schema)) return 'array schema missing items.'
  if (types.includes('object') || 'properties' in schema) return brokenRuleOfObject(schema)
  return undefined
}

function brokenRuleOfObject(schema: Record<string, unknown>): string | undefined {
  if (schema['additionalProperties'] !== false) {
    return "'additionalProperties' is required to be supplied and to be false."
  }
  const { properties = {}, required = [] } = schema
  const names = isRecord(properties) ? Object.keys(properties) : []
  const listed: unknown[] = Array.isArray(required) ? required : []
  const wanted =
    "'required' is required to be supplied and to be an array including every key in properties."
  const missing = names.find((name) => !listed.includes(name))
  if (missing !== undefined) return `${wanted} Missing '${missing}'.`
  const extra = listed.find((name) => typeof name === 'string' && !names.includes(name))
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
