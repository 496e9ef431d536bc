import { expect, test } from 'vitest'

import { codeOf } from '../../wire/present/run-step.ts'

test('code is told without what no event may hold, though JSON has it escaped', () => {
  expect(codeOf('{"code":"1 + 1"}')).toBe('1 + 1')
  expect(codeOf('{"code":"a\\u0000\\ud83d"}')).toBe('a\u{fffd}\u{fffd}')
})
