import { randomUUID } from 'node:crypto'

import { describe, expect, test } from 'vitest'

import { idFrom, prefixes, type IdKind } from '../../wire/ids.ts'

const uuid = 'f81d4fae-7dec-11d0-a765-00a0c91e6bf6'
const kinds = Object.keys(prefixes) as IdKind[]

describe('an id', () => {
  test.each(kinds)('of kind %s is its prefix and what the original put behind it', (kind) => {
    const form = kind === 'vector_store' ? /^[0-9a-f]{32}$/ : /^[0-9A-Za-z]{24}$/
    for (const one of [uuid, randomUUID(), nil, last]) {
      const id = idFrom(kind, one)
      expect(id.startsWith(prefixes[kind])).toBe(true)
      expect(id.slice(prefixes[kind].length)).toMatch(form)
    }
  })

  test('is the same again for the same uuid, however that is written', () => {
    expect(idFrom('run', uuid, 3)).toBe(idFrom('run', uuid.replaceAll('-', ''), 3))
    expect(idFrom('run', uuid)).toBe(idFrom('run', uuid, 0))
  })

  test('is another for each number of one uuid', () => {
    const ids = new Set(Array.from({ length: 5000 }, (_, n) => idFrom('call', uuid, n)))
    expect(ids.size).toBe(5000)
  })

  test('is another for each uuid, next ones too', () => {
    const neighbours = Array.from({ length: 2000 }, (_, n) => n.toString(16).padStart(32, '0'))
    expect(new Set(neighbours.map((one) => idFrom('run', one))).size).toBe(2000)
    expect(idFrom('run', last)).not.toBe(idFrom('run', nil))
  })

  test('of one uuid does not meet that of the next uuid', () => {
    const next = 'f81d4fae-7dec-11d0-a765-00a0c91e6bf7'
    const ids = [uuid, next].flatMap((one) =>
      Array.from({ length: 500 }, (_, n) => idFrom('call', one, n)),
    )
    expect(new Set(ids).size).toBe(1000)
  })

  test('tells nothing of the order in which ids were made', () => {
    const ids = Array.from({ length: 100 }, (_, n) => idFrom('message', uuid, n))
    expect(ids.toSorted()).not.toEqual(ids)
  })
})

const nil = '00000000-0000-0000-0000-000000000000'
const last = 'ffffffff-ffff-ffff-ffff-ffffffffffff'
