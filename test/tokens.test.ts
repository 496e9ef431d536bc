import { expect, test } from 'vitest'

import { countEach, countTokens, mostTokens } from '../tokens.ts'

const texts = ['', 'Hello there.', 'ÄÖÜ 你好 🎉', 'x'.repeat(3000), '<|endoftext|>']

test('texts that are counted together have as many tokens as each alone, known or not', async () => {
  const alone = await Promise.all(texts.map(countTokens))
  const keyed = texts.map((text, index) => ({
    text,
    key: index % 2 === 0 ? `k${index}` : undefined,
  }))
  expect(await countEach(keyed)).toEqual(alone)
  expect(await countEach(keyed)).toEqual(alone)
})

test('a text with a key is counted once', async () => {
  expect(await countEach([{ key: 'message', text: 'one two three' }])).toEqual([3])
  // A key stands for one text for ever: another one shows that it was not counted.
  expect(await countEach([{ key: 'message', text: '' }])).toEqual([3])
})

test('no text has more tokens than are said to be the most', async () => {
  for (const text of texts) expect(await countTokens(text)).toBeLessThanOrEqual(mostTokens(text))
})
