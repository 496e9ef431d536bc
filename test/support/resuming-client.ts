import { get } from 'node:http'

import type { Random } from './random.ts'

export interface CutStream {
  /** The complete frames, as they came over the wires, joined. */
  text: string
  /** How often the connection was cut by us. */
  cuts: number
}

/**
 * Reads the events of a run to `[DONE]` over a connection that is cut after a random number of bytes, again and again, and
 * comes back each time with the id of the last frame that came whole; also where nobody answers for a while. `baseUrl` is
 * asked for each connection: whoever lives.
 */
export async function readWithCuts(
  baseUrl: () => string,
  path: string,
  { random, mostBytes, patienceMs }: { random: Random; mostBytes: number; patienceMs: number },
): Promise<CutStream> {
  const until = performance.now() + patienceMs
  let text = ''
  let lastId = '0'
  let most = mostBytes
  for (let cuts = 0; ; cuts += 1) {
    const limit = 1 + random.integer(most)
    const received = await receive(`${baseUrl()}${path}/events`, lastId, limit)
    const frames = (received?.match(/[^]*?\n\n/g) ?? []).map((frame) =>
      frame.replace(/^:.*\n/gm, ''),
    )
    text += frames.join('')
    // A frame may be longer than that.
    most = frames.length > 0 || received === undefined ? mostBytes : 2 * most
    lastId = frames.findLast((frame) => frame.startsWith('id: '))?.match(/\d+/)?.[0] ?? lastId
    if (text.endsWith('event: done\ndata: [DONE]\n\n')) return { text, cuts }
    if (performance.now() > until)
      throw new Error(`Not over in time, ${cuts} cuts; last was ${lastId}`)
    if (received === undefined) await new Promise((resolve) => setTimeout(resolve, 100))
  }
}

/** Up to so many bytes, then the socket is destroyed; undefined where there was no answer. */
function receive(url: string, lastId: string, limit: number): Promise<string | undefined> {
  return new Promise((resolve, reject) => {
    const headers = {
      authorization: 'Bearer test',
      'openai-beta': 'assistants=v2',
      'last-event-id': lastId,
    }
    const request = get(url, { headers, agent: false }, (response) => {
      const chunks: Buffer[] = []
      let length = 0
      const end = (): void => {
        request.destroy()
        // In whole characters: what was cut in the middle of one is in no complete frame.
        resolve(Buffer.concat(chunks).subarray(0, limit).toString('utf8'))
      }
      if (response.statusCode !== 200) {
        reject(new Error(`${url} after ${lastId}: ${response.statusCode}`))
        return
      }
      response.on('data', (chunk: Buffer) => {
        chunks.push(chunk)
        length += chunk.length
        if (length >= limit) end()
      })
      response.on('end', end)
      response.on('error', end)
    })
    request.on('error', () => resolve(undefined))
  })
}
