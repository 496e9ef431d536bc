import { connect, createServer, type AddressInfo } from 'node:net'

import { expect, inject, test } from 'vitest'

import { createLogger } from '../../log.ts'
import { openListener } from '../../store/listener.ts'

test('a connection that falls silent between its start and LISTEN is made again', async () => {
  const { hostname, port } = new URL(inject('postgresUrl'))
  const received: string[] = []
  const server = createServer((near) => {
    const index = received.push('') - 1
    const far = connect(Number(port), hostname)
    near.on('data', (chunk) => {
      received[index] += chunk.toString('latin1')
      // As a network that drops what is sent: the first connection says no more.
      if (index > 0 || !received[0]?.includes('LISTEN')) far.write(chunk)
    })
    far.on('data', (chunk) => near.write(chunk))
    for (const [one, other] of [
      [near, far],
      [far, near],
    ] as const) {
      one.on('error', () => {})
      one.on('close', () => other.destroy())
    }
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const url = new URL(inject('postgresUrl'))
  url.host = `127.0.0.1:${(server.address() as AddressInfo).port}`
  const connected = Promise.withResolvers<void>()
  const listener = openListener({
    databaseUrl: url.href,
    log: createLogger('silent'),
    onNotification: () => {},
    onConnect: () => connected.resolve(),
    onSilence: () => {},
  })
  await connected.promise
  expect(received).toHaveLength(2)
  expect(received[0]).toContain('LISTEN run_events')
  // Postgres is to give up a listener that does not read.
  for (const sent of received) expect(sent).toContain('-c tcp_user_timeout=30000')
  await listener[Symbol.asyncDispose]()
  server.close()
})
