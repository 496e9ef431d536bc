import type { Json } from '../store/rows.ts'

/** A piece of a text as it is shown; one that is annotated is the mark itself and nothing else. */
export interface MarkedPiece {
  text: string
  annotation?: Annotation
}

/** As the wire has it; the indices count code points, and `text` is what lies between them. */
export type Annotation = Json & { text: string; start_index: number; end_index: number }

/**
 * Finds marks in a text that comes in pieces, however it is cut: links to files of the sandbox, markers of citations. No part
 * of a mark is shown before it is known to be one.
 */
export interface Annotator {
  read(text: string): MarkedPiece[]
  /** What was held back, since a mark might have begun there. */
  end(): MarkedPiece[]
}

/** `marks` are literal texts, with what an annotation says beside its text and where it is. */
export function createAnnotator(marks: ReadonlyMap<string, Json>): Annotator {
  // The longest first: of two that match, it is meant.
  const literals = [...marks.keys()].toSorted((a, b) => b.length - a.length)
  const beginnings = new Set(literals.map((literal) => literal[0]))
  let held = ''
  let codePoints = 0

  function shown(text: string): MarkedPiece[] {
    codePoints += lengthInCodePoints(text)
    return text === '' ? [] : [{ text }]
  }

  function marked(text: string): MarkedPiece {
    const start = codePoints
    codePoints += lengthInCodePoints(text)
    const annotation = { ...marks.get(text), text, start_index: start, end_index: codePoints }
    return { text, annotation }
  }

  function pieces(isEnd: boolean): MarkedPiece[] {
    const found: MarkedPiece[] = []
    let from = 0
    for (let at = 0; at < held.length; at += 1) {
      if (!beginnings.has(held[at])) continue
      const mark = markAt(held, at, literals, isEnd)
      if (mark === 'undecided') {
        found.push(...shown(held.slice(from, at)))
        held = held.slice(at)
        return found
      }
      if (mark === undefined) continue
      found.push(...shown(held.slice(from, at)), marked(mark.literal))
      from = at + mark.literal.length
      at = from - 1
    }
    found.push(...shown(held.slice(from)))
    held = ''
    return found
  }

  return {
    read(text) {
      held += text
      return pieces(false)
    },
    end: () => pieces(true),
  }
}

/** The mark that begins here, if one does; undecided while more text could make or break it. */
function markAt(
  text: string,
  at: number,
  literals: string[],
  isEnd: boolean,
): { literal: string } | 'undecided' | undefined {
  const rest = text.slice(at)
  for (const literal of literals) {
    if (rest.startsWith(literal)) {
      const goesOn = isNameContinued(literal, rest.slice(literal.length))
      if (goesOn === 'undecided' && !isEnd) return 'undecided'
      if (goesOn !== true) return { literal }
    } else if (!isEnd && literal.startsWith(rest)) return 'undecided'
  }
  return undefined
}

/** Whether the name goes on after the mark, and so is another one: `a.csv` is not meant by `a.csv2`, nor by `a.csv.gz`. */
function isNameContinued(literal: string, next: string): boolean | 'undecided' {
  if (!/[\p{L}\p{N}_]$/u.test(literal)) return false
  if (next === '' || next === '.') return 'undecided'
  return /^(?:[\p{L}\p{N}_/-]|\.[\p{L}\p{N}_])/u.test(next)
}

function lengthInCodePoints(text: string): number {
  let count = 0
  for (const _ of text) count += 1
  return count
}
