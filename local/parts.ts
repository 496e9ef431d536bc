import type { Config } from '../config.ts'
import type { Logger } from '../log.ts'
import { createModels } from '../models.ts'
import { createChildren, type Children } from './children.ts'
import { startChroma } from './chroma.ts'
import { databaseName } from './database-of.ts'
import { startDemoModel } from './demo-model.ts'
import { startPostgres } from './postgres.ts'
import type { Outside } from './serve.ts'
import { startTemporal } from './temporal.ts'

export interface Parts extends AsyncDisposable {
  outside: Outside
  chromaUrl: string
  /** What answers, for people: a URL, a file, or the demo model. */
  modelName: string
}

/** Brings up whatever the configuration does not name a URL for. `tell` is called before a step that takes a moment. */
export async function startParts(
  config: Config,
  env: NodeJS.ProcessEnv,
  log: Logger,
  tell: (step: string) => void,
): Promise<Parts> {
  await using stack = new AsyncDisposableStack()
  const { dataDir } = config
  let supervisor: Children | undefined
  const children = async (): Promise<Children> =>
    (supervisor ??= stack.use(await createChildren({ dataDir, log })))

  const models = await startModels(config, env, stack)
  tell('Starting Postgres, Temporal and Chroma')
  // One supervisor for all three; they do not wait for each other.
  if (!config.databaseUrl || !config.temporal.address || !config.chroma.url) await children()
  const [database, temporal, chroma] = await Promise.all([
    config.databaseUrl
      ? { url: config.databaseUrl }
      : children().then((owner) =>
          startPostgres({
            children: owner,
            dataDir,
            port: config.postgresPort,
            database: databaseName,
          }),
        ),
    config.temporal.address
      ? { address: config.temporal.address, uiUrl: config.temporal.uiUrl }
      : children().then((owner) =>
          startTemporal({
            children: owner,
            dataDir,
            cliPath: needed(config.temporal.cliPath, 'TEMPORAL_ADDRESS'),
            port: config.temporal.port,
            uiPort: config.temporal.uiPort,
            namespace: config.temporal.namespace,
          }),
        ),
    config.chroma.url
      ? { url: config.chroma.url }
      : children().then((owner) =>
          startChroma({
            children: owner,
            dataDir,
            spec: needed(config.chroma.spec, 'CHROMA_URL'),
            port: config.chroma.port,
          }),
        ),
  ])
  const stop = stack.move()
  return {
    outside: {
      databaseUrl: database.url,
      temporalAddress: temporal.address,
      temporalUiUrl: config.temporal.uiUrl ?? temporal.uiUrl,
      models: models.models,
    },
    chromaUrl: chroma.url,
    modelName: models.name,
    [Symbol.asyncDispose]: () => stop.disposeAsync(),
  }
}

async function startModels(config: Config, env: NodeJS.ProcessEnv, stack: AsyncDisposableStack) {
  const { file, upstream, defaultModel } = config.models
  if (upstream && isOurselves(upstream.baseUrl, config)) {
    throw new Error(
      `UPSTREAM_BASE_URL is ${upstream.baseUrl}, which is this server: name the model's own endpoint`,
    )
  }
  if (file || upstream) {
    const models = createModels({ file, upstream, defaultModel, env })
    return { models, name: file ?? (upstream ? withoutPassword(upstream.baseUrl) : '') }
  }
  const demo = stack.use(await startDemoModel({ port: 0 }))
  const models = createModels({
    file: undefined,
    upstream: { baseUrl: demo.url, apiKey: 'demo' },
    defaultModel: 'longrun-demo',
    env: {},
  })
  return { models, name: 'the demo model, which only shows how things work' }
}

function withoutPassword(address: string): string {
  const url = new URL(address)
  url.username = ''
  url.password = ''
  return url.href
}

/** A server that asks itself for answers would never end; people set OPENAI_BASE_URL to us and copy it here. */
function isOurselves(baseUrl: string, config: Config): boolean {
  const { hostname, port } = new URL(baseUrl)
  const loopback = ['127.0.0.1', 'localhost', '[::1]', '0.0.0.0', config.host]
  return loopback.includes(hostname) && Number(port || 80) === config.port
}

function needed(value: string | undefined, variable: string): string {
  if (value !== undefined) return value
  throw new Error(`Start with \`npm start\`, which gets what is missing, or set ${variable}`)
}
