import { existsSync, readFileSync } from 'node:fs'

import { parse } from 'yaml'

/** The two generations of the API; `OpenAI-Beta: assistants=...` says which one a request speaks. */
export type Dialect = 'v1' | 'v2'

/** A JSON schema, as far as anybody here looks into one. */
export type Schema = { [keyword: string]: unknown }

export interface Parameter {
  name: string
  in: string
  required: boolean
  schema: Schema
}

/** One method of one path of a document. */
export interface Operation {
  id: string
  dialect: Dialect
  /** In capitals. */
  method: string
  /** Below `/v1`, with names in braces: `/threads/{thread_id}`. */
  path: string
  parameters: Parameter[]
  /** By content type; undefined where the operation takes no body. */
  body: Record<string, Schema> | undefined
  /** Of the answer with status 200, by content type. */
  answer: Record<string, Schema>
}

/** One OpenAPI document. References in its schemas begin with `#/components/schemas/`. */
export interface Document {
  dialect: Dialect
  schemas: Record<string, Schema>
  operations: Operation[]
  /** The operation of a request; `path` is below `/v1`, without its query. */
  find(method: string, path: string): Operation | undefined
}

const folder = '../shared/spec'
const files: Record<Dialect, string> = {
  v1: `${folder}/openapi-v1.yaml`,
  v2: `${folder}/openapi-v2.yaml`,
}

/** Whether the documents are there, which are no part of the project. */
export const hasDocuments = Object.values(files).every((file) => existsSync(file))
/** What the title of a test says where they are not. */
export const skipped = hasDocuments ? '' : ` (skipped: there is no ${folder})`

const opened = new Map<Dialect, Document>()

/** Reads a document, once. Whatever its version says, its schemas come as JSON schemas of 2020-12. */
export function openDocument(dialect: Dialect): Document {
  const known = opened.get(dialect)
  if (known) return known
  // The files of the original; that they are OpenAPI documents is known.
  const source = parse(readFileSync(files[dialect], 'utf8')) as Source
  const operations = Object.entries(source.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, given]) => operationOf(dialect, path, method, given)),
  )
  const patterns = operations
    .map((operation) => ({ operation, pattern: patternOf(operation.path) }))
    // `/threads/runs` goes before `/threads/{thread_id}`.
    .toSorted((a, b) => variables(a.operation.path) - variables(b.operation.path))
  const document: Document = {
    dialect,
    schemas: mapValues(source.components.schemas, withoutNullable),
    operations,
    find: (method, path) =>
      patterns.find(({ operation, pattern }) => operation.method === method && pattern.test(path))
        ?.operation,
  }
  opened.set(dialect, document)
  return document
}

type Content = Record<string, { schema: Schema }>
type Source = {
  paths: Record<string, Record<string, GivenOperation>>
  components: { schemas: Record<string, Schema> }
}
type GivenOperation = {
  operationId: string
  parameters?: { name: string; in: string; required?: boolean; schema: Schema }[]
  requestBody?: { content: Content }
  responses: { '200'?: { content?: Content } }
}

function operationOf(
  dialect: Dialect,
  path: string,
  method: string,
  { operationId, parameters = [], requestBody, responses }: GivenOperation,
): Operation {
  const schemasOf = (content: Content) =>
    mapValues(content, ({ schema }) => withoutNullable(schema))
  return {
    id: operationId,
    dialect,
    method: method.toUpperCase(),
    path,
    parameters: parameters.map(({ required = false, schema, ...rest }) => ({
      ...rest,
      required,
      schema: withoutNullable(schema),
    })),
    body: requestBody && schemasOf(requestBody.content),
    answer: schemasOf(responses['200']?.content ?? {}),
  }
}

/** OpenAPI 3.0's `nullable`, which the newer document has too, said with the null type. */
function withoutNullable(schema: Schema): Schema {
  const { nullable, ...rest } = mapValues(schema, (value, keyword) =>
    // A property may have any name, even that of a keyword.
    keyword === 'properties' && isObject(value)
      ? mapValues(value, (one) => (isObject(one) ? withoutNullable(one) : one))
      : deep(value),
  )
  if (nullable === true) return { anyOf: [rest, { type: 'null' }] }
  const { allOf } = schema
  if (Array.isArray(allOf) && allOf.some((part) => isObject(part) && onlyNullable(part))) {
    const parts = allOf.filter((part) => isObject(part) && !onlyNullable(part)).map(deep)
    return { anyOf: [{ ...rest, allOf: parts }, { type: 'null' }] }
  }
  return rest
}

function deep(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(deep)
  return isObject(value) ? withoutNullable(value) : value
}

/** A part that says nothing but that null will do: `allOf: [..., { nullable: true }]`. */
function onlyNullable(schema: Schema): boolean {
  const says = Object.keys(schema).filter((keyword) => keyword !== 'description')
  return schema['nullable'] === true && says.length === 1
}

/** A model's name holds slashes; no other variable does. */
function patternOf(path: string): RegExp {
  const source = path
    .replaceAll(/[.*+?^$()|[\]\\]/g, '\\$&')
    .replaceAll(/\{(\w+)\}/g, (_, name) => (name === 'model' ? '.+' : '[^/]+'))
  return new RegExp(`^${source}/?$`)
}

function variables(path: string): number {
  return path.split('{').length
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

export function mapValues<From, To>(
  record: Record<string, From>,
  change: (value: From, key: string) => To,
): Record<string, To> {
  return Object.fromEntries(Object.entries(record).map(([key, value]) => [key, change(value, key)]))
}
