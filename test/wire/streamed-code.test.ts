import { describe, expect, test } from 'vitest'

import { codeOf, createStreamedCode } from '../../wire/streamed-code.ts'
import { createRandom } from '../support/random.ts'

test('code is told without what no event may hold, though JSON has it escaped', () => {
  expect(codeOf('{"code":"1 + 1"}')).toBe('1 + 1')
  expect(codeOf('{"code":"a\\u0000\\ud83d"}')).toBe('a\u{fffd}\u{fffd}')
})

const programs = [
  'print(1)\nprint("two")',
  'x = """a "quoted" word \\ and a tab\t"""',
  '# 数据 📈 é',
  '\\',
  '',
  'a\u2028b',
]

test.each(programs)('the code of %j is what JSON says that it is', (code) => {
  expect(codeOf(JSON.stringify({ code }))).toBe(code)
  expect(codeOf(JSON.stringify({ code }, null, 2))).toBe(code)
  expect(codeOf(JSON.stringify({ language: 'python', code }))).toBe(code)
  const ascii = JSON.stringify({ code }).replaceAll(
    /[\u0080-\uffff]/g,
    (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`,
  )
  expect(codeOf(ascii)).toBe(code)
})

describe('what models write in place of JSON', () => {
  test('is code where it is bare Python', () => {
    expect(codeOf('print(1)\n')).toBe('print(1)\n')
    expect(codeOf("  {'a': 1}['a']")).toBe("  {'a': 1}['a']")
  })

  test('is the code so far where it was cut, and no half escape', () => {
    expect(codeOf('{"code": "print(1)\\npr')).toBe('print(1)\npr')
    expect(codeOf('{"code": "print(1)\\')).toBe('print(1)')
    expect(codeOf('{"code": "print(1)\\u00')).toBe('print(1)')
  })

  test('may have line breaks inside of the string', () => {
    expect(codeOf('{"code": "a = 1\nprint(a)"}')).toBe('a = 1\nprint(a)')
  })

  test('is no code where there are no arguments', () => {
    expect(codeOf('{}')).toBe('')
    expect(codeOf('')).toBe('')
  })
})

test('however arguments are cut into fragments, the pieces of code add up to the same', () => {
  const random = createRandom(7)
  const all = [
    ...programs.flatMap((code) => [
      JSON.stringify({ code }),
      JSON.stringify({ code, language: 'python' }),
      JSON.stringify({ first: 1, code }),
      code,
    ]),
    '{"code":"\\ud83d\\ude00 \\ud83d x"}',
    '{"code": "cut \\ud83d',
    ' { "cod": "x"}',
  ]
  for (const args of all) {
    for (let time = 0; time < 50; time += 1) {
      const code = createStreamedCode()
      let said = ''
      for (let at = 0; at < args.length;) {
        const length = 1 + random.integer(5)
        said += code.read(args.slice(at, at + length))
        at += length
      }
      expect(said + code.end()).toBe(codeOf(args))
    }
  }
})

test('code is said as soon as it is there', () => {
  const code = createStreamedCode()
  expect(['{"co', 'de": ', '"print', '(1)\\', 'nx', '"}'].map((piece) => code.read(piece))).toEqual(
    ['', '', 'print', '(1)', '\nx', ''],
  )
})
