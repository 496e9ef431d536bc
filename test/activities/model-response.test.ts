import { expect, test } from 'vitest'

import { readResponse } from '../../activities/model-response.ts'

const piece = new TextEncoder().encode('x'.repeat(1024 * 1024))

test('an event that never ends is given up, and not held in memory for ever', async () => {
  let sent = 0
  const body = new ReadableStream<Uint8Array>({
    pull(controller) {
      sent += 1
      controller.enqueue(sent === 1 ? new TextEncoder().encode('data: ') : piece)
      // So that this test ends where nobody gives up.
      if (sent > 80) controller.close()
    },
  })
  const headers = { 'content-type': 'text/event-stream' }
  const answer = await readResponse(new Response(body, { headers }), () => {})
  if (answer.kind !== 'stream') throw new Error(answer.kind)
  const read = async (): Promise<void> => {
    for await (const events of answer.events) expect(events).toEqual([])
  }
  await expect(read()).rejects.toThrow('an event has no end')
  expect(sent).toBeLessThan(70)
})
