import { invalidParameter } from '../wire/errors.ts'
import { page, type Page } from '../wire/page.ts'
import type { ListQuery } from './lists.schema.ts'

/** A page of a list that is at hand as a whole, oldest first; with the cursors and errors of the longer ones. */
export function shortList<T extends { id: string }>(oldestFirst: T[], query: ListQuery): Page<T> {
  const all = query.order === 'asc' ? oldestFirst : oldestFirst.toReversed()
  const from = query.after === undefined ? 0 : placeOf(all, 'after', query.after) + 1
  const to = query.before === undefined ? all.length : placeOf(all, 'before', query.before)
  const found = all.slice(from, Math.max(from, to))
  // The page that precedes `before` ends there.
  const backwards = query.before !== undefined && query.after === undefined
  const items = backwards ? found.slice(-query.limit) : found.slice(0, query.limit)
  return page(items, found.length > query.limit)
}

function placeOf(items: { id: string }[], cursor: 'after' | 'before', id: string): number {
  const place = items.findIndex((item) => item.id === id)
  if (place < 0) throw invalidParameter(cursor, `no object with id '${id}' is in this list`)
  return place
}
