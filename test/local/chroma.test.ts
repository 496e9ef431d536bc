import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { ChromaClient } from 'chromadb'
import { expect, test } from 'vitest'
import { z } from 'zod'
import { startChroma } from '../../local/chroma.ts'
import { eventually, isAlive, quietChildren, scratchDir } from './scratch.ts'

const spec = process.env.LONGRUN_CHROMA ?? ''

const clientOf = (url: string) =>
  new ChromaClient({ host: '127.0.0.1', port: Number(new URL(url).port), ssl: false })

const notes = (url: string) =>
  clientOf(url).getOrCreateCollection({ name: 'notes', embeddingFunction: null })

test.skipIf(!spec)('an acknowledged record survives a kill and a restart', async () => {
  using dir = scratchDir()
  {
    await using children = await quietChildren(dir.path)
    const { url } = await startChroma({ children, dataDir: dir.path, spec, port: 0 })
    await (await notes(url)).upsert({ ids: ['kept'], embeddings: [[1, 0, 0]], documents: ['a'] })

    const file = readFileSync(join(dir.path, 'pids', 'chroma.pid'), 'utf8')
    const { pid } = z.object({ pid: z.number() }).parse(JSON.parse(file))
    process.kill(pid, 'SIGKILL')
    await eventually(() => !isAlive(pid))
    const count = await eventually(() =>
      notes(url)
        .then((collection) => collection.count())
        .catch(() => undefined),
    )
    expect(count).toBe(1)
  }
  await using children = await quietChildren(dir.path)
  const { url } = await startChroma({ children, dataDir: dir.path, spec, port: 0 })
  const found = await (await notes(url)).query({ queryEmbeddings: [[1, 0, 0]], nResults: 1 })
  expect(found.ids).toEqual([['kept']])
})
