import { Client } from 'pg'
import { expect, test } from 'vitest'

import { createCaller } from '../api/caller.ts'
import { eventually } from '../local/scratch.ts'
import { newThread, startCluster } from '../support/cluster.ts'

const kinds = ['run', 'message']
test.each(kinds)('a %s that was made by an api that died is answered by another', async (kind) => {
  await using cluster = await startCluster()
  const [first, second] = await Promise.all([cluster.spawn('api'), cluster.spawn('api')])
  const { threadId, assistantId } = await newThread(first.client)
  const [holder, keeper] = await Promise.all([connected(), connected()])
  async function connected(): Promise<Client> {
    const client = new Client({ connectionString: cluster.databaseUrl })
    await client.connect()
    return client
  }
  const rowsOf = async (text: string, values: unknown[] = []) =>
    (await keeper.query<{ id: string }>(text, values)).rows

  // Held until the request is in the middle, and then kept from saying how it ended.
  await holder.query('BEGIN')
  await holder.query('SELECT FROM threads WHERE id = $1 FOR UPDATE', [threadId])
  const path = `/threads/${threadId}/${kind}s`
  const body = kind === 'run' ? { assistant_id: assistantId } : { role: 'user', content: 'More.' }
  const { rows: earlier } = await keeper.query(`SELECT id FROM ${kind}s`)
  const post = (baseUrl: string | undefined, retryCount: string) =>
    createCaller({ baseUrl: baseUrl ?? '' }).post(path, body, {
      headers: { 'x-stainless-retry-count': retryCount },
    })
  const lost = post(first.baseUrl, '0')
  const atWork = await eventually(async () => {
    const rows = await rowsOf('SELECT id FROM requests WHERE status IS NULL')
    return rows.length === 1 && rows
  })
  await keeper.query('BEGIN')
  await keeper.query('SELECT FROM requests WHERE id = $1 FOR UPDATE', [atWork[0]?.id])
  await holder.query('COMMIT')
  const { body: made } = await lost
  await first.kill('SIGKILL')
  await holder.query(
    `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
     WHERE datname = current_database() AND wait_event_type = 'Lock'`,
  )
  await keeper.query('ROLLBACK')
  expect(await rowsOf('SELECT id FROM requests WHERE status IS NULL')).toEqual(atWork)

  const again = await post(second.baseUrl, '1')
  expect([again.status, again.body.id]).toEqual([200, made.id])
  expect(await rowsOf(`SELECT id FROM ${kind}s ORDER BY seq`)).toEqual([
    ...earlier,
    { id: made.id },
  ])
  await Promise.all([holder.end(), keeper.end()])
})
