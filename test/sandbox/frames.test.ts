import { randomBytes } from 'node:crypto'

import { expect, test } from 'vitest'

import { createFrameCodec } from '../../sandbox/frames.ts'

const parse = (message: unknown) => message

function pair(key = randomBytes(32)) {
  const host = createFrameCodec({ key, sends: 'H', receives: 'S', parse })
  const supervisor = createFrameCodec({ key, sends: 'S', receives: 'H', parse })
  return { host, supervisor }
}

const bytes = (text: string) => Buffer.from(text, 'latin1')

test('what one side encodes is what the other decodes', () => {
  const { host, supervisor } = pair()
  const message = { t: 'exec', code: 'print("\u0000\u001B[1m\u007f ü 😀 \ud800")\n' }
  expect(host.decode(bytes(supervisor.encode(message)))).toEqual([message])
  expect(supervisor.decode(bytes(host.encode(message)))).toEqual([message])
})

test('a frame is printable ASCII between two newlines', () => {
  const { host } = pair()
  expect(host.encode({ code: '\u0003\u0011\u0010\u007f\u0080ü\u2028😀' })).toMatch(/^\n[ -~]+\n$/)
})

test('frames come whole out of any cuts', () => {
  const { host, supervisor } = pair()
  const stream = bytes([1, 2, 3].map((n) => supervisor.encode({ n })).join(''))
  const received = [...stream].flatMap((byte) => host.decode(Buffer.from([byte])))
  expect(received).toEqual([{ n: 1 }, { n: 2 }, { n: 3 }])
})

test.each([
  ['forged with another key', () => pair().supervisor.encode({ n: 0 })],
  ['with a mac of zeros', () => `\n~${'0'.repeat(32)} [1,{"n":0}]\n`],
  ['with no mac', () => '\n~ [1,{"n":0}]\n'],
])('a frame %s is counted and not delivered', (_, forged) => {
  const { host, supervisor } = pair()
  expect(host.decode(bytes(forged()))).toEqual([])
  expect(host.badFrames).toBe(1)
  expect(host.decode(bytes(supervisor.encode({ n: 1 })))).toEqual([{ n: 1 }])
})

test('a frame whose message was changed is not delivered', () => {
  const { host, supervisor } = pair()
  expect(host.decode(bytes(supervisor.encode({ n: 1 }).replace('"n":1', '"n":2')))).toEqual([])
  expect(host.badFrames).toBe(1)
})

test('a frame that is replayed is not delivered again', () => {
  const { host, supervisor } = pair()
  const frame = bytes(supervisor.encode({ n: 1 }))
  expect(host.decode(frame)).toEqual([{ n: 1 }])
  expect(host.decode(frame)).toEqual([])
  expect(host.badFrames).toBe(1)
})

test('a frame that is overtaken is not delivered late', () => {
  const { host, supervisor } = pair()
  const first = bytes(supervisor.encode({ n: 1 }))
  expect(host.decode(bytes(supervisor.encode({ n: 2 })))).toEqual([{ n: 2 }])
  expect(host.decode(first)).toEqual([])
})

test('an echo of what one has sent oneself is not delivered', () => {
  const { host } = pair()
  expect(host.decode(bytes(host.encode({ n: 1 })))).toEqual([])
  expect(host.badFrames).toBe(1)
})

test('after a frame that was cut the next one is delivered', () => {
  const { host, supervisor } = pair()
  const cut = supervisor.encode({ n: 1 }).slice(0, -5)
  expect(host.decode(bytes(cut + supervisor.encode({ n: 2 })))).toEqual([{ n: 2 }])
  expect(host.badFrames).toBe(1)
})

test('noise between frames is counted, shown and harmless', () => {
  const noise: string[] = []
  const key = randomBytes(32)
  const host = createFrameCodec({
    key,
    sends: 'H',
    receives: 'S',
    parse,
    onNoise: (line) => noise.push(line),
  })
  const { supervisor } = pair(key)
  const received = host.decode(bytes(`hello${supervisor.encode({ n: 1 })}bwrap: no\n`))
  expect(received).toEqual([{ n: 1 }])
  expect(noise).toEqual(['hello', 'bwrap: no'])
  expect(host.noiseBytes).toBe('hellobwrap: no'.length)
})

test('a line without an end does not grow in memory, and what follows it is delivered', () => {
  const { host, supervisor } = pair()
  const flood = Buffer.alloc(1024 * 1024, 'a')
  for (let round = 0; round < 8; round += 1) expect(host.decode(flood)).toEqual([])
  expect(host.noiseBytes).toBeGreaterThan(6 * flood.length)
  expect(host.decode(bytes(supervisor.encode({ n: 1 })))).toEqual([{ n: 1 }])
})
