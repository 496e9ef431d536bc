import { expect, test } from 'vitest'

import { createRooms } from '../../activities/rooms.ts'

const { signal } = new AbortController()

test('no more are taken than there are, and who comes later gets one in the order of the line', async () => {
  let waits = 0
  const rooms = createRooms(2, () => (waits += 1))
  const order: number[] = []
  const takers = [1, 2, 3, 4].map(async (n) => {
    await rooms.take(signal)
    order.push(n)
  })
  await Promise.all(takers.slice(0, 2))
  expect([order, waits, rooms.waiting()]).toEqual([[1, 2], 2, 2])
  rooms.leave()
  await takers[2]
  expect(order).toEqual([1, 2, 3])
  rooms.leave()
  await takers[3]
  rooms.leave()
  rooms.leave()
  await rooms.take(signal)
  expect(rooms.waiting()).toBe(0)
})

test('who gives up waiting leaves the line, and takes no room', async () => {
  const rooms = createRooms(1, () => {})
  await rooms.take(signal)
  const giving = new AbortController()
  const given = rooms.take(giving.signal)
  const next = rooms.take(signal)
  giving.abort('enough')
  await expect(given).rejects.toBe('enough')
  rooms.leave()
  await next
  expect(rooms.waiting()).toBe(0)
})
