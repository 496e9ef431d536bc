import { execFile } from 'node:child_process'

import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'

import { startDemoModel, type DemoModel } from '../../local/demo-model.ts'
import { startServer, type TestServer } from '../support/server.ts'

/** One generation of an official client, and how its program is run. */
export interface SdkClient {
  name: string
  command: string[]
  env: Record<string, string>
  scenarios: readonly string[]
}

const shared =
  'create-poll stream-helper stream-raw create-and-run lists crud functions one-run cancel models files uploads'.split(
    ' ',
  )
const programs = 'test/contract/programs'

/** `openai`, our own dependency, or one of `test/sdks`. */
export function nodeClient(packageName: string): SdkClient {
  return {
    name: `npm ${packageName}`,
    command: [process.execPath, `${programs}/node-client.mjs`, packageName],
    env: {},
    scenarios: [...shared, 'to-readable-stream'],
  }
}

/** Of the generations that send assistants=v1; `dialect` is what reaches the server. */
export function oldNodeClient(packageName: string, dialect: 'v1' | 'v2' = 'v1'): SdkClient {
  const hasHelpers = packageName !== 'openai-4-20'
  return {
    name: `npm ${packageName}`,
    command: [process.execPath, `${programs}/node-client.mjs`, packageName],
    env: { GENERATION: 'v1', DIALECT: dialect },
    scenarios: oldScenarios(dialect, hasHelpers),
  }
}

/** What `scenariosOf` of the programs says too: a scenario that nobody runs is found out. */
function oldScenarios(dialect: 'v1' | 'v2', hasHelpers: boolean): string[] {
  const inV1 = dialect === 'v1'
  return [
    'create-poll',
    'functions',
    'lists',
    'crud',
    'cancel',
    ...(inV1 ? ['files', 'retrieval'] : []),
    ...(hasHelpers ? ['helpers', 'stream'] : []),
    ...(hasHelpers && inV1 ? ['incomplete'] : []),
  ]
}

/** Of the generations that send assistants=v1, as above. */
export function oldPythonClient(
  version: string,
  dialect: 'v1' | 'v2' = 'v1',
): SdkClient | undefined {
  const client = pythonClient(version)
  return (
    client && {
      ...client,
      command: [client.command[0] ?? '', `${programs}/python_client_v1.py`],
      env: { ...client.env, DIALECT: dialect },
      scenarios: oldScenarios(dialect, version !== '1.3.9'),
    }
  )
}

/** Undefined where the set-up did not find a Python, or could not get this version. */
export function pythonClient(version: string): SdkClient | undefined {
  // Written by local/setup.mjs.
  const found = JSON.parse(process.env['LONGRUN_PYTHON_SDKS'] ?? 'null') as PythonSdks | null
  const packages = found?.sdks[version]
  if (!found || !packages) return undefined
  return {
    name: `Python ${version}`,
    command: [found.python, `${programs}/python_client.py`],
    env: { PYTHONPATH: packages },
    scenarios: shared,
  }
}

type PythonSdks = { python: string; sdks: Record<string, string> }

/** Every scenario of these clients, two at a time, against one server with the demo model. */
export function describeClients(clients: Record<string, SdkClient | undefined>): void {
  vi.setConfig({ maxConcurrency: 2 })
  let demo: DemoModel
  let server: TestServer
  beforeAll(async () => {
    demo = await startDemoModel({ port: 0, tokenDelayMs: 1 })
    server = await startServer({ UPSTREAM_BASE_URL: demo.url })
  })
  afterAll(async () => {
    await server[Symbol.asyncDispose]()
    await demo.close()
  })

  for (const [name, client] of Object.entries(clients)) {
    const { scenarios } = client ?? { scenarios: [] }
    const why = client ? '' : ' (skipped: LONGRUN_PYTHON_SDKS does not name it)'
    describe.runIf(client).concurrent(`${name}${why}`, () => {
      test.each(scenarios)('%s', async (scenario) => {
        expect(await runScenario(client, scenario, server.baseUrl)).toMatchObject({ ok: true })
      })
      test('its program has no scenario that is not run here', async () => {
        const { error } = await runScenario(client, 'none', server.baseUrl)
        const named = /There are: (.*)$/.exec(error?.message ?? '')?.[1]?.split(', ')
        expect(new Set(named)).toEqual(new Set(scenarios))
      })
    })
  }
}

interface Outcome {
  ok: boolean
  error?: { message: string; stack?: string }
}

/** What the program says in its one line; what it says where there is none is the error. */
async function runScenario(
  client: SdkClient | undefined,
  scenario: string,
  baseUrl: string,
): Promise<Outcome> {
  const { command: [program = '', ...args] = [], env } = client ?? {}
  const output = await new Promise<string>((resolve) => {
    const { PATH = '' } = process.env
    execFile(
      program,
      [...args, scenario],
      { env: { PATH, ...env, BASE_URL: baseUrl, API_KEY: 'sk-contract', DEMO: '1' } },
      (_, stdout, stderr) => resolve(stdout || stderr),
    )
  })
  try {
    return JSON.parse(output) as Outcome
  } catch {
    return { ok: false, error: { message: output } }
  }
}
