import { randomUUID } from 'node:crypto'
import { join } from 'node:path'

import OpenAI from 'openai'
import { Client } from 'pg'
import { inject } from 'vitest'

import { loadConfig, type Config } from '../../config.ts'
import { serve, type Serving } from '../../local/serve.ts'
import { createLogger } from '../../log.ts'
import { createModels } from '../../models.ts'
import { installRuntime } from '../../worker/index.ts'
import { captureServer } from './http-capture.ts'
import { startScriptedModel, type ScriptedModel } from './model.ts'

export interface TestServer extends AsyncDisposable {
  /** Ends in `/v1`. */
  baseUrl: string
  client: OpenAI
  model: ScriptedModel
  databaseUrl: string
  config: Config
}

/**
 * Api and worker in this process, on a database and a task queue of their own, with a scripted model unless `env`, which is
 * what a user would set, names another by UPSTREAM_BASE_URL. For tests that kill processes there is `spawnServer`.
 */
export async function startServer(env: Record<string, string> = {}): Promise<TestServer> {
  await using stack = new AsyncDisposableStack()
  const database = stack.use(await createDatabase())
  const model = stack.use(await startScriptedModel())
  const config = loadConfig({ ...serverEnv(), ...env })
  const log = createLogger(process.env['TEST_LOG_LEVEL'] ?? 'error')
  installRuntimeOnce(log)
  const serving: Serving = stack.use(
    await serve(
      config,
      {
        databaseUrl: database.url,
        temporalAddress: inject('temporalAddress'),
        temporalUiUrl: 'http://127.0.0.1:8233',
        models: createModels({
          file: config.models.file,
          upstream: config.models.upstream || { baseUrl: model.url, apiKey: 'scripted' },
          defaultModel: config.models.defaultModel,
          env,
        }),
      },
      log,
    ),
  )
  await serving.working
  const stop = stack.move()
  const baseUrl = serving.url ?? ''
  if (serving.url) captureServer(serving.url)
  return {
    baseUrl,
    client: new OpenAI({ baseURL: baseUrl, apiKey: 'test', maxRetries: 0 }),
    model,
    databaseUrl: database.url,
    config,
    [Symbol.asyncDispose]: () => stop.disposeAsync(),
  }
}

/** Variables that keep servers of different tests apart. */
export function serverEnv(): Record<string, string> {
  return {
    PORT: '0',
    DATA_DIR: join(inject('testDir'), 'servers'),
    TEMPORAL_TASK_QUEUE: `runs-${randomUUID()}`,
    MODEL_ATTEMPTS: '3',
    MODEL_IDLE_TIMEOUT_S: '5',
    SHUTDOWN_GRACE_S: '1',
    // Those who run code ask for it: `codeEnv`.
    SANDBOX_PROVIDER: 'none',
  }
}

/** An empty database in the tests' Postgres or in another, dropped when disposed. */
export async function createDatabase(
  server = inject('postgresUrl'),
): Promise<{ url: string } & AsyncDisposable> {
  const name = `t_${randomUUID().replaceAll('-', '')}`
  await administer(server, `CREATE DATABASE ${name}`)
  const url = new URL(server)
  url.pathname = name
  return {
    url: url.href,
    [Symbol.asyncDispose]: () => administer(server, `DROP DATABASE ${name} WITH (FORCE)`),
  }
}

async function administer(url: string, statement: string): Promise<void> {
  const client = new Client({ connectionString: url })
  await client.connect()
  await client.query(statement)
  await client.end()
}

let isInstalled = false
function installRuntimeOnce(log: Parameters<typeof installRuntime>[0]): void {
  if (!isInstalled) installRuntime(log)
  isInstalled = true
}
