import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { describe } from 'vitest'

import type {
  CodeOutput,
  Sandbox,
  SandboxLimits,
  SandboxOptions,
  SandboxProvider,
} from '../../sandbox/index.ts'
import { ensureDocker } from './support-docker.ts'
import { TEST_LIMITS, testProviders } from './support-providers.ts'

export { TEST_LIMITS, testProviders, testRoot } from './support-providers.ts'

const stateDir = mkdtempSync(join(tmpdir(), 'longrun-sandboxes-'))
process.once('exit', () => rmSync(stateDir, { recursive: true, force: true }))

/** `npm test` has the one that everybody has; the others take minutes each, and are in `npm run test:full`. */
const tested = process.env['TEST_SANDBOX_PROVIDER'] ?? 'bubblewrap'
if (tested === 'docker') await ensureDocker()
const probed = await Promise.all(
  testProviders(stateDir)
    .filter(({ name }) => name === tested)
    .map(async (provider) => ({ provider, result: await provider.probe() })),
)

/** The same tests for each provider; where it does not work here it is shown why. */
export function describeProviders(title: string, body: (provider: SandboxProvider) => void): void {
  for (const { provider, result } of probed) {
    const reason = result.ok ? '' : ` (skipped: ${result.why})`
    describe.skipIf(!result.ok)(`${provider.name}: ${title}${reason}`, () => {
      body(provider)
    })
  }
}

export type TestSandbox = Sandbox & { dataDir: string; limits: SandboxLimits }

export async function openTestSandbox(
  provider: SandboxProvider,
  options: { limits?: Partial<SandboxLimits>; network?: SandboxOptions['network'] } = {},
): Promise<TestSandbox> {
  const dataDir = join(mkdtempSync(join(stateDir, 'data-')), 'files')
  mkdirSync(dataDir)
  const limits = { ...TEST_LIMITS, ...options.limits }
  const sandbox = await provider.create({
    dataDir,
    limits,
    network: options.network ?? 'none',
  })
  return Object.assign(sandbox, { dataDir, limits })
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
  return JSON.parse(
    await printed(sandbox, `${setUp}\nimport json\nprint(json.dumps(${expression}))`),
  )
}

/** Processes that were started by a process, and by those. */
export function descendantsOf(pid: number): number[] {
  const parents = new Map<number, number>()
  for (const name of readdirSync('/proc').filter((one) => /^\d+$/.test(one))) {
    try {
      const stat = readFileSync(`/proc/${name}/stat`, 'utf8')
      parents.set(Number(name), Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]))
    } catch {
      // It has ended.
    }
  }
  const found: number[] = []
  collect(pid)
  function collect(parent: number): void {
    for (const [child, its] of parents) {
      if (its !== parent) continue
      found.push(child)
      collect(child)
    }
  }
  return found
}
