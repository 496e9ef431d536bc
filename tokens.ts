/**
 * Counts tokens as `o200k_base` does: exact for newer models of OpenAI, near for others. What a provider says itself goes
 * before it.
 */
export async function countTokens(text: string): Promise<number> {
  const { countTokens: count } = await tokenizer()
  let tokens = 0
  for (let from = 0; from < text.length; from += sliceChars) {
    // Long texts are counted piece by piece, so that the streams of this process go on.
    if (from > 0) await new Promise((resolve) => setImmediate(resolve))
    for (const piece of pieces(text.slice(from, from + sliceChars))) {
      tokens += count(piece, asPlainText)
    }
  }
  return tokens
}

/** A text that is counted again and again, as those of a thread are, is remembered by a key that stands for no other text. */
export interface KeyedText {
  text: string
  key: string | undefined
}

/** Counts each of the texts; streams of this process go on meanwhile, however many they are. */
export async function countEach(texts: KeyedText[]): Promise<number[]> {
  const counts: number[] = []
  let charsAtOnce = 0
  for (const { text, key } of texts) {
    const known = key === undefined ? undefined : counted.get(key)
    if (known === undefined) charsAtOnce += text.length
    if (charsAtOnce > sliceChars) {
      await new Promise((resolve) => setImmediate(resolve))
      charsAtOnce = 0
    }
    const tokens = known ?? (await countTokens(text))
    if (key !== undefined) remember(key, tokens)
    counts.push(tokens)
  }
  return counts
}

/** No text has more tokens than bytes in UTF-8; none needs to be counted that fits by this. */
export function mostTokens(text: string): number {
  return Buffer.byteLength(text)
}

/** What was asked for longest ago comes first, and goes first. */
const counted = new Map<string, number>()
/** About 2 MB. */
const maxCounted = 20_000

function remember(key: string, tokens: number): void {
  counted.delete(key)
  counted.set(key, tokens)
  for (const oldest of counted.keys()) {
    if (counted.size <= maxCounted) return
    counted.delete(oldest)
  }
}

/** About 2 ms of work. */
const sliceChars = 64_000

/** The tokenizer takes the square of a word's length, and Chinese, base64 or blanks may be one word for pages. */
function pieces(text: string): string[] {
  return /\S{257}|\s{257}/u.test(text)
    ? (text.match(/\s{1,256}\S{0,256}|\S{1,256}/gu) ?? [])
    : [text]
}

/** A special token in what people wrote is text. */
const asPlainText = { disallowedSpecial: new Set<string>() }

let loading: Promise<typeof import('gpt-tokenizer/encoding/o200k_base')> | undefined
/** Its table takes 60 MB and 0.15 s, which only processes that count pay for. */
function tokenizer() {
  return (loading ??= import('gpt-tokenizer/encoding/o200k_base'))
}
