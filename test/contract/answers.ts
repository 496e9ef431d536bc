import type { IncomingHttpHeaders } from 'node:http'

import { Ajv2020, type ErrorObject, type ValidateFunction } from 'ajv/dist/2020.js'
import formats from 'ajv-formats'

import { deviations, extensions, extraEvents, type Deviation } from './deviations.ts'
import { isObject, mapValues, openDocument, type Dialect, type Document } from './document.ts'
import type { Operation, Schema } from './document.ts'

/** An answer of a server under test, as it went over the wire. */
export interface Exchange {
  method: string
  /** The path with its query. */
  url: string
  requestHeaders: IncomingHttpHeaders
  status: number
  contentType: string
  body: Buffer
  /** False where the connection broke before the end. */
  isComplete: boolean
}

/** What a sound answer was; undefined for a refusal, and for what no document knows. */
export interface Verdict {
  /** Each says where, and what the schema says. */
  violations: string[]
  answered?: { operation: Operation; isStream: boolean }
}

/** Deviations that answers have made use of, in this process. */
export const used = new Set<Deviation>()

/** Holds an answer against the document of the dialect that its request spoke. */
export function checkAnswer(exchange: Exchange): Verdict {
  const { method, url, status } = exchange
  const path = new URL(url, 'http://server').pathname
  if (method === 'HEAD' || status === 204) return { violations: [] }
  const own = extensions.find(({ routes }) => routes.some((one) => matches(one, method, path)))
  if (own && !own.schema) return { violations: [] }
  if (status >= 400) return { violations: checkRefusal(exchange) }
  if (own?.schema) return { violations: checkJson(exchange, dialectOf(exchange), own.schema) }
  const operation = findOperation(exchange, path)
  if (!operation) {
    const violations = [
      'no document knows this path: list it in `extensions` of test/contract/deviations.ts, with its reason',
    ]
    return { violations }
  }
  const isStream = exchange.contentType.startsWith('text/event-stream')
  const violations = isStream ? checkStream(exchange, operation) : checkBody(exchange, operation)
  return { violations, answered: { operation, isStream } }
}

/** Who names both speaks the newer one. */
export function dialectOf({ requestHeaders }: Pick<Exchange, 'requestHeaders'>): Dialect {
  const asked = String(requestHeaders['openai-beta'])
  return asked.includes('assistants=v1') && !asked.includes('assistants=v2') ? 'v1' : 'v2'
}

/** What the older document does not know is answered as in the newer one. */
function findOperation(exchange: Exchange, path: string): Operation | undefined {
  if (!path.startsWith('/v1/')) return undefined
  const below = path.slice('/v1'.length)
  const { method } = exchange
  const own = openDocument(dialectOf(exchange)).find(method, below)
  return own ?? openDocument('v2').find(method, below)
}

function matches(route: string, method: string, path: string): boolean {
  const [known, template = ''] = route.split(' ')
  const pattern = template.replaceAll(/:\w+/g, '[^/]+').replaceAll(/\*\w+/g, '.+')
  return known === method && new RegExp(`^${pattern}$`).test(path)
}

function checkRefusal({ body, contentType, isComplete }: Exchange): string[] {
  if (!isComplete) return []
  if (!contentType.startsWith('application/json')) {
    return [`an error is JSON, and this is '${contentType}'`]
  }
  return parsed(body, (value) => findings(refusalValidator(), value))
}

function checkBody(exchange: Exchange, operation: Operation): string[] {
  const { contentType, isComplete } = exchange
  if (!isComplete) return []
  // The document calls the bytes of a file a JSON string.
  if (operation.id === 'downloadFile') return []
  const type = contentType.split(';', 1).join('')
  const schema = operation.answer[type]
  // Bytes of files: any type, and nothing to read.
  if (!schema && !operation.answer['application/json']) return []
  if (!schema) return [`the document knows no answer of type '${contentType}'`]
  return checkJson(exchange, operation.dialect, schema)
}

function checkJson({ body }: Exchange, dialect: Dialect, schema: Schema): string[] {
  return parsed(body, (value) => findings(validatorOf(dialect, schema), value))
}

function checkStream({ body }: Exchange, { dialect }: Operation): string[] {
  const schemas = eventSchemas(dialect)
  const violations: string[] = []
  // What follows the last blank line was cut, or is nothing.
  for (const frame of body.toString('utf8').split('\n\n').slice(0, -1)) {
    const field = (name: string) => new RegExp(`^${name}: (.*)$`, 'm').exec(frame)?.[1]
    const [event, data] = [field('event'), field('data')]
    if (event === undefined && data === undefined) continue
    if (extraEvents.has(event ?? '')) continue
    const schema = schemas.get(event ?? '')
    if (!schema) violations.push(`the document knows no event '${event}'`)
    else if (event === 'done') {
      if (data !== '[DONE]') violations.push(`the data of done are '${data}'`)
    } else {
      const found = parsed(Buffer.from(data ?? ''), (value) =>
        findings(validatorOf(dialect, schema), value),
      )
      violations.push(...found.map((one) => `event ${event}: ${one}`))
    }
  }
  return violations
}

function parsed(body: Buffer, check: (value: unknown) => string[]): string[] {
  let value: unknown
  try {
    value = JSON.parse(body.toString('utf8'))
  } catch (error) {
    return [`no JSON: ${String(error)}`]
  }
  return check(value)
}

// --- schemas --------------------------------------------------------------------------------

const validators = new Map<Schema, ValidateFunction>()

function validatorOf(dialect: Dialect, schema: Schema): ValidateFunction {
  const known = validators.get(schema)
  if (known) return known
  const validator = ajvOf(dialect).compile(closed(rebased(schema, dialect)))
  validators.set(schema, validator)
  return validator
}

const refusal = { $ref: '#/components/schemas/ErrorResponse' }
function refusalValidator(): ValidateFunction {
  return validatorOf('v2', refusal)
}

const ajvs = new Map<Dialect, Ajv2020>()

/** Knows the schemas of a document, in which the deviations have been written down. */
function ajvOf(dialect: Dialect): Ajv2020 {
  const known = ajvs.get(dialect)
  if (known) return known
  // The documents hold keywords that are no JSON schema's: `x-...`, `example`, `discriminator`.
  const ajv = new Ajv2020({ strict: false, allErrors: false, logger: false })
  formats.default(ajv, ['uri', 'date', 'binary', 'int64'])
  ajv.addFormat('unixtime', { type: 'number', validate: Number.isInteger })
  ajv.addKeyword({
    keyword: 'deviation',
    validate: (index: number) => {
      const deviation = deviations[index]
      if (deviation) used.add(deviation)
      return true
    },
  })
  const document = openDocument(dialect)
  ajv.addSchema({
    $id: dialect,
    components: {
      schemas: mapValues(deviating(document), (schema) => closed(rebased(schema, dialect))),
    },
  })
  ajvs.set(dialect, ajv)
  return ajv
}

function deviating({ dialect, schemas }: Document): Record<string, Schema> {
  const copy = structuredClone(schemas)
  for (const [index, deviation] of deviations.entries()) {
    if (deviation.dialect && deviation.dialect !== dialect) continue
    for (const at of deviation.at) deviate(copy, at, deviation, index)
  }
  return copy
}

/** Puts what is right too behind the document's own schema, so that it is marked as used only where that one fails. */
function deviate(root: Schema, at: string, { also, keys }: Deviation, deviation: number): void {
  const steps = at.split('/')
  const last = steps.pop() ?? ''
  const parent = steps.reduce<unknown>(
    (value, step) =>
      isObject(value) || Array.isArray(value) ? Reflect.get(value, step) : undefined,
    root,
  )
  // An object of the other dialect only.
  if (!isObject(parent) && !Array.isArray(parent)) return
  const own: unknown = Reflect.get(parent, last)
  if (!isObject(own)) return
  if (keys) {
    const properties = isObject(own['properties']) ? own['properties'] : {}
    const added = Object.fromEntries(keys.map((key) => [key, { allOf: [also, { deviation }] }]))
    own['properties'] = { ...properties, ...added }
    return
  }
  // `not`: where unevaluated keys are counted, all branches are read, even behind one that holds.
  Reflect.set(parent, last, { anyOf: [own, { allOf: [{ not: own }, also, { deviation }] }] })
}

/** References lead into the document, from wherever the schema is. */
function rebased(schema: Schema, dialect: Dialect): Schema {
  return mapValues(schema, (value, keyword) => {
    if (keyword === '$ref' && typeof value === 'string') return `${dialect}${value}`
    if (Array.isArray(value))
      return value.map((one) => (isObject(one) ? rebased(one, dialect) : (one as unknown)))
    return isObject(value) ? rebased(value, dialect) : value
  })
}

/** An object with named properties has no others, so that a key too many is found; `deviations` lists those we mean. */
function closed(schema: Schema, isPart = false): Schema {
  const inner = mapValues(schema, (value, keyword) => {
    if (keyword === 'properties' && isObject(value)) {
      return mapValues(value, (one) => (isObject(one) ? closed(one) : one))
    }
    if (Array.isArray(value)) {
      return value.map((one) =>
        isObject(one) ? closed(one, keyword === 'allOf') : (one as unknown),
      )
    }
    return isObject(value) ? closed(value) : value
  })
  const isOpen = isPart || !('properties' in schema) || 'additionalProperties' in schema
  return isOpen ? inner : { ...inner, unevaluatedProperties: false }
}

const eventsByDialect = new Map<Dialect, Map<string, Schema>>()

/** Of each event the schema of its data. */
function eventSchemas(dialect: Dialect): Map<string, Schema> {
  const known = eventsByDialect.get(dialect)
  if (known) return known
  const events = new Map<string, Schema>()
  const { schemas } = openDocument(dialect)
  collect({ $ref: '#/components/schemas/AssistantStreamEvent' })
  eventsByDialect.set(dialect, events)
  return events

  function collect(schema: Schema): void {
    const { $ref, oneOf, anyOf, properties } = schema
    if (typeof $ref === 'string') collect(schemas[$ref.split('/').at(-1) ?? ''] ?? {})
    for (const one of [oneOf, anyOf].flat()) if (isObject(one)) collect(one)
    if (!isObject(properties) || !isObject(properties['event'])) return
    const { event, data } = properties
    if (!isObject(event) || !Array.isArray(event['enum']) || !isObject(data)) return
    events.set(String(event['enum'][0]), data)
  }
}

/** What is wrong with a value, the deepest first: the branches of a union all have something to say. */
function findings(validate: ValidateFunction, value: unknown): string[] {
  if (validate(value)) return []
  const errors = [...(validate.errors ?? [])]
  const depth = ({ instancePath }: ErrorObject) => instancePath.split('/').length
  return [...new Set(errors.toSorted((a, b) => depth(b) - depth(a)).map(sentence))].slice(0, 4)
}

function sentence({ instancePath, message, params }: ErrorObject): string {
  return `${instancePath === '' ? 'the body' : instancePath} ${message} ${JSON.stringify(params)}`
}
