import { afterAll, beforeAll, expect, test } from 'vitest'

import { scratchDir } from '../local/scratch.ts'
import { startCluster } from '../support/cluster.ts'
import { hasS3Server, startS3Server, withoutS3Server, type S3Server } from '../support/s3.ts'
import { roundTrip, send } from './large-file.ts'

const dir = scratchDir()
let s3: S3Server | undefined
beforeAll(async () => {
  if (hasS3Server) s3 = await startS3Server()
})
afterAll(async () => {
  await s3?.[Symbol.asyncDispose]()
  dir[Symbol.dispose]()
})

/** Only Linux tells the memory of another process. */
const isLinux = process.platform === 'linux'
const largestMb = 512
const mostGrowthMb = 150

test.runIf(isLinux)('512 MB go to disk and back in constant memory', async () => {
  const trip = await roundTrip(largestMb, { FILES_DIR: dir.path })
  expect(trip).toMatchObject({ status: 200, isWhole: true })
  expect(Math.max(trip.grownMb.up, trip.grownMb.down)).toBeLessThan(mostGrowthMb)
  process.stdout.write(`memory, on disk: ${JSON.stringify(trip.grownMb)} above ${trip.restMb} MB\n`)
})

test.runIf(isLinux && hasS3Server)(
  `512 MB go to S3 and back in constant memory${withoutS3Server}`,
  async () => {
    const trip = await roundTrip(largestMb, s3?.env ?? {})
    expect(trip).toMatchObject({ status: 200, isWhole: true })
    expect(Math.max(trip.grownMb.up, trip.grownMb.down)).toBeLessThan(mostGrowthMb)
    process.stdout.write(`memory, in S3: ${JSON.stringify(trip.grownMb)} above ${trip.restMb} MB\n`)
  },
)

test('more than 512 MB are refused while they are read', async () => {
  await using cluster = await startCluster({ env: { FILES_DIR: dir.path } })
  await using server = await cluster.spawn('api')
  const { status, answer } = await send(`${server.baseUrl}/files`, largestMb + 1)
  expect(status).toBe(413)
  expect(answer).toContain('Maximum content size limit (536870912) exceeded.')
})
