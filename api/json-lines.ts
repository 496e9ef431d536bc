export interface Line {
  /** Counted from 1. */
  number: number
  /** Without its end; undefined where it was longer than the limit, and was not kept. */
  bytes: Buffer | undefined
}

const newline = 0x0a

/** The lines of a body of any length, of which never more than one is held. Empty ones are left out. */
export async function* readLines(
  body: AsyncIterable<Buffer>,
  limitBytes: number,
): AsyncGenerator<Line> {
  let held: Buffer[] = []
  let size = 0
  let number = 1
  const take = (piece: Buffer): void => {
    size += piece.length
    if (size <= limitBytes) held.push(piece)
    else held = []
  }
  const line = (): Line | undefined => {
    const bytes = size <= limitBytes ? Buffer.concat(held) : undefined
    const isEmpty = bytes !== undefined && bytes.toString('latin1').trim() === ''
    held = []
    size = 0
    return isEmpty ? undefined : { number, bytes }
  }
  for await (const chunk of body) {
    let from = 0
    for (let to = chunk.indexOf(newline); to >= 0; to = chunk.indexOf(newline, from)) {
      take(chunk.subarray(from, to))
      const whole = line()
      if (whole) yield whole
      number += 1
      from = to + 1
    }
    if (from < chunk.length) take(chunk.subarray(from))
  }
  const rest = line()
  if (rest) yield rest
}
