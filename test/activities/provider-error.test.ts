import { describe, expect, test } from 'vitest'

import { failureOf, ProviderError, retryAfterMs } from '../../activities/provider-error.ts'

describe('how long to wait', () => {
  const now = Date.parse('2026-01-01T00:00:00Z')
  test.each<[Record<string, string>, number | undefined]>([
    [{}, undefined],
    [{ 'retry-after': '2' }, 2000],
    [{ 'retry-after': '0' }, 0],
    [{ 'retry-after': '1.5' }, 1500],
    [{ 'retry-after': 'Thu, 01 Jan 2026 00:00:07 GMT' }, 7000],
    [{ 'retry-after': 'Wed, 31 Dec 2025 00:00:00 GMT' }, 0],
    [{ 'retry-after': 'soon' }, undefined],
    [{ 'retry-after': '-5' }, 0],
    [{ 'retry-after-ms': '250' }, 250],
    [{ 'retry-after-ms': '250', 'retry-after': '9' }, 250],
    [{ 'retry-after-ms': 'soon', 'retry-after': '9' }, 9000],
  ])('%j', (headers, expected) => {
    expect(retryAfterMs(new Headers(headers), now)).toBe(expected)
  })
})

describe('what Temporal is told', () => {
  const busy = (retryAfter?: number) =>
    new ProviderError({
      message: 'Busy.',
      code: 'rate_limit_exceeded',
      retryable: true,
      retryAfterMs: retryAfter,
    })

  test('of an error that may go away: when to try again', () => {
    const { temporal: failure } = failureOf(busy(2000), { number: 1, remainingMs: 60_000 })
    expect(failure).toMatchObject({
      type: 'rate_limit_exceeded',
      nonRetryable: false,
      nextRetryDelay: 2000,
      message: 'Busy. The call was tried once.',
    })
    const { temporal: later } = failureOf(busy(), { number: 4, remainingMs: 60_000 })
    expect(later.nextRetryDelay).toBeUndefined()
    expect(later.message).toBe('Busy. The call was tried 4 times.')
  })

  test('of a wait that is longer than the run may live: that there is no use', () => {
    const { temporal: failure } = failureOf(busy(61_000), { number: 1, remainingMs: 60_000 })
    expect(failure.nonRetryable).toBe(true)
    expect(failure.message).toContain("61 s, which is past the run's deadline")
  })

  test('of an error that stays: that it stays', () => {
    const error = new ProviderError({ message: 'No.', code: 'invalid_prompt', retryable: false })
    const { temporal: failure } = failureOf(error, { number: 1, remainingMs: 60_000 })
    expect(failure).toMatchObject({ type: 'invalid_prompt', nonRetryable: true })
  })

  test('of what a provider said: the run is told it, and the history of operators is not', () => {
    const error = new ProviderError({
      message: "The model 'm' answered 400: 'my secret' is too long.",
      summary: "The model 'm' answered 400.",
      code: 'invalid_prompt',
      retryable: false,
    })
    const { temporal, told } = failureOf(error, { number: 1, remainingMs: 60_000 })
    expect(temporal.message).toBe("The model 'm' answered 400. The call was tried once.")
    expect(temporal.cause).toBeUndefined()
    expect(told.message).toBe(
      "The model 'm' answered 400: 'my secret' is too long. The call was tried once.",
    )
  })
})
