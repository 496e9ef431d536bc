import type { Readable } from 'node:stream'

import type { ThreadMessage } from '../store/context.ts'
import type { Store } from '../store/index.ts'
import type { FileRow } from '../store/rows.ts'
import { MissingBlob } from '../store/blobs/missing-blob.ts'
import type { ShownImage } from './prompt.ts'

/** What endpoints take of one image, and what goes with one prompt. */
const maxImageBytes = 20 * 1024 * 1024
const maxPromptBytes = 50 * 1024 * 1024

/** The images of these messages that were uploaded as files, by file id; where they are too much for one prompt, the newest. */
export async function readImages(
  store: Pick<Store, 'context' | 'files'>,
  projectId: string,
  thread: ThreadMessage[],
): Promise<Map<string, ShownImage>> {
  const uses = Map.groupBy(thread.toReversed().flatMap(imageFiles), (id) => id)
  if (uses.size === 0) return new Map()
  const rows = await store.context.files(projectId, [...uses.keys()])
  const files = new Map<string, FileRow>(rows.map((file) => [file.id, file]))
  let left = maxPromptBytes
  const reading = [...uses].map(async ([id, { length: times }]): Promise<[string, ShownImage]> => {
    const file = files.get(id)
    if (!file) return [id, { missing: `the file ${id} has been deleted` }]
    const bytes = Number(file.bytes)
    if (bytes > maxImageBytes) return [id, { missing: `the file ${id} is larger than 20 MB` }]
    if (bytes * times > left)
      return [id, { missing: 'it is left out, for later ones take its room' }]
    left -= bytes * times
    return [id, await readImage(store, file)]
  })
  return new Map(await Promise.all(reading))
}

function imageFiles({ role, content }: ThreadMessage): string[] {
  if (role !== 'user') return []
  const ids = content.flatMap((part) =>
    part.type === 'image_file' ? [part.image_file.file_id] : [],
  )
  return ids.toReversed()
}

async function readImage(store: Pick<Store, 'files'>, file: FileRow): Promise<ShownImage> {
  const bytes = await contentOf(store, file)
  if (!bytes) return { missing: `the file ${file.id} has been deleted` }
  const type = imageType(bytes)
  if (!type) return { missing: `the file ${file.id} is no PNG, JPEG, GIF or WebP image` }
  return { url: `data:${type};base64,${bytes.toString('base64')}` }
}

async function contentOf(store: Pick<Store, 'files'>, file: FileRow): Promise<Buffer | undefined> {
  try {
    const stream: Readable = await store.files.content(file)
    return Buffer.concat(await stream.toArray())
  } catch (error) {
    // Deleted since its row was read.
    if (error instanceof MissingBlob) return undefined
    throw error
  }
}

/** By the bytes: what clients say of their files is often wrong. */
function imageType(bytes: Buffer): string | undefined {
  const head = bytes.toString('latin1', 0, 12)
  if (head.startsWith('\x89PNG\r\n\x1a\n')) return 'image/png'
  if (head.startsWith('\xff\xd8\xff')) return 'image/jpeg'
  if (head.startsWith('GIF87a') || head.startsWith('GIF89a')) return 'image/gif'
  return /^RIFF[^]{4}WEBP/.test(head) ? 'image/webp' : undefined
}
