/** The value below which `share` of the values lie; of a few values p99 is the largest. */
export function percentile(values: number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? NaN
}

export const p50 = (values: number[]): number => percentile(values, 0.5)
export const p95 = (values: number[]): number => percentile(values, 0.95)
export const p99 = (values: number[]): number => percentile(values, 0.99)

/** Milliseconds and counts, with as many digits as mean something. */
export function digits(value: number): string {
  if (!Number.isFinite(value)) return '-'
  return Math.abs(value) < 10 ? value.toFixed(1) : value.toFixed(0)
}

/** Prints rows under their heads: the first column to the left, numbers to the right. */
export function printTable(title: string, heads: string[], rows: (string | number)[][]): void {
  const cells = rows.map((row) =>
    row.map((cell) => (typeof cell === 'number' ? digits(cell) : cell)),
  )
  const widths = heads.map((head, i) =>
    Math.max(head.length, ...cells.map((row) => row[i]?.length ?? 0)),
  )
  const line = (row: string[]): string =>
    row
      .map((cell, i) => (i === 0 ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0)))
      .join('  ')
      .trimEnd()
  print(`\n${title}\n`)
  print(line(heads))
  print(widths.map((width) => '-'.repeat(width)).join('  '))
  for (const row of cells) print(line(row))
}

export function print(text: string): void {
  process.stdout.write(`${text}\n`)
}
