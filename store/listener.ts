import type { Socket } from 'node:net'

import { Client } from 'pg'

import type { Logger } from '../log.ts'

export interface Listener extends AsyncDisposable {
  /** Whether the connection stands; while it does not, notifications are being missed. */
  connected(): boolean
  /** For how long nothing at all has been heard of Postgres, not even that it is down, in milliseconds. */
  silentMs(): number
}

/** How often Postgres is asked for a sign of life, and how long the answer may take. */
const pingMs = 2000
const pongMs = 4000
/** How long what Postgres sends may lie unread. */
const unreadMs = 30_000

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
  /** Called where Postgres is silent on a connection that stands, as it is when a network drops what is sent. */
  onSilence(): void
}): Listener {
  let current: Client | undefined
  let heardAt = performance.now()
  let closed = false
  let retry: NodeJS.Timeout | undefined

  async function connect(): Promise<void> {
    const client = new Client({
      connectionString: options.databaseUrl,
      application_name: 'longrun listener',
      keepAlive: true,
      connectionTimeoutMillis: pongMs,
      query_timeout: pongMs,
      // A process that is frozen reads nothing: its backend would hold on to the end of the queue of all notifications until
      // that is full and nobody can commit any more. Over TCP it is given up; on a Unix socket this means nothing.
      options: `-c tcp_user_timeout=${unreadMs}`,
    })
    let lost = false
    let pings: NodeJS.Timeout | undefined
    const onLoss = (): void => {
      if (lost) return
      lost = true
      clearInterval(pings)
      if (current === client) current = undefined
      // It may be silent: then it would not hear of a farewell.
      destroyConnection(client)
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
      if (!isTimeout(error)) heardAt = performance.now()
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
    heardAt = performance.now()
    pings = setInterval(() => void ping(client), pingMs)
    options.onConnect()
  }

  async function ping(client: Client): Promise<void> {
    try {
      await client.query('SELECT 1')
      heardAt = performance.now()
    } catch (error) {
      // Any other is the loss of the connection, which its own events say too.
      if (!isTimeout(error)) return
      options.log.warn(`Postgres has not answered for ${pongMs} ms; its connections are given up`)
      destroyConnection(client)
      options.onSilence()
    }
  }

  void connect()
  return {
    connected: () => current !== undefined,
    silentMs: () => performance.now() - heardAt,
    async [Symbol.asyncDispose]() {
      closed = true
      clearTimeout(retry)
      await current?.end().catch(() => {})
    },
  }
}

/** At once and without a farewell: what waits for an answer on it fails. */
export function destroyConnection(client: Client): void {
  // Not in the types: the socket, below the protocol.
  const { connection } = client as unknown as { connection: { stream: Socket } }
  connection.stream.destroy()
}

function isTimeout(error: unknown): boolean {
  return (
    error instanceof Error &&
    /timeout expired|read timeout|ETIMEDOUT|EHOSTUNREACH/.test(error.message)
  )
}
