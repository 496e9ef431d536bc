import { join } from 'node:path'

import { expect, test } from 'vitest'

import { loadConfig } from '../config.ts'

test('files are kept below the data unless they are told where', () => {
  expect(loadConfig({ DATA_DIR: '/data' }).files).toMatchObject({
    dir: join('/data', 'files'),
    s3: undefined,
    downloadsInputs: true,
  })
  expect(loadConfig({ FILES_DIR: '/files', FILES_DOWNLOAD: 'outputs' }).files).toMatchObject({
    dir: '/files',
    downloadsInputs: false,
  })
})

test('a bucket is enough for S3: the rest is what the AWS SDK finds', () => {
  expect(loadConfig({ FILES_S3_BUCKET: 'b' }).files.s3).toEqual({
    bucket: 'b',
    prefix: '',
    region: undefined,
    endpoint: undefined,
    credentials: undefined,
  })
})

test('code has no network and the limits of the design, unless it is told otherwise', () => {
  expect(loadConfig({ LONGRUN_CACHE: '/cache' }).sandbox).toEqual({
    provider: 'auto',
    root: { cacheDir: '/cache', directory: undefined, image: undefined },
    limits: {
      memoryBytes: 512 * 1024 * 1024,
      cpus: 1,
      processes: 128,
      diskBytes: 1024 * 1024 * 1024,
    },
    cellTimeoutMs: 120_000,
    idleMs: 3_600_000,
    warmSpares: 1,
    maxSessions: 32,
    network: 'none',
  })
  const { limits, network } = loadConfig({
    SANDBOX_MEMORY_MB: '1024',
    SANDBOX_CPUS: '0.5',
    SANDBOX_ALLOW: 'a.example:443, b.example:80',
  }).sandbox
  expect(limits).toMatchObject({ memoryBytes: 1024 * 1024 * 1024, cpus: 0.5 })
  expect(network).toEqual({ allow: ['a.example:443', 'b.example:80'] })
})

test.each([
  [{ SANDBOX_ROOT: '/root', SANDBOX_IMAGE: 'python' }, 'set the one that is meant'],
  [{ SANDBOX_PROVIDER: 'runsc', SANDBOX_IMAGE: 'python' }, 'SANDBOX_IMAGE is for docker'],
  [{ SANDBOX_PROVIDER: 'chroot' }, 'SANDBOX_PROVIDER'],
  [{ SANDBOX_ALLOW: 'a.example' }, 'must be host:port'],
  [{ SANDBOX_MEMORY_MB: '64' }, 'SANDBOX_MEMORY_MB'],
  [{ SANDBOX_POOL: '0.5' }, 'SANDBOX_POOL'],
  [{ FILES_S3_ENDPOINT: 'http://127.0.0.1:9000' }, 'FILES_S3_ENDPOINT is set, but no bucket'],
  [{ FILES_S3_BUCKET: 'b', FILES_S3_ACCESS_KEY_ID: 'a' }, 'set both, or neither'],
  [{ FILES_DOWNLOAD: 'none' }, 'FILES_DOWNLOAD'],
])('%j is refused', (env, message) => {
  expect(() => loadConfig(env)).toThrow(message)
})
