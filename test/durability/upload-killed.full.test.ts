import { createHash } from 'node:crypto'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'

import { expect, test } from 'vitest'

import { eventually, scratchDir } from '../local/scratch.ts'
import { startCluster } from '../support/cluster.ts'

const partBytes = 64 * 1024 * 1024

test('an upload whose server dies in the middle of its completion is completed by the next', async () => {
  using dir = scratchDir()
  await using cluster = await startCluster({ env: { FILES_DIR: dir.path, RECONCILE_S: '0.2' } })
  const first = await cluster.spawn('api')
  const contents = [1, 2, 3].map((n) => Buffer.alloc(partBytes, n))
  const upload = await first.client.uploads.create({
    filename: 'large',
    purpose: 'user_data',
    bytes: contents.length * partBytes,
    mime_type: 'application/octet-stream',
  })
  const part_ids: string[] = []
  for (const content of contents) {
    const data = new File([content], 'part')
    part_ids.push((await first.client.uploads.parts.create(upload.id, { data })).id)
  }
  const unfinished = () => readdirSync(join(dir.path, 'unfinished'))
  const completing = first.client.uploads.complete(upload.id, { part_ids }).catch(String)
  await eventually(() => unfinished().length > 0)
  await first.kill('SIGKILL')
  await completing
  expect(unfinished()).toHaveLength(1)

  await using second = await cluster.spawn('api')
  const md5 = createHash('md5')
  for (const content of contents) md5.update(content)
  const done = await second.client.uploads.complete(upload.id, {
    part_ids,
    md5: md5.digest('hex'),
  })
  expect(done.status).toBe('completed')
  expect(done.file?.bytes).toBe(upload.bytes)

  // As if the dead had been silent for the length of their lease.
  await cluster.sql('UPDATE loose_blobs SET written_until = now() WHERE written_until IS NOT NULL')
  const [row] = await cluster.sql<{ blob: string }>('SELECT blob FROM files')
  await eventually(() => {
    const files = readdirSync(dir.path, { recursive: true, withFileTypes: true })
    const keys = files.filter((file) => file.isFile() && file.name !== 'id')
    return String(keys.map(({ name }) => name)) === row?.blob
  })
})
