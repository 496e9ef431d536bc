/**
 * A text of a stranger's that is not refused but kept: Postgres takes neither U+0000 nor half a character, so they become
 * U+FFFD.
 */
export function storable(text: string): string {
  return text.replaceAll('\u0000', '\uFFFD').toWellFormed()
}
