import { spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { mkdirSync } from 'node:fs'
import { createServer } from 'node:net'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'

import { inject } from 'vitest'

import type { S3Options } from '../../store/blobs/s3.ts'
import { eventually } from '../local/scratch.ts'

/** Written by local/setup.mjs; undefined where it could not get an S3 server. */
const program = process.env['LONGRUN_S3_SERVER']
export const hasS3Server = program !== undefined
/** What the title of a test says where there is none. */
export const withoutS3Server = hasS3Server ? '' : ' (skipped: LONGRUN_S3_SERVER names none)'

export interface S3Server extends AsyncDisposable {
  /** A bucket that is there and empty, and who may use it. */
  options: S3Options
  /** The folder that holds the objects of the bucket, for whoever looks behind the server. */
  bucketDir: string
  /** The same as a user would set it. */
  env: Record<string, string>
}

/** A real S3 server, which checks signatures, in front of a folder. */
export async function startS3Server(): Promise<S3Server> {
  const dir = join(inject('testDir'), `s3-${randomUUID()}`)
  const [root, sidecar] = [join(dir, 'data'), join(dir, 'sidecar')]
  const bucket = 'files'
  const bucketDir = join(root, bucket)
  for (const path of [bucketDir, sidecar]) mkdirSync(path, { recursive: true })
  const credentials = { accessKeyId: 'tester', secretAccessKey: randomUUID() }
  const address = `127.0.0.1:${await freePort()}`
  const child = spawn(
    program ?? '',
    ['--port', address, '--quiet', 'posix', '--sidecar', sidecar, root],
    {
      env: {
        ROOT_ACCESS_KEY_ID: credentials.accessKeyId,
        ROOT_SECRET_ACCESS_KEY: credentials.secretAccessKey,
      },
      stdio: 'ignore',
    },
  )
  const over = once(child, 'exit')
  const endpoint = `http://${address}`
  // It answers before it is asked anything that makes sense, with a refusal.
  await eventually(() => fetch(endpoint).then(Boolean, () => false))
  return {
    options: { bucket, prefix: 'longrun/', region: undefined, endpoint, credentials },
    bucketDir,
    env: {
      FILES_S3_BUCKET: bucket,
      FILES_S3_PREFIX: 'longrun/',
      FILES_S3_ENDPOINT: endpoint,
      FILES_S3_ACCESS_KEY_ID: credentials.accessKeyId,
      FILES_S3_SECRET_ACCESS_KEY: credentials.secretAccessKey,
    },
    async [Symbol.asyncDispose]() {
      child.kill('SIGKILL')
      await over
    },
  }
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  return port
}
