/**
 * Where strangers' Python runs. `openSandboxes` finds a way to isolate it on this machine, `create` makes one,
 * `runCode` runs cells whose variables last:
 *
 *   const sandboxes = await openSandboxes({ provider: 'auto', root, stateDir, log })
 *   if ('none' in sandboxes) throw new Error(sandboxes.none)
 *   await using sandbox = await Sandbox.create(sandboxes, { dataDir, limits: DEFAULT_LIMITS, network: 'none' })
 *   const { status, outputs, note } = await sandbox.runCode('1 + 1', { timeoutMs: 30_000 })
 */
export { openSandboxes, reapSandboxes, Sandbox } from './open.ts'
export { birthOf } from './leftovers.ts'
export { removeTree } from './remove-tree.ts'
export type { SandboxChoice } from './open.ts'
export { DEFAULT_LIMITS } from './provider.ts'
export type {
  ProbeFailure,
  ProbeResult,
  ProviderDeps,
  SandboxLimits,
  SandboxOptions,
  SandboxProvider,
} from './provider.ts'
export type {
  CodeOutput,
  CodeResult,
  ContainerProcess,
  ContainerStream,
  ExecOptions,
  ImageOutput,
  LogsOutput,
  RunCodeOptions,
  SandboxFile,
  SandboxFileStat,
  SandboxFilesystem,
} from './sandbox.ts'
export {
  ClientClosedError,
  InvalidError,
  SandboxFilesystemDirectoryNotEmptyError,
  SandboxFilesystemError,
  SandboxFilesystemFileTooLargeError,
  SandboxFilesystemIsADirectoryError,
  SandboxFilesystemNotADirectoryError,
  SandboxFilesystemNotFoundError,
  SandboxFilesystemPermissionError,
  SandboxGoneError,
  SandboxStartError,
  SandboxTimeoutError,
} from './errors.ts'
// For providers.
export { type Door, DOOR_PATH, openDoor } from './network.ts'
export { startKernel } from './kernel.ts'
export { insideEnv, KERNEL_PATH, kernelDir, supervisorArgv } from './kernel-files.ts'
export type { KernelLaunch } from './launch.ts'
