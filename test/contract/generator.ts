import { isObject, type Document, type Parameter, type Schema } from './document.ts'

/** Makes what a schema describes, and what it does not. The same seed makes the same. */
export interface Generator {
  /** A value of the schema. `mischief` from 0 to 1 is how likely each of its parts is something else. */
  value(schema: Schema, mischief: number): unknown
  /** What follows the path: nothing, or `?` and parameters. */
  query(parameters: Parameter[], mischief: number): string
  /** A segment of a path. */
  segment(name: string, mischief: number): string
  /** Bytes that are no JSON, or not whole. */
  broken(json: string): Uint8Array<ArrayBuffer>
  chance(likelihood: number): boolean
  oneOf<T>(values: readonly T[]): T
}

/** `ids` are those that exist, by the names of properties and parameters; they may change in between. */
export function createGenerator(seed: number, document: Document, ids: () => Ids): Generator {
  const random = createRandom(seed)
  const chance = (likelihood: number): boolean => random() < likelihood
  const between = (from: number, to: number): number =>
    from + Math.floor(random() * (to - from + 1))
  // The index is in range.
  const oneOf = <T>(values: readonly T[]): T => values[between(0, values.length - 1)] as T

  function value(schema: Schema, mischief: number, name = '', depth = 0): unknown {
    if (chance(mischief)) return chance(0.5) ? nearly(schema, name, depth) : anything(3)
    const { $ref, anyOf, oneOf: branches, allOf, enum: values, type, properties } = schema
    if (typeof $ref === 'string') return value(resolved($ref), mischief, name, depth)
    if (Array.isArray(values)) return oneOf(values as unknown[])
    if (Array.isArray(allOf)) {
      const parts = allOf.filter(isObject).map((part) => value(part, mischief, name, depth))
      return parts.every(isObject) ? Object.assign({}, ...parts) : parts[0]
    }
    const union = [anyOf, branches].find(Array.isArray)
    if (union && !properties) {
      // Null is said often enough by mischief.
      const others = union.filter(isObject).filter((one) => one['type'] !== 'null' || chance(0.2))
      return value(depth > 6 ? (others[0] ?? {}) : oneOf(others), mischief, name, depth)
    }
    switch (type) {
      case 'object':
        return object(schema, mischief, depth)
      case 'array':
        return array(schema, mischief, name, depth)
      case 'string':
        return string(schema, name)
      case 'integer':
      case 'number':
        // The bounds of pages are only in the documents' prose; and so are the letters of names, below.
        return name === 'limit' ? oneOf([1, 2, 20, 100]) : number(schema)
      case 'boolean':
        return chance(0.5)
      case 'null':
        return null
      default:
        return isObject(properties) ? object(schema, mischief, depth) : anything(1)
    }
  }

  function object(schema: Schema, mischief: number, depth: number): Record<string, unknown> {
    const { properties = {}, required = [], additionalProperties, oneOf: choices } = schema
    const known = isObject(properties) ? properties : {}
    const needed = new Set(Array.isArray(required) ? required : [])
    // `oneOf: [{ required: [a] }, { required: [b] }]`: one of these keys, and not the others.
    const groups = (Array.isArray(choices) ? choices : []).filter(isObject)
    const keys = groups.flatMap(({ required }) => (Array.isArray(required) ? required : []))
    const chosen = keys.length > 0 ? oneOf(keys) : undefined
    const made: Record<string, unknown> = {}
    for (const [key, inner] of Object.entries(known)) {
      const isLikely = chance(key in ids() ? 0.8 : 0.3)
      const isWanted = keys.includes(key) ? key === chosen : needed.has(key) || isLikely
      if (!isObject(inner) || (isWanted ? chance(mischief / 2) : !chance(mischief / 4))) continue
      made[key] = value(inner, mischief, key, depth + 1)
    }
    if (isObject(additionalProperties)) {
      for (let n = between(0, 3); n > 0; n -= 1) {
        made[`key-${n}`] = value(additionalProperties, mischief, '', depth + 1)
      }
    }
    if (chance(mischief)) made[chance(0.5) ? oneOf(strangeKeys) : oddText()] = anything(2)
    return made
  }

  function array(schema: Schema, mischief: number, name: string, depth: number): unknown[] {
    const { items = {}, minItems = 0, maxItems = 3 } = schema
    const length = between(
      Number(minItems),
      Math.max(Number(minItems), Math.min(Number(maxItems), 3)),
    )
    const item = isObject(items) ? items : {}
    // `file_ids` is a list of what `file_id` is one of.
    const one = name.replace(/s$/, '')
    return Array.from({ length }, () => value(item, mischief, one, depth + 1))
  }

  function string(schema: Schema, name: string): string {
    const id = ids()[name]
    if (id !== undefined) return id
    if (schema['format'] === 'uri' || name === 'url') return 'https://example.com/picture.png'
    if (name === 'name' && chance(0.8)) return oneOf(['f', 'name-1', 'a_b'])
    const { minLength = 1, maxLength = 40 } = schema
    const word = oneOf(['Hello', 'x', 'name-1', 'Grüße 🙂', 'a b', '{}'])
    return chance(0.1) && Number(maxLength) < 1000
      ? 'n'.repeat(Number(maxLength))
      : Array.from(word.padEnd(Number(minLength), 'x'))
          .slice(0, Number(maxLength))
          .join('')
  }

  function number({ minimum = 0, maximum = 1000, type }: Schema): number {
    const [low, high] = [Number(minimum), Number(maximum)]
    if (chance(0.3)) return oneOf([low, high])
    const between01 = low + random() * (high - low)
    return type === 'integer' ? Math.round(between01) : between01
  }

  /** Of the right kind, and just beyond what the schema allows. */
  function nearly(schema: Schema, name: string, depth: number): unknown {
    const { $ref, minimum, maximum, maxLength, maxItems, items, enum: values } = schema
    if (typeof $ref === 'string') return nearly(resolved($ref), name, depth)
    if (Array.isArray(values)) return `${String(values[0])} `
    if (typeof maximum === 'number') return maximum + oneOf([1, 1e-9, 1e12])
    if (typeof minimum === 'number') return minimum - oneOf([1, 1e-9, 1e12])
    if (typeof maxLength === 'number') return 'é'.repeat(Math.min(maxLength, 300_000) + 1)
    if (typeof maxItems === 'number' && maxItems <= 200) {
      const one = value(isObject(items) ? items : {}, 0, name.replace(/s$/, ''), depth + 1)
      return Array.from({ length: maxItems + 1 }, () => one)
    }
    if (schema['type'] === 'array') return value(isObject(items) ? items : {}, 0, name, depth + 1)
    if (schema['type'] === 'object') return [object(schema, 0, depth + 1)]
    if (name in ids()) return oneOf([...Object.values(ids()), ids()[name]?.slice(0, -3), oddText()])
    return oneOf([oddText(), null, [], {}])
  }

  function query(parameters: Parameter[], mischief: number): string {
    const search: string[] = []
    const add = (name: string, one: unknown): void => {
      const text = typeof one === 'string' ? one : JSON.stringify(one)
      search.push(`${encodeURIComponent(name)}=${encodeURIComponent(text.toWellFormed())}`)
    }
    for (const { name, schema } of parameters.filter((one) => one.in === 'query')) {
      if (!chance(0.4)) continue
      const isCursor = name === 'after' || name === 'before'
      const made =
        isCursor && !chance(mischief) ? '' : value(schema, mischief, isCursor ? '' : name)
      for (const one of Array.isArray(made) ? made : [made]) add(name, one)
      if (chance(mischief)) add(name, anything(1))
    }
    if (chance(mischief / 2)) add(oneOf(strangeKeys), anything(1))
    return search.length > 0 ? `?${search.join('&')}` : ''
  }

  function segment(name: string, mischief: number): string {
    const known = ids()[name]
    if (known !== undefined && !chance(mischief)) return known
    const odd = oneOf([oddText(), oneOf(Object.values(ids())), known?.replace(/.{4}$/, 'none')])
    // An empty segment would make another path.
    return encodeURIComponent((odd ?? '').slice(0, 2000).toWellFormed()) || '%20'
  }

  function broken(json: string): Uint8Array<ArrayBuffer> {
    const bytes = new TextEncoder().encode(json)
    switch (between(0, 6)) {
      case 0:
        return bytes.slice(0, between(0, bytes.length))
      case 1:
        return new TextEncoder().encode(`${json}}`)
      case 2:
        return new TextEncoder().encode(json.replaceAll('"', "'"))
      case 3:
        return new Uint8Array([...bytes.slice(0, 2), 0xc3, 0x28, ...bytes.slice(2)])
      case 4:
        return new TextEncoder().encode('[ {"a":'.repeat(5000))
      case 5:
        return new TextEncoder().encode(`${'['.repeat(3000)}${']'.repeat(3000)}`)
      default:
        return new TextEncoder().encode(oneOf(['', ' ', 'null', 'NaN', '1e999', '\ufeff{}', '"x"']))
    }
  }

  function anything(depth: number): unknown {
    switch (between(0, depth > 0 ? 8 : 6)) {
      case 0:
        return null
      case 1:
        return chance(0.5)
      case 2:
        return oneOf([0, -1, 1, 0.5, 1e308, -1e308, 2 ** 31, 2 ** 53, Number.MAX_VALUE, 1e-320])
      case 3:
      case 4:
        return oddText()
      case 5:
        return oneOf(['auto', 'required', 'none', 'user', 'system', 'text', 'function', 'high'])
      case 6:
        return oneOf([[], {}, [[]], [null], { '': '' }])
      case 7:
        return Array.from({ length: between(0, 3) }, () => anything(depth - 1))
      default:
        return Object.fromEntries(
          Array.from({ length: between(0, 3) }, () => [
            chance(0.5) ? oneOf(strangeKeys) : oddText(),
            anything(depth - 1),
          ]),
        )
    }
  }

  function oddText(): string {
    return oneOf(oddTexts)
  }

  function resolved(reference: string): Schema {
    const schema = document.schemas[reference.split('/').at(-1) ?? '']
    if (!schema) throw new Error(`The document has no ${reference}`)
    return schema
  }

  return {
    value: (schema, mischief) => value(schema, mischief),
    query,
    segment,
    broken,
    chance,
    oneOf,
  }
}

type Ids = Record<string, string>

const strangeKeys = (
  'model role content type text function name metadata tools assistant_id stream file_ids ' +
  'id object constructor toString hasOwnProperty __proto__ expires_after_seconds on_active_run'
).split(' ')

const oddTexts = [
  '',
  ' ',
  'undefined',
  'null',
  'a\0b',
  '\ud83d',
  '\udc00x',
  '🙂'.repeat(3),
  '\u202e\u0007\u001b[31m',
  "'; DROP TABLE runs; --",
  '$1',
  '%s%n',
  '%00',
  '../../etc/passwd',
  'a'.repeat(70),
  'a'.repeat(5000),
  '{"a": 1}',
  'thread_x',
  'asst_x',
  'run_',
  '[object Object]',
]

/** A small generator of numbers that are the same for the same seed (mulberry32). */
function createRandom(start: number): () => number {
  let state = start
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296
  }
}
