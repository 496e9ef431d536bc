import { storable } from './storable.ts'

/** The code that a model asks to run, read from the arguments of its call while they are being written. */
export interface StreamedCode {
  /** What this much more of the arguments adds to the code. */
  read(fragment: string): string
  /** What was held back until it was clear how the arguments end. */
  end(): string
}

/** `{"code": "` with what JSON allows in between; as a pattern that also tells whether a text may still become one. */
const opening = ['{', '"code"', ':', '"']

/**
 * Usually `{"code": "..."}`, of which the string is read as it comes; models also write bare Python in place of JSON, or
 * line breaks inside of the string, and are cut in the middle of it.
 */
export function createStreamedCode(): StreamedCode {
  let mode: 'opening' | 'string' | 'closed' | 'plain' | 'other' = 'opening'
  let held = ''

  function inString(): string {
    let code = ''
    while (held !== '') {
      if (held[0] === '"') {
        mode = 'closed'
        return code
      }
      const piece = held[0] === '\\' ? escapeAt(held) : plainAt(held)
      if (!piece) return code
      code += piece.text
      held = held.slice(piece.length)
    }
    return code
  }

  return {
    read(fragment) {
      if (mode === 'closed') return ''
      held += fragment
      if (mode === 'opening') {
        const at = openingOf(held)
        if (at === 'undecided') return ''
        mode = at === 'none' ? (held.trimStart().startsWith('{') ? 'other' : 'plain') : 'string'
        if (typeof at === 'number') held = held.slice(at)
      }
      if (mode === 'other') return ''
      if (mode === 'string') return inString()
      const whole = held.replace(/[\uD800-\uDBFF]$/, '')
      held = held.slice(whole.length)
      return storable(whole)
    },
    end() {
      const rest = held
      held = ''
      if (mode === 'closed' || rest === '') return ''
      // The beginning of an escape that never came to its end.
      if (mode === 'string') return rest[0] === '\\' ? '' : storable(rest)
      return storable((mode === 'other' || mode === 'opening' ? codeIn(rest) : undefined) ?? rest)
    },
  }
}

/** The code that a model asked to run: the `code` of its arguments, or all that it wrote where there is none. */
export function codeOf(args: string): string {
  const code = createStreamedCode()
  return code.read(args) + code.end()
}

/** Where the string begins; `none` where these arguments have no such beginning. */
function openingOf(text: string): number | 'undecided' | 'none' {
  let at = 0
  for (const token of opening) {
    at += /^\s*/.exec(text.slice(at))?.[0].length ?? 0
    const here = text.slice(at, at + token.length)
    if (here !== token)
      return here.length < token.length && token.startsWith(here) ? 'undecided' : 'none'
    at += token.length
  }
  return at
}

interface Piece {
  text: string
  /** How much of the source it takes up. */
  length: number
}

/** Up to the next escape or the end of the string; undefined while half a character is all there is. */
function plainAt(text: string): Piece | undefined {
  const [plain = ''] = /^[^"\\]+/.exec(text) ?? []
  const isCut = plain.length === text.length && /[\uD800-\uDBFF]$/.test(plain)
  const whole = isCut ? plain.slice(0, -1) : plain
  return whole === '' ? undefined : { text: storable(whole), length: whole.length }
}

/** Undefined while the escape is not whole. Two escapes that make one character are read together. */
function escapeAt(text: string): Piece | undefined {
  const unicode = /^(?:\\u[0-9a-fA-F]{4})+/.exec(text)?.[0]
  if (unicode) {
    const units = unicode.match(/[0-9a-fA-F]{4}/g) ?? []
    const decoded = String.fromCharCode(...units.map((unit) => Number.parseInt(unit, 16)))
    const mayGoOn =
      /[\uD800-\uDBFF]$/.test(decoded) &&
      /^(?:\\(?:u[0-9a-fA-F]{0,3})?)?$/.test(text.slice(unicode.length))
    const kept = mayGoOn ? decoded.slice(0, -1) : decoded
    return kept === '' ? undefined : { text: storable(kept), length: kept.length * 6 }
  }
  if (text.length < 2 || /^\\u[0-9a-fA-F]{0,3}$/.test(text)) return undefined
  const escaped = text[1] ?? ''
  return { text: simpleEscapes[escaped] ?? `\\${escaped}`, length: 2 }
}

const simpleEscapes: Record<string, string> = {
  '"': '"',
  '\\': '\\',
  '/': '/',
  b: '\b',
  f: '\f',
  n: '\n',
  r: '\r',
  t: '\t',
}

function codeIn(args: string): string | undefined {
  try {
    const parsed: unknown = JSON.parse(args)
    if (typeof parsed !== 'object' || !parsed) return undefined
    if ('code' in parsed && typeof parsed.code === 'string') return parsed.code
    return Object.keys(parsed).length === 0 ? '' : undefined
  } catch {
    // Models do write bare Python in place of JSON.
    return undefined
  }
}
