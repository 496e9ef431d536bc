import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { homedir, tmpdir } from 'node:os'
import { join } from 'node:path'

import { describe } from 'vitest'

import { createLogger } from '../../log.ts'
import type {
  CodeOutput,
  Sandbox,
  SandboxLimits,
  SandboxOptions,
  SandboxProvider,
} from '../../sandbox/index.ts'
import { createProviders } from '../../sandbox/open.ts'
import { openRoot } from '../../sandbox/root.ts'

const MIB = 1024 * 1024

/** Small, so that whatever fills them does so quickly. */
export const TEST_LIMITS: SandboxLimits = {
  memoryBytes: 512 * MIB,
  cpus: 1,
  processes: 64,
  diskBytes: 64 * MIB,
  tmpBytes: 32 * MIB,
  outputBytes: MIB,
}

/** The root file system as set-up has built it for the tests. */
export function testRoot() {
  const cacheDir = process.env['LONGRUN_CACHE'] ?? join(homedir(), '.cache', 'longrun')
  const state = openRoot({ cacheDir, directory: undefined, image: undefined }).state()
  if (state.state !== 'ready')
    throw new Error(`The tests of the sandbox need its root: ${JSON.stringify(state)}`)
  return state
}

export function testProviders(stateDir: string): SandboxProvider[] {
  const { root, bwrapPath } = testRoot()
  const log = createLogger('silent')
  return createProviders({ root, stateDir, log, ...(bwrapPath !== undefined && { bwrapPath }) })
}

const stateDir = mkdtempSync(join(tmpdir(), 'longrun-sandboxes-'))
process.once('exit', () => rmSync(stateDir, { recursive: true, force: true }))

const probed = await Promise.all(
  testProviders(stateDir).map(async (provider) => ({ provider, result: await provider.probe() })),
)

/** The same tests for every provider that works here; of the others it is shown why they do not. */
export function describeProviders(title: string, body: (provider: SandboxProvider) => void): void {
  for (const { provider, result } of probed) {
    if (result.ok) describe(`${provider.name}: ${title}`, () => body(provider))
    else describe.skip(`${provider.name}: ${title} (skipped: ${result.why})`, () => body(provider))
  }
}

export type TestSandbox = Sandbox & { dataDir: string }

export async function openTestSandbox(
  provider: SandboxProvider,
  options: { limits?: Partial<SandboxLimits>; network?: SandboxOptions['network'] } = {},
): Promise<TestSandbox> {
  const dataDir = join(mkdtempSync(join(stateDir, 'data-')), 'files')
  mkdirSync(dataDir)
  const sandbox = await provider.create({
    dataDir,
    limits: { ...TEST_LIMITS, ...options.limits },
    network: options.network ?? 'none',
  })
  return Object.assign(sandbox, { dataDir })
}

export function logsOf(outputs: CodeOutput[]): string {
  return outputs.map((output) => (output.type === 'logs' ? output.logs : '')).join('')
}

/** What the code prints, where nothing goes wrong. */
export async function printed(sandbox: Sandbox, code: string): Promise<string> {
  const { status, outputs, note } = await sandbox.runCode(code, { timeoutMs: 20_000 })
  if (status !== 'ok') throw new Error(`${status} ${note ?? ''}\n${logsOf(outputs)}`)
  return logsOf(outputs)
}

/** What the code makes of an expression, by way of JSON. */
export async function valueOf(sandbox: Sandbox, expression: string, setUp = ''): Promise<unknown> {
  return JSON.parse(await printed(sandbox, `${setUp}\nimport json\nprint(json.dumps(${expression}))`))
}
