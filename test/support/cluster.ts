import OpenAI from 'openai'
import { Client } from 'pg'
import { inject } from 'vitest'

import { startScriptedModel, type ScriptedModel } from './model.ts'
import { spawnServer, type ServerProcess } from './processes.ts'
import { createDatabase, serverEnv } from './server.ts'

/** Processes of one installation, which share a database, a task queue and a scripted model, and may be killed. */
export interface Cluster extends AsyncDisposable {
  model: ScriptedModel
  databaseUrl: string
  /** The task queue and whatever else all of them are given. */
  env: Record<string, string>
  /** Its model requests carry `name` as their key, so that a test sees who asks: `askedBy`. `own` goes before `env`. */
  spawn(
    role: 'api' | 'worker' | 'all',
    name?: string,
    own?: Record<string, string>,
  ): Promise<ServerProcess>
  sql<Row extends object>(text: string, values?: unknown[]): Promise<Row[]>
}

/** On the tests' Postgres and Temporal, unless the test has its own to kill. */
export async function startCluster(
  own: { databaseUrl?: string; temporalAddress?: string; env?: Record<string, string> } = {},
): Promise<Cluster> {
  await using stack = new AsyncDisposableStack()
  const databaseUrl = own.databaseUrl ?? stack.use(await createDatabase()).url
  const model = stack.use(await startScriptedModel())
  const env = {
    ...serverEnv(),
    LOG_LEVEL: process.env['TEST_LOG_LEVEL'] ?? 'warn',
    DATABASE_URL: databaseUrl,
    TEMPORAL_ADDRESS: own.temporalAddress ?? inject('temporalAddress'),
    CHROMA_URL: 'http://127.0.0.1:9',
    UPSTREAM_BASE_URL: model.url,
    ...own.env,
  }
  const stop = stack.move()
  return {
    model,
    databaseUrl,
    env,
    async spawn(role, name = role, ofThisOne = {}) {
      const given = { ...env, ...ofThisOne, ROLE: role, UPSTREAM_API_KEY: name }
      return stop.use(await spawnServer(given))
    },
    sql: (text, values) => queryOnce(databaseUrl, text, values),
    [Symbol.asyncDispose]: () => stop.disposeAsync(),
  }
}

/** A connection for each statement: the tests here stop and kill Postgres. */
export async function queryOnce<Row extends object>(
  databaseUrl: string,
  text: string,
  values: unknown[] = [],
): Promise<Row[]> {
  const client = new Client({ connectionString: databaseUrl, connectionTimeoutMillis: 2000 })
  client.on('error', () => {})
  try {
    await client.connect()
    return (await client.query<Row>(text, values)).rows
  } finally {
    await client.end().catch(() => {})
  }
}

export function askedBy(request: { headers: { authorization?: string | undefined } }): string {
  return request.headers.authorization?.replace('Bearer ', '') ?? ''
}

/** A thread with one question, and an assistant to answer it. */
export async function newThread(
  client: OpenAI,
  question = 'How long is it?',
  tools: OpenAI.Beta.AssistantTool[] = [],
): Promise<{ threadId: string; assistantId: string }> {
  const [assistant, thread] = await Promise.all([
    client.beta.assistants.create({ model: 'gpt-4o', tools }),
    client.beta.threads.create({ messages: [{ role: 'user', content: question }] }),
  ])
  return { threadId: thread.id, assistantId: assistant.id }
}

/** What the assistant has said in the thread, one text per message, oldest first, as a client lists it. */
export async function answersIn(client: OpenAI, threadId: string): Promise<string[]> {
  const messages = await client.beta.threads.messages.list(threadId, { order: 'asc', limit: 100 })
  return messages.data.filter(({ role }) => role === 'assistant').map(textOf)
}

export function textOf(message: OpenAI.Beta.Threads.Message): string {
  return message.content.map((part) => (part.type === 'text' ? part.text.value : '')).join('')
}

/** A function tool that the client carries out. */
export const lookUp = {
  type: 'function',
  function: { name: 'look_up', parameters: { type: 'object', properties: {} } },
} satisfies OpenAI.Beta.AssistantTool

/** All that runs have written: what an attempt that was replaced may not change. */
export function everythingOf(cluster: Pick<Cluster, 'sql'>) {
  return Promise.all(
    [
      'SELECT * FROM run_events ORDER BY run_id, seq',
      'SELECT * FROM run_streams ORDER BY run_id',
      'SELECT * FROM messages ORDER BY seq',
      'SELECT * FROM run_steps ORDER BY seq',
      'SELECT * FROM runs ORDER BY seq',
      // Without the mark of the sums, which are made at any time.
      `SELECT to_jsonb(usage) - 'summed' AS row FROM usage ORDER BY run_id, turn, generation`,
      'SELECT * FROM run_turns ORDER BY run_id, turn',
    ].map((table) => cluster.sql(table)),
  )
}
