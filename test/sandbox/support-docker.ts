import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

import { findSocket, openDaemon } from '../../sandbox/docker-daemon.ts'

const START_MS = 20_000

/**
 * The docker daemon of this machine, or one of these tests' own where there is none and this is root: it is told to other
 * programs by DOCKER_HOST, and ends with this process, however that ends. Without both, tests of docker say why they are skipped.
 */
export async function ensureDocker(): Promise<void> {
  const uid = process.getuid?.()
  const dockerd = ['/usr/sbin', '/usr/bin', '/usr/local/bin']
    .map((dir) => join(dir, 'dockerd'))
    .find((path) => existsSync(path))
  if (process.env['DOCKER_HOST'] !== undefined || (await answers(findSocket(uid)))) return
  if (uid !== 0 || dockerd === undefined) return

  const dir = mkdtempSync(join(tmpdir(), 'longrun-dockerd-'))
  const socket = join(dir, 'docker.sock')
  const options = [
    ['--data-root', join(dir, 'data'), '--exec-root', join(dir, 'exec')],
    ['--host', `unix://${socket}`, '--pidfile', join(dir, 'pid')],
    // Containers have no network here, and the machine's is left as it is.
    ['--bridge=none', '--iptables=false', '--ip6tables=false', '--ip-forward=false'],
    ['--ip-masq=false'],
  ].flat()
  const daemon = spawn(
    'setpriv',
    ['--pdeathsig', 'TERM', 'sh', '-c', KEEPER, dir, dockerd, ...options],
    {
      stdio: 'ignore',
      detached: true,
    },
  )
  daemon.unref()
  const ended = once(daemon, 'exit').then(() => true)
  const started = untilAnswering(socket)
  if (await Promise.race([ended, started.then((itDoes) => !itDoes)])) daemon.kill('SIGTERM')
  else process.env['DOCKER_HOST'] = `unix://${socket}`
}

/** Hands the end of its parent on to the daemon, which ends its containers, and leaves nothing of it. */
const KEEPER = `trap 'kill $pid' TERM
"$@" & pid=$!
wait $pid; trap '' TERM; wait $pid
rm -rf "$0"`

async function untilAnswering(socket: string): Promise<boolean> {
  for (const startedAt = Date.now(); Date.now() - startedAt < START_MS; await sleep(50)) {
    if (await answers(socket)) return true
  }
  return false
}

async function answers(socket: string | undefined): Promise<boolean> {
  if (socket === undefined) return false
  return await openDaemon(socket)
    .info()
    .then(
      () => true,
      () => false,
    )
}
