import { describe, expect, test } from 'vitest'

import { createAnnotator, type MarkedPiece } from '../../activities/annotator.ts'
import type { Json } from '../../store/rows.ts'
import { createRandom } from '../support/random.ts'

const link = (name: string): [string, Json] => [
  `sandbox:/mnt/data/${name}`,
  { type: 'file_path', file_path: { file_id: `file-${name}` } },
]
const marks = new Map([link('a.csv'), link('a.csv.gz'), link('图 1.png'), link('b')])

function annotated(pieces: string[], given: ReadonlyMap<string, Json> = marks): MarkedPiece[] {
  const annotator = createAnnotator(given)
  return [...pieces.flatMap((piece) => annotator.read(piece)), ...annotator.end()]
}

const textOf = (pieces: MarkedPiece[]): string => pieces.map(({ text }) => text).join('')
const found = (pieces: MarkedPiece[]) => pieces.flatMap(({ annotation }) => annotation ?? [])

test('a link to a file becomes an annotation that says where it is', () => {
  const pieces = annotated(['See [it](sandbox:/mnt/data/a.csv).'])
  expect(pieces.map(({ text }) => text)).toEqual(['See [it](', 'sandbox:/mnt/data/a.csv', ').'])
  expect(found(pieces)).toEqual([
    {
      type: 'file_path',
      file_path: { file_id: 'file-a.csv' },
      text: 'sandbox:/mnt/data/a.csv',
      start_index: 9,
      end_index: 32,
    },
  ])
})

describe('a link is taken', () => {
  test.each([
    ['for the longest name that fits', '(sandbox:/mnt/data/a.csv.gz)', ['file-a.csv.gz']],
    ['at the end of a sentence', 'It is in sandbox:/mnt/data/a.csv.', ['file-a.csv']],
    ['at the end of the text', 'sandbox:/mnt/data/b', ['file-b']],
    ['with a name of several words', '(sandbox:/mnt/data/图 1.png)', ['file-图 1.png']],
    ['not for a file that has another ending', '(sandbox:/mnt/data/a.csv2)', []],
    ['not for a file beside it', '(sandbox:/mnt/data/a.csv.zip)', []],
    ['not for a folder of that name', '(sandbox:/mnt/data/b/c)', []],
    ['not for a file that is not there', '(sandbox:/mnt/data/c.csv)', []],
  ])('%s', (_, text, ids) => {
    const annotations = found(annotated([text]))
    expect(annotations.map((one) => (one['file_path'] as { file_id: string }).file_id)).toEqual(ids)
  })
})

test('nothing that may become a link is shown before it is one', () => {
  const annotator = createAnnotator(marks)
  expect(annotator.read('see sand')).toEqual([{ text: 'see ' }])
  expect(annotator.read('y beach,')).toEqual([{ text: 'sandy beach,' }])
  expect(annotator.read(' sandbox:/mnt/data/a.csv')).toEqual([{ text: ' ' }])
  const [marked, after] = annotator.read(')')
  expect(marked?.annotation?.text).toBe('sandbox:/mnt/data/a.csv')
  expect(after).toEqual({ text: ')' })
})

test('however a text is cut, its annotations are the same, and each stands where it says', () => {
  const random = createRandom(11)
  const words = [
    '😀',
    '数据',
    'é',
    ' ',
    'sandbox:',
    'sandbox:/mnt/data/',
    '.',
    ')',
    ...marks.keys(),
    's',
  ]
  for (let time = 0; time < 500; time += 1) {
    const text = Array.from({ length: 1 + random.integer(8) }, () => random.pick(words)).join('')
    const pieces: string[] = []
    const points = Array.from(text)
    for (let at = 0; at < points.length;) {
      const length = 1 + random.integer(6)
      pieces.push(points.slice(at, at + length).join(''))
      at += length
    }
    const shown = annotated(pieces)
    expect(textOf(shown)).toBe(text)
    expect(found(shown)).toEqual(found(annotated([text])))
    for (const { text: mark, start_index, end_index } of found(shown)) {
      expect(points.slice(start_index, end_index).join('')).toBe(mark)
    }
  }
})

test('a text without marks goes through as it comes', () => {
  expect(annotated(['a', 'b sandbox:/x'], new Map())).toEqual([
    { text: 'a' },
    { text: 'b sandbox:/x' },
  ])
})
