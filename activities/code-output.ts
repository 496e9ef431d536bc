import type { CodeResult } from '../sandbox/index.ts'

export interface ToldBeside {
  /** What has to be said before all else, e.g. that variables are gone. */
  before: string | undefined
  notes: string[]
  /** What was written, by its path under /mnt/data. */
  files: { path: string }[]
}

/** Characters of output that the model is shown; the step shows all that there is. */
const mostShown = 30_000

/** Files that it is told of by name. */
const mostNamed = 20

/** What the model is told of a call. */
export function outputForModel(result: CodeResult, { before, notes, files }: ToldBeside): string {
  let images = 0
  const said = result.outputs.map((output) => {
    if (output.type === 'logs') return output.logs
    images += 1
    return `[Figure ${images} was shown to the user.]\n`
  })
  const told = [
    ...(before === undefined ? [] : [bracketed(before)]),
    shortened(said.join('')),
    ...files
      .slice(0, mostNamed)
      .map(({ path }) =>
        bracketed(`Wrote /mnt/data/${path}: link it as [${path}](sandbox:/mnt/data/${path}).`),
      ),
    ...(files.length > mostNamed
      ? [bracketed(`And ${files.length - mostNamed} more files in /mnt/data.`)]
      : []),
    ...[...notes, ...(result.note === undefined ? [] : [result.note])].map(bracketed),
  ].filter((text) => text !== '')
  return told.length > 0
    ? told.map((text) => text.trimEnd()).join('\n')
    : '[The code ran and printed nothing.]'
}

function bracketed(text: string): string {
  return `[${text}]`
}

/** The beginning and the end, since errors are at the end. */
function shortened(text: string): string {
  if (text.length <= mostShown) return text
  const half = mostShown / 2
  const left = text.length - mostShown
  return `${text.slice(0, half)}\n[... ${left} characters are left out here ...]\n${text.slice(-half)}`.toWellFormed()
}
