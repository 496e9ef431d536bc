import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { connect } from 'node:net'
import { join, resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { Connection, isGrpcServiceError, type ConnectionLike } from '@temporalio/client'
import { msToTs } from '@temporalio/common/lib/time.js'
import { claimPort, SYSTEM_PATH, type Children } from './children.ts'

/** Starts a Temporal server for one machine, which keeps its state in an SQLite file of `dataDir`. */
export async function startTemporal(options: {
  children: Children
  dataDir: string
  cliPath: string
  port: number
  /** Undefined: no web UI. */
  uiPort: number | undefined
  namespace: string
  namespaceRetentionDays?: number
}): Promise<{ address: string; uiUrl: string | undefined }> {
  const dataDir = resolve(options.dataDir)
  const version = await versionOf(options.cliPath)
  const port = await claimPort({
    port: options.port,
    part: 'Temporal',
    variable: 'TEMPORAL_PORT',
  })
  const uiPort =
    options.uiPort === undefined
      ? undefined
      : await claimPort({
          port: options.uiPort,
          part: "Temporal's web UI",
          variable: 'TEMPORAL_UI_PORT',
        })
  const address = `127.0.0.1:${port}`

  await options.children.spawn({
    name: 'temporal',
    command: options.cliPath,
    args: [
      'server',
      'start-dev',
      '--ip=127.0.0.1',
      `--port=${port}`,
      uiPort === undefined ? '--headless' : `--ui-port=${uiPort}`,
      ...(version.hasNewsFetch ? ['--ui-disable-news-fetch'] : []),
      // The file has no migrations between versions of the server: each gets its own, and Postgres is the truth.
      `--db-filename=${join(dataDir, `temporal-${version.serverMinor}.db`)}`,
      '--sqlite-pragma=journal_mode=WAL',
      '--sqlite-pragma=synchronous=NORMAL',
      `--namespace=${options.namespace}`,
      '--log-level=warn',
      ...DYNAMIC_CONFIG.map((entry) => `--dynamic-config-value=${entry}`),
    ],
    env: { PATH: SYSTEM_PATH, HOME: dataDir, GOGC: '400' },
    stop: 'SIGTERM',
    graceMs: 10_000,
    ready: (signal) => untilServing(address, signal),
    restart: true,
  })

  const connection = await Connection.connect({ address })
  try {
    await prepareNamespace(connection, options.namespace, options.namespaceRetentionDays)
  } finally {
    await connection.close()
  }
  return { address, uiUrl: uiPort === undefined ? undefined : `http://127.0.0.1:${uiPort}` }
}

const DYNAMIC_CONFIG = [
  'system.enableActivityEagerExecution=true',
  // The default of 20 a second makes every hop of a workflow wait for up to 50 ms, as there is only one shard.
  'history.transferProcessorMaxPollRPS=1000',
  'history.timerProcessorMaxPollRPS=1000',
  'matching.numTaskqueueReadPartitions=1',
  'matching.numTaskqueueWritePartitions=1',
]

const SEARCH_ATTRIBUTES = ['AssistantId', 'ThreadId', 'RunStatus', 'Model', 'ProjectId']
const KEYWORD = 2 // temporal.api.enums.v1.IndexedValueType

/**
 * Makes a namespace fit for runs, on our server or on another: creates it if need be, keeps closed workflows for at least
 * `retentionDays`, and registers the search attributes. May run at every start, and in several processes at once.
 */
export async function prepareNamespace(
  connection: Pick<ConnectionLike, 'workflowService' | 'operatorService'>,
  namespace: string,
  retentionDays = 30,
): Promise<void> {
  const { workflowService: service } = connection
  const retention = msToTs(retentionDays * 86_400_000)
  const found = await service
    .describeNamespace({ namespace })
    .catch(unless(GRPC.NOT_FOUND, `The namespace ${namespace} cannot be described`))
  if (!found) {
    await service
      .registerNamespace({ namespace, workflowExecutionRetentionPeriod: retention })
      .catch(unless(GRPC.ALREADY_EXISTS, `The namespace ${namespace} cannot be created`))
  } else if (
    Number(found.config?.workflowExecutionRetentionTtl?.seconds ?? 0) < Number(retention.seconds)
  ) {
    await service
      .updateNamespace({ namespace, config: { workflowExecutionRetentionTtl: retention } })
      // Who may not administer a namespace can still work in it.
      .catch(unless(GRPC.PERMISSION_DENIED, `The retention of ${namespace} cannot be raised`))
  }
  await registerSearchAttributes(connection, namespace)
}

async function registerSearchAttributes(
  { operatorService: service }: Pick<ConnectionLike, 'operatorService'>,
  namespace: string,
) {
  // A namespace that was created a moment ago is not known everywhere at once.
  const attempts = 40
  for (let attempt = 1; ; attempt++) {
    try {
      const { customAttributes } = await service.listSearchAttributes({ namespace })
      const missing = SEARCH_ATTRIBUTES.filter((name) => !(name in customAttributes))
      if (missing.length === 0) return
      if (attempt > 1) await sleep(250)
      await service.addSearchAttributes({
        namespace,
        searchAttributes: Object.fromEntries(missing.map((name) => [name, KEYWORD])),
      })
    } catch (cause) {
      const passes = hasCode(cause, GRPC.ALREADY_EXISTS) || hasCode(cause, GRPC.NOT_FOUND)
      if (passes && attempt < attempts) {
        await sleep(250)
        continue
      }
      throw new Error(
        `The search attributes ${SEARCH_ATTRIBUTES.join(', ')} cannot be registered in the namespace ${namespace}. ` +
          'Whoever administers it can do so: all are of the type Keyword.',
        { cause },
      )
    }
  }
}

const GRPC = { NOT_FOUND: 5, ALREADY_EXISTS: 6, PERMISSION_DENIED: 7 }

function hasCode(error: unknown, expected: number) {
  const code: number | undefined = isGrpcServiceError(error) ? error.code : undefined
  return code === expected
}

function unless(expected: number, problem: string) {
  return (cause: unknown): undefined => {
    if (hasCode(cause, expected)) return undefined
    throw new Error(`${problem}.`, { cause })
  }
}

// Asks for the port first: after one refused connection gRPC itself waits for a second.
async function untilServing(address: string, signal: AbortSignal) {
  const port = Number(address.split(':').at(-1))
  while (true) {
    signal.throwIfAborted()
    try {
      const socket = connect({ port, host: '127.0.0.1', signal })
      await once(socket, 'connect').finally(() => socket.destroy())
      const connection = await Connection.connect({ address, connectTimeout: 2_000 })
      await connection.close()
      return
    } catch {
      await sleep(20, undefined, { signal })
    }
  }
}

async function versionOf(cliPath: string) {
  const { stdout } = await promisify(execFile)(cliPath, ['--version']).catch((cause: unknown) => {
    throw new Error(`${cliPath} does not run as the Temporal CLI.`, { cause })
  })
  // temporal version 1.8.2 (Server 1.31.2, UI 2.50.1)
  const match = /version (\d+)\.(\d+)\S* \(Server (\d+\.\d+)/.exec(stdout)
  if (!match) throw new Error(`${cliPath} is not a Temporal CLI: it says ${stdout.trim()}`)
  const [, major, minor, serverMinor] = match
  return { serverMinor, hasNewsFetch: Number(major) > 1 || Number(minor) >= 8 }
}
