/**
 * A history without the traces of the machine it was recorded on. Workers call themselves `pid@host`, in `identity` and in
 * the names of their sticky queues, and failures carry stack traces; none of it matters to a replay.
 */
export function scrubbed(value: unknown, key = ''): unknown {
  if (key === 'identity') return 'worker'
  if (key === 'stackTrace') return ''
  if (typeof value === 'string') return value.replaceAll(/\b\d+@[\w.-]+/g, 'worker')
  if (Array.isArray(value)) return value.map((item) => scrubbed(item))
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(
    Object.entries(value).map(([name, inner]) => [name, scrubbed(inner, name)]),
  )
}
