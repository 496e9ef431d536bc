import { describe, expect, test } from 'vitest'

import { CreateAssistant } from '../../api/assistants.schema.ts'
import { CreateRun } from '../../api/runs.schema.ts'
import { strictMisfit } from '../../api/strict-schema.ts'
import { parse } from '../../api/validation.ts'

const text = { type: 'string' }
const closed = (properties: object, required = Object.keys(properties)) => ({
  type: 'object',
  properties,
  required,
  additionalProperties: false,
})

function bodyOf(parameters: unknown, strict = true) {
  const plain = { type: 'code_interpreter' }
  return {
    model: 'm',
    tools: [plain, { type: 'function', function: { name: 'x', strict, parameters } }],
  }
}

/** So many objects, each inside of the one before; `inside` puts an object into what lies between. */
function nested(objects: number, inside = (inner: object) => inner): object {
  const levels = Array.from({ length: objects - 1 })
  return levels.reduce<object>((inner) => closed({ a: inside(inner) }), closed({ a: text }))
}

function wide(properties: number): object {
  return closed(Object.fromEntries(Array.from({ length: properties }, (_, n) => [`p${n}`, text])))
}

const additional = "'additionalProperties' is required to be supplied and to be false."
const required =
  "'required' is required to be supplied and to be an array including every key in properties."

describe('a strict function is refused where its schema', () => {
  test.each<[string, object, string, string]>([
    ['is open', { ...closed({}), additionalProperties: true }, '()', additional],
    ['does not say that it is closed', { type: 'object', properties: {} }, '()', additional],
    [
      'has an open object in it',
      closed({ a: { type: 'object', properties: {} } }),
      "('properties', 'a')",
      additional,
    ],
    [
      'has one that may be null',
      closed({ a: { type: ['object', 'null'], properties: {} } }),
      "('properties', 'a')",
      additional,
    ],
    [
      'has one in a list',
      closed({ a: { type: 'array', items: { type: 'object' } } }),
      "('properties', 'a', 'items')",
      additional,
    ],
    [
      'has one among alternatives',
      closed({ a: { anyOf: [text, { type: 'object' }] } }),
      "('properties', 'a', 'anyOf', '1')",
      additional,
    ],
    [
      'has one among its definitions',
      { ...closed({ a: { $ref: '#/$defs/b' } }), $defs: { b: { properties: {} } } },
      "('$defs', 'b')",
      additional,
    ],
    [
      'leaves a property to choice',
      closed({ a: text, b: text }, ['a']),
      '()',
      `${required} Missing 'b'.`,
    ],
    [
      'requires nothing',
      { ...closed({ a: text }), required: undefined },
      '()',
      `${required} Missing 'a'.`,
    ],
    [
      'requires what it does not have',
      closed({ a: text }, ['a', 'b']),
      '()',
      `${required} Extra required key 'b' supplied.`,
    ],
    [
      'allows one of several',
      closed({ a: { oneOf: [text] } }),
      "('properties', 'a')",
      "'oneOf' is not permitted.",
    ],
    [
      'has a list of anything',
      closed({ a: { type: 'array' } }),
      "('properties', 'a')",
      'array schema missing items.',
    ],
  ])('%s', (_, parameters, context, rule) => {
    const error = {
      status: 400,
      type: 'invalid_request_error',
      param: 'tools[1].function.parameters',
      code: 'invalid_function_parameters',
      message: `Invalid schema for function 'x': In context=${context}, ${rule}`,
    }
    const body = JSON.parse(JSON.stringify(bodyOf(parameters))) as object
    expect(() => parse(CreateAssistant, body)).toThrow(expect.objectContaining(error))
    expect(() => parse(CreateRun, { ...body, assistant_id: 'asst_a' })).toThrow(
      expect.objectContaining(error),
    )
    // That is nobody's business where it is not strict.
    expect(() => parse(CreateAssistant, bodyOf(parameters, false))).not.toThrow()
  })

  test.each([
    [{}, 'None'],
    [{ type: 'string' }, 'string'],
  ])('is %j, which is no object', (parameters, got) => {
    expect(() => parse(CreateAssistant, bodyOf(parameters))).toThrow(
      `Invalid schema for function 'x': schema must be a JSON Schema of 'type: "object"', got 'type: "${got}"'.`,
    )
  })
})

describe('a strict function is refused where its schema is larger than strict mode takes', () => {
  test.each<[string, object, string]>([
    ['it nests too deeply', nested(12), '11 levels of nesting exceeds limit of 10.'],
    [
      'it does so in lists and among alternatives',
      nested(13, (inner) => ({ type: 'array', items: { anyOf: [text, inner] } })),
      '12 levels of nesting exceeds limit of 10.',
    ],
    [
      'a definition does',
      { ...closed({}), $defs: { b: nested(12) } },
      '11 levels of nesting exceeds limit of 10.',
    ],
    ['an object has too many properties', wide(20_000), '20000 parameters exceeds limit of 5000.'],
    [
      'its objects have too many together',
      closed({ a: wide(2500), b: wide(2499) }),
      '5001 parameters exceeds limit of 5000.',
    ],
  ])('%s', (_, parameters, rule) => {
    expect(() => parse(CreateAssistant, bodyOf(parameters))).toThrow(
      expect.objectContaining({
        status: 400,
        param: 'tools[1].function.parameters',
        code: 'invalid_function_parameters',
        message: `Invalid schema for function 'x': ${rule}`,
      }),
    )
    expect(() => parse(CreateAssistant, bodyOf(parameters, false))).not.toThrow()
  })

  test('alternatives of alternatives are read to their end', () => {
    let alternatives: object = { type: 'object' }
    for (let n = 0; n < 20_000; n += 1) alternatives = { anyOf: [alternatives] }
    const misfit = strictMisfit('x', closed({ a: alternatives }))
    expect(misfit?.('parameters').message).toContain(additional)
    // In a body, so many levels are too many for anything.
    const body = bodyOf(closed({ a: alternatives }))
    expect(() => parse(CreateAssistant, body)).toThrow(/nested too deeply/)
  })
})

describe('a strict function is accepted', () => {
  test.each<[string, object | undefined]>([
    ['with ten levels', nested(11, (inner) => ({ type: 'array', items: { anyOf: [inner] } }))],
    ['with definitions of ten levels', { ...nested(11), $defs: { b: nested(11) } }],
    ['with five thousand properties', closed({ a: wide(2500), b: wide(2498) })],
    ['without parameters', undefined],
    ['with no properties', { type: 'object', properties: {}, additionalProperties: false }],
    [
      'with everything that strict mode allows',
      {
        ...closed({
          a: { type: ['string', 'null'], enum: ['x', null], pattern: '^x$' },
          b: { type: 'array', items: closed({ c: { anyOf: [text, { $ref: '#/$defs/d' }] } }) },
          // Names of properties that are keywords elsewhere.
          oneOf: text,
          properties: closed({ required: text }),
        }),
        $defs: { d: closed({ e: { $ref: '#' } }) },
      },
    ],
  ])('%s', (_, parameters) => {
    const body = bodyOf(parameters)
    expect(parse(CreateAssistant, body).tools?.[1]).toEqual(body.tools[1])
  })
})
