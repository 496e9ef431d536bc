import { expect, test } from 'vitest'

import { createOutputs, createTextCleaner } from '../../sandbox/output.ts'
import type { CodeOutput } from '../../sandbox/index.ts'

function cleaned(text: string | Buffer, pieceBytes = 1): string {
  const cleaner = createTextCleaner()
  const bytes = Buffer.from(text as string)
  let result = ''
  for (let start = 0; start < bytes.length; start += pieceBytes) {
    result += cleaner.push(bytes.subarray(start, start + pieceBytes))
  }
  return result + cleaner.flush()
}

test.each([
  ['colours', '\u001B[1;31mred\u001B[0m', 'red'],
  ['24-bit colours', '\u001B[38;2;1;2;3mx\u001B[m', 'x'],
  ['cursor moves', 'a\u001B[2K\u001B[1Gb', 'ab'],
  ['titles', '\u001B]0;title\u0007x', 'x'],
  ['links', '\u001B]8;;http://a\u001B\\text\u001B]8;;\u001B\\', 'text'],
  ['character sets', '\u001B(Bx\u001B=y', 'xy'],
])('%s are taken out, in one piece or byte by byte', (_, text, expected) => {
  expect(cleaned(text)).toBe(expected)
  expect(cleaned(text, 1000)).toBe(expected)
})

test('characters that are cut between two pieces stay whole', () => {
  expect(cleaned('ä€😀')).toBe('ä€😀')
})

test('U+0000 and what is no UTF-8 become U+FFFD', () => {
  expect(cleaned('a\u0000b')).toBe('a\uFFFDb')
  expect(cleaned(Buffer.from([0x61, 0xff, 0x62]))).toBe('a\uFFFDb')
  expect(cleaned(Buffer.from([0xed, 0xa0, 0x80]), 3).isWellFormed()).toBe(true)
})

test('tabs, newlines and carriage returns stay', () => {
  expect(cleaned('a\tb\r\nc\r')).toBe('a\tb\r\nc\r')
})

test('an escape sequence without an end is shown once it is longer than any', () => {
  const text = `\u001B]0;${'a'.repeat(10_000)}`
  expect(cleaned(text, 100)).toContain('a'.repeat(5000))
})

test('neighbouring logs are merged, images stay where they were', () => {
  const pieces: CodeOutput[] = []
  const outputs = createOutputs((piece) => pieces.push(piece))
  const image: CodeOutput = { type: 'image', format: 'png', data: Buffer.from('x') }
  for (const logs of ['a', '', 'b']) outputs.add({ type: 'logs', logs })
  outputs.add(image)
  outputs.add({ type: 'logs', logs: 'c' })
  expect(outputs.take()).toEqual([{ type: 'logs', logs: 'ab' }, image, { type: 'logs', logs: 'c' }])
  expect(pieces.map((piece) => (piece.type === 'logs' ? piece.logs : piece.format))).toEqual([
    'a',
    'b',
    'png',
    'c',
  ])
})
