import { createBubblewrap } from './bubblewrap.ts'
import { createDocker } from './docker.ts'
import type { ProviderDeps, SandboxOptions, SandboxProvider } from './provider.ts'
import { removeTree } from './remove-tree.ts'
import { createRunsc } from './runsc.ts'
import type { Sandbox as SandboxHandle } from './sandbox.ts'

export type SandboxChoice = 'auto' | 'docker' | 'bubblewrap' | 'runsc' | 'none'

export type OpenOptions = ProviderDeps & {
  provider: SandboxChoice
  bwrapPath?: string
  /** As in the environment variable DOCKER_HOST. */
  dockerHost?: string
}

export type Sandbox = SandboxHandle

export const Sandbox = {
  /** `await Sandbox.create(provider, options)`; ends with the scope of `await using`. */
  create: async (provider: SandboxProvider, options: SandboxOptions): Promise<SandboxHandle> =>
    await provider.create(options),
}

/**
 * The provider that was chosen, or the first that works here, after what earlier processes left behind has been ended.
 * Nothing runs without isolation: where no provider works, `none` says why, and what to do.
 */
export async function openSandboxes(
  options: OpenOptions,
): Promise<SandboxProvider | { none: string }> {
  const { provider: choice, log } = options
  if (choice === 'none') return { none: 'The code interpreter is off (SANDBOX_PROVIDER=none).' }
  const candidates = createProviders(options).filter(
    ({ name }) => choice === 'auto' || name === choice,
  )
  const failures: string[] = []
  for (const provider of candidates) {
    await provider.reap()
    const result = await provider.probe()
    if (result.ok) {
      log.info({ provider: provider.name, version: result.version }, 'the sandbox is ready')
      return provider
    }
    failures.push(`${provider.name}: ${result.why} ${result.remedy}`)
  }
  return { none: `Python code cannot be run here, for there is no sandbox. ${failures.join(' ')}` }
}

/**
 * Ends what a process has left behind that had this state directory and is gone, and removes the directory. What cannot be
 * ended or removed is logged and left for the next time: it keeps nobody from running code.
 */
export async function reapSandboxes(options: Omit<OpenOptions, 'provider'>): Promise<void> {
  const { stateDir, log } = options
  try {
    for (const provider of createProviders(options)) await provider.reap()
    await removeTree(stateDir)
  } catch (err) {
    log.warn({ stateDir, err }, 'what an earlier process has left could not be removed')
  }
}

/** In the order in which they are tried: what starts sooner, and needs less of the machine, comes first. */
export function createProviders(options: Omit<OpenOptions, 'provider'>): SandboxProvider[] {
  return [createBubblewrap(options), createDocker(options), createRunsc(options)]
}
