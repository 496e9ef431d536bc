import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'

import { eventually, scratchDir } from '../local/scratch.ts'

/** Why tests with nginx are skipped; empty where it is installed. */
export const withoutNginx = isInstalled() ? '' : ' (skipped: nginx is not installed)'

export interface Nginx extends AsyncDisposable {
  /** Ends in `/v1`. */
  baseUrl: string
}

/** A proxy before an api, with the settings that Debian's package comes with and nothing said of buffering. */
export async function startNginx(upstreamBaseUrl: string): Promise<Nginx> {
  await using stack = new AsyncDisposableStack()
  const { path: folder } = stack.use(scratchDir())
  const port = await freePort()
  const file = join(folder, 'nginx.conf')
  writeFileSync(
    file,
    `daemon off;
     pid ${folder}/nginx.pid;
     error_log stderr;
     events {}
     http {
       access_log off;
       client_body_temp_path ${folder}/body;
       proxy_temp_path ${folder}/proxy;
       fastcgi_temp_path ${folder}/fastcgi;
       uwsgi_temp_path ${folder}/uwsgi;
       scgi_temp_path ${folder}/scgi;
       server {
         listen 127.0.0.1:${port};
         location / { proxy_pass ${new URL(upstreamBaseUrl).origin}; }
       }
     }`,
  )
  const child = spawn('nginx', ['-c', file, '-p', folder], { stdio: ['ignore', 'ignore', 'pipe'] })
  stack.defer(async () => {
    if (child.exitCode !== null) return
    child.kill('SIGTERM')
    await once(child, 'exit')
  })
  let said = ''
  child.stderr.on('data', (data: Buffer) => void (said += data.toString()))
  const baseUrl = `http://127.0.0.1:${port}/v1`
  await eventually(async () => {
    if (child.exitCode !== null) throw new Error(`nginx ended: ${said}`)
    return fetch(baseUrl).catch(() => undefined)
  })
  const stop = stack.move()
  return { baseUrl, [Symbol.asyncDispose]: () => stop.disposeAsync() }
}

function isInstalled(): boolean {
  try {
    execFileSync('nginx', ['-v'], { stdio: 'ignore' })
    return true
  } catch {
    return false
  }
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}
