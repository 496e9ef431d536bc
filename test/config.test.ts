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

test.each([
  [{ FILES_S3_ENDPOINT: 'http://127.0.0.1:9000' }, 'FILES_S3_ENDPOINT is set, but no bucket'],
  [{ FILES_S3_BUCKET: 'b', FILES_S3_ACCESS_KEY_ID: 'a' }, 'set both, or neither'],
  [{ FILES_DOWNLOAD: 'none' }, 'FILES_DOWNLOAD'],
])('%j is refused', (env, message) => {
  expect(() => loadConfig(env)).toThrow(message)
})
