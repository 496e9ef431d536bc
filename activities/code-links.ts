import type { DataFiles } from '../store/code-files.ts'
import type { Json } from '../store/rows.ts'

export const noFiles: DataFiles = { given: [], written: [] }

/** The links by which a model hands over files of its sandbox, also with their names as in a URL, and the files. */
export function linksTo({ given, written }: DataFiles): ReadonlyMap<string, Json> {
  const links = new Map<string, Json>()
  const add = (path: string, file_id: string): void => {
    const annotation = { type: 'file_path', file_path: { file_id } }
    for (const name of [path, encodeURI(path), encodeURIComponent(path), quoted(path)]) {
      links.set(`sandbox:/mnt/data/${name}`, annotation)
      links.set(`sandbox:///mnt/data/${name}`, annotation)
    }
  }
  for (const { id, name } of given) {
    add(id, id)
    add(name, id)
  }
  // Last: code may have written over what it was given.
  for (const { path, id } of written) add(path, id)
  return links
}

/** As Python's `quote` has it. */
function quoted(path: string): string {
  return encodeURIComponent(path)
    .replaceAll('%2F', '/')
    .replaceAll(/[!'()*]/g, (sign) => `%${sign.charCodeAt(0).toString(16).toUpperCase()}`)
}
