import type { ByteRange } from '../store/blobs.ts'
import type { Context } from './context.ts'

/**
 * The one range that the request asks for, its end included; undefined for all: without one, with several, with one that
 * cannot be read, and with an `If-Range` for other bytes than these.
 */
export function askedRange(ctx: Context, sizeBytes: number): ByteRange | 'outside' | undefined {
  const [, from = '', to = ''] = /^bytes=(\d*)-(\d*)$/.exec(ctx.get('range').trim()) ?? []
  if ((from === '' && to === '') || !isMeant(ctx)) return undefined
  const last = sizeBytes - 1
  if (from === '') {
    const count = Number(to)
    return count > 0 && sizeBytes > 0
      ? { start: Math.max(0, sizeBytes - count), end: last }
      : 'outside'
  }
  const start = Number(from)
  const end = to === '' ? last : Math.min(Number(to), last)
  if (to !== '' && Number(to) < start) return undefined
  return start <= last ? { start, end } : 'outside'
}

/** `If-Range` names the version that the client has a part of, by its tag or its date. */
function isMeant({ request, response }: Context): boolean {
  const version = request.get('if-range')
  if (version === '' || version === response.get('etag')) return true
  return version === response.get('last-modified')
}
