import { describe, expect, test } from 'vitest'

import { argumentsMisfit, strictSchema } from '../../activities/tool-arguments.ts'

const person = {
  type: 'object',
  properties: {
    name: { type: 'string', pattern: '^[A-Z]' },
    age: { type: ['integer', 'null'] },
    kind: { enum: ['adult', 'child'] },
    children: { type: 'array', items: { $ref: '#' } },
  },
  required: ['name', 'age', 'kind', 'children'],
  additionalProperties: false,
}
const ada = { name: 'ada', age: 36, kind: 'adult', children: [] }

describe('arguments', () => {
  test.each([
    ['as the schema has them', ada],
    ['with null where that is allowed', { ...ada, age: null }],
    ['of the same kind inside', { ...ada, children: [{ ...ada, kind: 'child' }] }],
  ])('fit %s', (_, args) => {
    expect(argumentsMisfit(args, person)).toBeUndefined()
  })

  test.each([
    ['of another type', { ...ada, age: 'old' }, /"integer"|"null".*#\/age/],
    ['that are missing', { name: 'ada', age: 1, kind: 'child' }, /required property "children"/],
    [
      'that are not in the schema',
      { ...ada, shoes: 38 },
      /^property 'shoes' is not allowed \(at #\/shoes\)\.$/,
    ],
    [
      'of a name that is none',
      { ...ada, children: [{ ...ada, 'sh/~ö s': 38 }] },
      /^property 'sh\/~ö s' is not allowed \(at #\/children\/0\//,
    ],
    ['that are not among the values', { ...ada, kind: 'cat' }, /\(at #\/kind\)/],
    ['that are wrong inside', { ...ada, children: [{ ...ada, name: 7 }] }, /#\/children\/0\/name/],
    ['that are no object', [ada], /\(at #\)/],
  ])('do not fit %s', (_, args, why) => {
    expect(argumentsMisfit(args, person)).toMatch(why)
  })
})

describe('a schema that was made to break things', () => {
  test('has no regular expression carried out', () => {
    const slow = { type: 'string', pattern: '^(a+)+$', format: 'email' }
    const schema = {
      type: 'object',
      properties: { pattern: slow },
      patternProperties: { '^(a+)+$': { type: 'integer' } },
    }
    expect(argumentsMisfit({ pattern: `${'a'.repeat(60)}!` }, schema)).toBeUndefined()
    // A property may have the name of a keyword.
    expect(argumentsMisfit({ pattern: 7 }, schema)).toMatch(/#\/pattern/)
  })

  test('that would be looked through for years counts as fitting', () => {
    const levels = Array.from({ length: 60 }, (_, n) => [
      `l${n}`,
      { anyOf: [{ $ref: `#/$defs/l${n + 1}` }, { $ref: `#/$defs/l${n + 1}` }] },
    ])
    const schema = {
      $ref: '#/$defs/l0',
      $defs: { ...Object.fromEntries(levels), l60: { type: 'string' } },
    }
    expect(argumentsMisfit(7, schema)).toBeUndefined()
  })

  const large = Array.from({ length: 3000 }, () => ({ x: Array.from({ length: 100 }, () => 7) }))
  const names = Array.from({ length: 5000 }, (_, n) => [`p${n}`, {}])
  const lengths = Array.from({ length: 40 }, (_, n) => ({ minLength: n }))
  test.each<[string, number, unknown, object]>([
    ['compares large values', 400, large, { const: large }],
    ['counts the letters of long texts', 20, 'x'.repeat(100_000), { anyOf: lengths }],
    ['looks for many names', 3000, {}, { type: 'object', properties: Object.fromEntries(names) }],
    ['has long lists of anything', 50, large, { type: 'array', items: true }],
  ])('that %s too often counts as fitting', (_, times, fitting, items) => {
    const args = [...Array.from({ length: times }, () => fitting), 7]
    const schema = { type: 'array', items: { ...items, not: { type: 'number' } } }
    expect(argumentsMisfit([7], schema)).toBeDefined()
    expect(argumentsMisfit(args, schema)).toBeUndefined()
  })

  test('tells what is wrong as shortly as it can be read', () => {
    const values = Array.from({ length: 5000 }, (_, n) => `value ${n} \u{1f642}`)
    const misfit = argumentsMisfit({ a: 'none' }, { properties: { a: { enum: values } } })
    expect(misfit).toMatch(/^Instance does not match any of \["value 0 .*\.\.\. \(at #\/a\)\.$/)
    expect(misfit?.length).toBeLessThan(2200)
    expect(misfit?.isWellFormed()).toBe(true)
  })

  test.each([
    ['refers to nothing', { $ref: '#/$defs/none' }],
    ['refers to itself', { $ref: '#' }],
    ['is no schema', { type: 7, properties: 8, required: 9 }],
  ])('that %s counts as fitting', (_, schema) => {
    expect(argumentsMisfit({ a: 1 }, schema)).toBeUndefined()
  })
})

test('only strict functions with parameters have a schema that must be fit', () => {
  const of = (given: object) =>
    strictSchema('f', [{ type: 'function', function: { name: 'f', ...given } }])
  expect(of({ strict: true, parameters: person })).toEqual(person)
  expect(of({ strict: false, parameters: person })).toBeUndefined()
  expect(of({ strict: true })).toBeUndefined()
  expect(strictSchema('code_interpreter', [{ type: 'code_interpreter' }])).toBeUndefined()
})
