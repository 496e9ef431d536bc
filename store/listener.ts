import { Client } from 'pg'

import type { Logger } from '../log.ts'

export interface Listener extends AsyncDisposable {
  /** Whether the connection stands; while it does not, notifications are being missed. */
  connected(): boolean
}

const channels = ['run_events', 'run_control'] as const
export type Channel = (typeof channels)[number]

/**
 * One connection that LISTENs, made again whenever it breaks. `onConnect` is called each time it stands: what was said in
 * between is lost, so the caller reads the tables again. Needs a direct connection: a transaction pooler eats LISTEN.
 */
export function openListener(options: {
  databaseUrl: string
  log: Logger
  onNotification(channel: Channel, payload: string): void
  onConnect(): void
}): Listener {
  let current: Client | undefined
  let closed = false
  let retry: NodeJS.Timeout | undefined

  async function connect(): Promise<void> {
    const client = new Client({
      connectionString: options.databaseUrl,
      application_name: 'longrun listener',
      keepAlive: true,
    })
    let lost = false
    const onLoss = (): void => {
      if (lost) return
      lost = true
      if (current === client) current = undefined
      client.end().catch(() => {})
      if (!closed) retry = setTimeout(() => void connect(), 200)
    }
    client.on('error', onLoss)
    client.on('end', onLoss)
    client.on('notification', ({ channel, payload }) =>
      options.onNotification(channel as Channel, payload ?? ''),
    )
    try {
      await client.connect()
      for (const channel of channels) await client.query(`LISTEN ${channel}`)
    } catch (error) {
      options.log.debug(
        { err: error },
        'the listener could not connect to Postgres; it tries again',
      )
      onLoss()
      return
    }
    if (lost) return
    if (closed) return void client.end()
    current = client
    options.onConnect()
  }

  void connect()
  return {
    connected: () => current !== undefined,
    async [Symbol.asyncDispose]() {
      closed = true
      clearTimeout(retry)
      await current?.end().catch(() => {})
    },
  }
}
