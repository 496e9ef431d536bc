import { expect, test } from 'vitest'

import { storable } from '../../wire/storable.ts'

test('text that can be stored is left as it is', () => {
  for (const text of ['', 'plain', '🙂', '\u{fffd}', 'a\nb\t']) expect(storable(text)).toBe(text)
  expect(storable('\ud83d\0')).toBe('\u{fffd}\u{fffd}')
})
