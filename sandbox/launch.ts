import type { Logger } from '../log.ts'
import type { SandboxLimits } from './provider.ts'

/**
 * What a provider hands to `startKernel`: how to start the supervisor on a terminal, and how to end it.
 * The supervisor's own command line inside of the sandbox is `supervisorArgv(root)`, its environment `insideEnv(root)`,
 * and `kernelDir` must be bound read-only at KERNEL_PATH (see kernel-files.ts).
 */
export interface KernelLaunch {
  id: string
  /** Runs on a pseudo-terminal, as the leader of its session. */
  command: string
  args: string[]
  /** The whole environment of the command on the host: nothing is inherited. */
  env: Record<string, string>
  /** The directory of the host that is /mnt/data inside. */
  dataDir: string
  /** Whose files the sandbox can write to, where that is not the user of this process. */
  owner?: { uid: number; gid: number }
  limits: SandboxLimits
  /**
   * Ends everything in the sandbox at once; called once more right after the command has ended. Without this function the
   * command is killed (SIGKILL).
   */
  kill?: (commandPid: number) => Promise<void>
  /** After the command has ended: takes away what is left of the sandbox on the host (but not `dataDir`). */
  cleanUp?: () => Promise<void>
  /**
   * Puts the process with this number inside (and its children to come) under the bounds, which do not hold for the
   * supervisor then, so that it answers while code fights for memory. False where there is no such process (any more);
   * one that is there and was not bounded never begins.
   */
  confine?: (pidInside: number) => boolean
  /** How many processes of the sandbox the kernel has killed for lack of memory; undefined where nobody counts. */
  oomKills?: () => number | undefined
  /** True where `limits.memoryBytes` is held for all processes together. Without it the supervisor watches their sum. */
  memoryBounded: boolean
  log: Logger
}
