import type { Logger } from '../log.ts'
import type { SandboxRoot } from './root.ts'
import type { Sandbox } from './sandbox.ts'

/** A way to isolate: docker, bubblewrap or gVisor. */
export interface SandboxProvider {
  readonly name: 'bubblewrap' | 'docker' | 'runsc'
  /** Whether it works on this machine, found out by running Python under all of its restrictions. */
  probe(): Promise<ProbeResult>
  /** Throws SandboxStartError. */
  create(options: SandboxOptions): Promise<Sandbox>
  /** Ends what earlier processes with the same state directory have left behind. */
  reap(): Promise<void>
}

export type ProbeResult = { ok: true; version: string } | ProbeFailure

/** Both are sentences for whoever runs the server. */
export type ProbeFailure = { ok: false; why: string; remedy: string }

/** What a provider is made of: `createBubblewrap(deps)`, `createDocker(deps)`, `createRunsc(deps)`. */
export interface ProviderDeps {
  root: SandboxRoot
  /** A directory that is the provider's own; what it finds there at `reap()` is left over from an earlier process. */
  stateDir: string
  log: Logger
}

export interface SandboxOptions {
  /** A directory of the host that becomes /mnt/data. It exists; the provider makes it writable for the sandbox. */
  dataDir: string
  limits: SandboxLimits
  /** Nothing, or the `host:port`s that may be reached through a proxy (HTTPS_PROXY is set). */
  network: 'none' | { allow: string[] }
}

export interface SandboxLimits {
  /** Of all processes together where the provider can bound that, of each of them in any case. */
  memoryBytes: number
  /** May be a fraction. */
  cpus: number
  processes: number
  /** What may be in /mnt/data. */
  diskBytes: number
  /** What may be in /tmp. It is memory. */
  tmpBytes: number
  /** Of text, per cell. */
  outputBytes: number
}

export const DEFAULT_LIMITS: SandboxLimits = {
  memoryBytes: 512 * 1024 * 1024,
  cpus: 1,
  processes: 128,
  diskBytes: 1024 * 1024 * 1024,
  tmpBytes: 128 * 1024 * 1024,
  outputBytes: 1024 * 1024,
}
