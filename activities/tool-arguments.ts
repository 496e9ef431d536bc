import { Validator, type Schema } from '@cfworker/json-schema'

import type { Json, ToolRow } from '../store/rows.ts'

/** The schema that the arguments of a strict function must fit. Many local models write what they like all the same. */
export function strictSchema(name: string, tools: ToolRow[]): Json | undefined {
  const tool = tools.find((one) => one.type === 'function' && one.function.name === name)
  return tool?.type === 'function' && tool.function.strict ? tool.function.parameters : undefined
}

/** Looks at a schema: far more than real ones take, and less than a second. */
const mostLooks = 100_000

/**
 * Why the arguments of a call do not fit the schema of its function, as the model is told it; undefined where they fit. The
 * schema is a stranger's: what cannot be checked in a bounded time counts as fitting.
 */
export function argumentsMisfit(args: unknown, parameters: Json): string | undefined {
  let looks = 0
  const look = (): void => {
    looks += 1
    if (looks > mostLooks) throw new Error('The schema takes too long to check')
  }
  try {
    const { errors } = new Validator(checkable(parameters, look) as Schema).validate(args)
    // The last is the innermost.
    const error = errors.at(-1)
    return error && `${error.error.replace(/\.$/, '')} (at ${error.instanceLocation}).`
  } catch {
    return undefined
  }
}

/** Strangers' regular expressions may run for ever, and unique items are compared each with each. */
const unchecked = new Set(['pattern', 'patternProperties', 'format', 'uniqueItems'])
/** What is a value, and what holds schemas by names that are anybody's. */
const values = new Set(['enum', 'const', 'default', 'examples'])
const maps = new Set(['properties', '$defs', 'definitions', 'dependentSchemas'])

/** A copy without what is not checked. The validator reads this keyword of each schema that it looks at, which counts. */
function checkable(schema: unknown, look: () => void): unknown {
  if (Array.isArray(schema)) return schema.map((inner) => checkable(inner, look))
  if (!isRecord(schema)) return schema
  const entries = Object.entries(schema).flatMap(([key, inner]): [string, unknown][] => {
    if (unchecked.has(key)) return []
    if (values.has(key)) return [[key, inner]]
    if (!maps.has(key) || !isRecord(inner)) return [[key, checkable(inner, look)]]
    const named = Object.entries(inner).map(([name, one]) => [name, checkable(one, look)])
    return [[key, Object.fromEntries(named)]]
  })
  return Object.defineProperty(Object.fromEntries(entries), '$recursiveAnchor', { get: look })
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
