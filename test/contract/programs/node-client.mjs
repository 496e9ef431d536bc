/**
 * Runs one scenario with one generation of the official npm client against a server:
 *
 *   BASE_URL=http://127.0.0.1:3000/v1 API_KEY=sk-any node node-client.mjs openai-6 stream-raw
 *
 * Prints one line of JSON and exits with 0 (`ok: true`) or 1. Environment: MODEL (default `gpt-4o`),
 * TIMEOUT_MS (default 60000, for all of it), DEMO=1 (the model behind the server is the demo model,
 * so its answers are known and checked as well), GENERATION=v1 (the client is one of assistants=v1).
 */
import * as generation1 from './node-scenarios-v1.mjs'
import { scenarios as scenariosOf2 } from './node-scenarios.mjs'
import { openSdk as openSdk2 } from './node-sdk.mjs'

const [packageName = '', scenario = ''] = process.argv.slice(2)
const {
  BASE_URL,
  API_KEY = 'sk-contract',
  MODEL = 'gpt-4o',
  TIMEOUT_MS = '60000',
  DEMO,
  GENERATION,
} = process.env

const overdue = setTimeout(
  () => finish({ ok: false, error: { message: `not over after ${TIMEOUT_MS} ms` } }),
  Number(TIMEOUT_MS),
)

let version
try {
  if (!BASE_URL) throw new Error('Set BASE_URL to the base URL of the server, ending in /v1.')
  const { openSdk, scenariosOf } =
    GENERATION === 'v1' ? generation1 : { openSdk: openSdk2, scenariosOf: () => scenariosOf2 }
  const sdk = openSdk(packageName, { baseURL: BASE_URL, apiKey: API_KEY })
  version = sdk.version
  const scenarios = scenariosOf(sdk)
  const run = scenarios[scenario]
  if (!run) throw new Error(`Unknown scenario. There are: ${Object.keys(scenarios).join(', ')}`)
  finish({ ok: true, ...(await run({ sdk, model: MODEL, isDemo: DEMO === '1' })) })
} catch (error) {
  const { name, message, status, code, stack } = error
  finish({ ok: false, error: { name, message, status, code, stack } })
}

function finish(result) {
  clearTimeout(overdue)
  process.stdout.write(`${JSON.stringify({ client: packageName, version, scenario, ...result })}\n`)
  // Kept-alive sockets of the older clients would hold the process for seconds.
  process.exit(result.ok ? 0 : 1)
}
