import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { readFileSync, writeFileSync } from 'node:fs'
import { request, type IncomingMessage } from 'node:http'
import { Readable } from 'node:stream'
import { text } from 'node:stream/consumers'
import { pipeline } from 'node:stream/promises'

import { startCluster } from '../support/cluster.ts'
import { boundary } from './form.ts'

const megabyte = 1024 * 1024

/** What became of a large file that went to a server in a process of its own and came back. */
export interface RoundTrip {
  status: number | undefined
  answer: string
  /** Whether every byte came back. */
  isWhole: boolean
  /** How far the memory of the process rose above what it had at rest. */
  grownMb: { up: number; down: number }
  restMb: number
}

/** `env` says where the server keeps its files. Nothing of this size is in anybody's memory, ours neither. */
export async function roundTrip(sizeMb: number, env: Record<string, string>): Promise<RoundTrip> {
  await using cluster = await startCluster({ env })
  await using server = await cluster.spawn('api')
  const url = `${server.baseUrl}/files`
  // What is loaded and compiled once is no growth.
  await send(url, 8)
  resetPeak(server.pid)
  const restMb = memoryMb(server.pid, 'VmRSS')
  const sent = await send(url, sizeMb)
  const up = memoryMb(server.pid, 'VmHWM') - restMb
  resetPeak(server.pid)
  const { id } = JSON.parse(sent.answer) as { id?: string }
  const received = id === undefined ? '' : await receive(`${url}/${id}/content`)
  const down = memoryMb(server.pid, 'VmHWM') - restMb
  return {
    status: sent.status,
    answer: sent.answer,
    isWhole: received === sent.sha256,
    grownMb: { up, down },
    restMb,
  }
}

/** Uploads that many megabytes, or as many as the server wants. */
export async function send(url: string, sizeMb: number) {
  const hash = createHash('sha256')
  async function* body(): AsyncGenerator<Buffer | string> {
    yield `--${boundary}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nassistants\r\n`
    yield `--${boundary}\r\nContent-Disposition: form-data; name="file"; filename="large"\r\n\r\n`
    for (let i = 0; i < sizeMb; i += 1) {
      const chunk = Buffer.alloc(megabyte, i % 251)
      hash.update(chunk)
      yield chunk
    }
    yield `\r\n--${boundary}--\r\n`
  }
  const call = request(url, {
    method: 'POST',
    headers: {
      authorization: 'Bearer any',
      'content-type': `multipart/form-data; boundary=${boundary}`,
    },
  })
  const responded = once(call, 'response') as Promise<[IncomingMessage]>
  await pipeline(Readable.from(body()), call)
  const [response] = await responded
  const answer = await text(response)
  return { status: response.statusCode, answer, sha256: hash.digest('hex') }
}

async function receive(url: string): Promise<string> {
  const call = request(url, { headers: { authorization: 'Bearer any' } }).end()
  const [response] = (await once(call, 'response')) as [IncomingMessage]
  const hash = createHash('sha256')
  for await (const chunk of response as AsyncIterable<Buffer>) hash.update(chunk)
  return hash.digest('hex')
}

function memoryMb(pid: number, name: 'VmRSS' | 'VmHWM'): number {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8')
  return Math.round(Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(status)?.[1]) / 1024)
}

/** From now on VmHWM tells the highest memory since now. */
function resetPeak(pid: number): void {
  writeFileSync(`/proc/${pid}/clear_refs`, '5')
}
