import { DockerDaemonError, type DaemonInfo } from './docker-daemon.ts'
import type { ProbeFailure } from './provider.ts'
import type { SandboxRoot } from './root.ts'

export interface Circumstances {
  cliPath: string | undefined
  socketPath: string | undefined
  /** As the environment has it, where it names another machine. */
  remoteHost: string | undefined
}

/** What can be seen without trying. */
export function notRunning({
  cliPath,
  socketPath,
  remoteHost,
}: Circumstances): ProbeFailure | undefined {
  if (remoteHost !== undefined)
    return failed(
      `DOCKER_HOST is ${remoteHost}, and the daemon must be on this machine, where the files are.`,
      'Set DOCKER_HOST to the unix socket of a daemon of this machine (unix:///var/run/docker.sock), or unset it.',
    )
  if (cliPath === undefined)
    return failed(
      'The docker command was not found.',
      'Install docker, or use bubblewrap (SANDBOX_PROVIDER=bubblewrap).',
    )
  if (socketPath === undefined)
    return failed(
      'No docker daemon runs on this machine.',
      'Start it (`systemctl start docker`), or set DOCKER_HOST to its unix socket.',
    )
  return undefined
}

/** What the daemon says of itself. */
export function notLimiting(info: DaemonInfo): ProbeFailure | undefined {
  const missing = [
    ...(info.MemoryLimit === false ? ['memory'] : []),
    ...(info.PidsLimit === false ? ['processes'] : []),
    ...(info.CpuCfsQuota === false ? ['CPU time'] : []),
  ]
  if (missing.length === 0) return undefined
  return failed(
    `This docker daemon cannot bound ${missing.join(' and ')}.`,
    'Give it control groups: a daemon of a user needs version 2 of them, delegated by systemd ' +
      '(see docker’s “Rootless mode”).',
  )
}

/** What the daemon, or its command, complained of. */
export function diagnose(error: unknown, root: SandboxRoot): ProbeFailure {
  const complaint = error instanceof Error ? error.message : String(error)
  const why = `docker could not start a sandbox: ${complaint}`
  const status = error instanceof DockerDaemonError ? error.status : undefined
  if (/connect EACCES|permission denied while trying to connect/i.test(complaint))
    return failed(
      why,
      'Let this user talk to the daemon (`usermod -aG docker <user>`, then log in again). Whoever may do that ' +
        'is as mighty as root: bubblewrap needs no such right.',
    )
  if (/ECONNREFUSED|ENOENT|Cannot connect to the Docker daemon/i.test(complaint) && !status)
    return failed(why, 'Start the daemon: `systemctl start docker`.')
  if (root.image !== undefined && /no such image|not found|unable to find image/i.test(complaint))
    return failed(
      `There is no image ${root.image}, and none is fetched.`,
      `Build it: \`docker build -t ${root.image} sandbox/root\`; or pull it; or unset SANDBOX_IMAGE.`,
    )
  if (/bind source path does not exist|mounts denied|file sharing/i.test(complaint))
    return failed(
      why,
      'The daemon must see the files of this process under the same paths: run the server beside the daemon and not ' +
        'in a container, or give the container these directories under their own names.',
    )
  if (/seccomp/i.test(complaint))
    return failed(why, 'The kernel or the runtime has no seccomp, without which nothing runs here.')
  return failed(why, 'Try `docker run --rm hello-world`, or choose another with SANDBOX_PROVIDER.')
}

function failed(why: string, remedy: string): ProbeFailure {
  return { ok: false, why, remedy }
}
