/** Undefined where the text is no JSON: what passes by is only looked at. */
export function jsonIn(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
