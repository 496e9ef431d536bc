/** Time is unix seconds at the wire and `Date` in rows. */
export function seconds(date: Date): number {
  return Math.floor(date.getTime() / 1000)
}

export function secondsOrNull(date: Date | null): number | null {
  return date && seconds(date)
}
