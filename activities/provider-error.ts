import { ApplicationFailure, ApplicationFailureCategory } from '@temporalio/common'
import { APIConnectionError, APIError } from 'openai'

import type { ModelRoute } from '../models.ts'
import type { AttemptFailure } from '../store/rows.ts'
import { storable } from '../wire/storable.ts'

/** Why a model did not answer, in the words of the run's `last_error`. */
export class ProviderError extends Error {
  readonly code: 'server_error' | 'rate_limit_exceeded' | 'invalid_prompt'
  readonly retryable: boolean
  /** The same without what the provider said, which may quote people. */
  readonly summary: string
  /** Milliseconds that the provider asked us to wait. */
  readonly retryAfterMs: number | undefined
  /** Whether a filter stopped the answer. */
  readonly isFiltered: boolean

  constructor(given: {
    message: string
    summary?: string
    code: ProviderError['code']
    retryable: boolean
    retryAfterMs?: number | undefined
    isFiltered?: boolean
    cause?: unknown
  }) {
    // It quotes a stranger, and must not fail to be kept for it.
    super(storable(given.message), { cause: given.cause })
    this.name = 'ProviderError'
    this.summary = given.summary ?? this.message
    this.code = given.code
    this.retryable = given.retryable
    this.retryAfterMs = given.retryAfterMs
    this.isFiltered = given.isFiltered ?? false
  }
}

/**
 * The error as Temporal retries it, after the time that the provider asked for and never past the run's deadline; and as
 * the run's `last_error` tells it. Temporal's history is read by operators, so it gets the summary. `most`: how many attempts
 * there are, where it is known.
 */
export function failureOf(
  error: ProviderError,
  attempt: { number: number; most?: number | undefined; remainingMs: number },
): { temporal: ApplicationFailure; told: AttemptFailure } {
  const waitMs = error.retryAfterMs
  const isTooLate = waitMs !== undefined && waitMs >= attempt.remainingMs
  const retried = error.retryable && !isTooLate
  const tries = attempt.number === 1 ? 'once' : `${attempt.number} times`
  const end = isTooLate
    ? `It asked to wait ${Math.ceil(waitMs / 1000)} s, which is past the run's deadline.`
    : `The call was tried ${tries}.`
  const temporal = ApplicationFailure.create({
    message: `${error.summary} ${end}`,
    type: error.code,
    nonRetryable: !retried,
    nextRetryDelay: retried ? waitMs : undefined,
    // A provider that is busy is no fault of ours: Temporal keeps it out of the error metrics.
    category: ApplicationFailureCategory.BENIGN,
  })
  const isFinal = !retried || attempt.number === attempt.most
  const told = {
    code: error.code,
    message: `${error.message} ${end}`,
    ...(isFinal && { is_final: true }),
    ...(!isFinal && waitMs !== undefined && { retry_at_ms: Date.now() + waitMs }),
    ...(error.isFiltered && { is_filtered: true }),
  }
  return { temporal, told }
}

/** The answer ended without saying why: the connection was closed in the middle, politely. */
export function cutAnswer(route: ModelRoute): ProviderError {
  return new ProviderError({
    message: `The answer of ${modelAt(route, 'the')} was cut off before its end.`,
    code: 'server_error',
    retryable: true,
  })
}

/** Nothing that a model says: mostly the address is wrong, and will be when it is asked again. */
export function noAnswer(
  answer: { kind: 'empty' } | { kind: 'other'; type: string; beginning: string },
  status: number,
  route: ModelRoute,
): ProviderError {
  const isEmpty = answer.kind === 'empty'
  const what = `${isEmpty ? 'nothing' : answer.type} instead of an event stream`
  const summary = `${modelAt(route)} answered ${status} with ${what}`
  return new ProviderError({
    message: isEmpty ? `${summary}.` : `${summary}: ${told(answer.beginning)}`,
    summary: `${summary}.`,
    code: 'server_error',
    retryable: isEmpty,
  })
}

/** Nothing came for so long. */
export function silence(idleTimeoutMs: number, route: ModelRoute): ProviderError {
  return new ProviderError({
    message: `${modelAt(route)} was silent for ${idleTimeoutMs / 1000} s.`,
    code: 'server_error',
    retryable: true,
  })
}

/** Of whatever the client or the connection threw. */
export function providerError(error: unknown, route: ModelRoute): ProviderError {
  if (error instanceof ProviderError) return error
  if (error instanceof APIError && error.status !== undefined) {
    return httpError(error, error.status, route)
  }
  const isConnection = error instanceof APIConnectionError
  if (error instanceof APIError && !isConnection) {
    return new ProviderError({
      message: `${modelAt(route)} broke off: ${detailOf(error)}`,
      summary: `${modelAt(route)} broke off with an error.`,
      code: 'server_error',
      retryable: true,
      cause: error,
    })
  }
  const reason = isConnection ? (error.cause ?? error) : error
  const failed = `The connection to ${modelAt(route, 'the')} failed`
  return new ProviderError({
    message: `${failed}: ${rootOf(reason)}.`,
    summary: `${failed}.`,
    code: 'server_error',
    retryable: true,
    cause: error,
  })
}

/** With several providers people must see which it was. Only the host: a path or a user may be a secret. */
function modelAt({ upstreamName, baseUrl }: ModelRoute, article = 'The'): string {
  return `${article} model '${upstreamName}' at ${new URL(baseUrl).host}`
}

/** A refused connection, a name that is not known, a certificate. */
function rootOf(reason: unknown): string {
  if (!(reason instanceof Error)) return String(reason)
  // One error for each address that was tried.
  const [first]: unknown[] = reason instanceof AggregateError ? reason.errors : []
  const below = reason.cause ?? first
  if (below instanceof Error) return rootOf(below)
  // Node's word for what the other side did; people read of it, who aborted nothing.
  if (reason.message === 'aborted') return 'it was closed in the middle of the answer'
  const code = 'code' in reason && typeof reason.code === 'string' ? reason.code : ''
  return code === '' || reason.message.includes(code)
    ? reason.message
    : `${reason.message} (${code})`
}

function httpError(error: APIError, status: number, route: ModelRoute): ProviderError {
  const headers = error.headers
  const requestId = headers?.get('x-request-id')
  const from = requestId ? `${status}, request ${requestId}` : `${status}`
  return new ProviderError({
    message: `${modelAt(route)} answered ${from}: ${detailOf(error)}`,
    summary: `${modelAt(route)} answered ${from}.`,
    code: codeOf(error, status),
    retryable: isRetryable(error, status, headers),
    retryAfterMs: retryAfterMs(headers),
    cause: error,
  })
}

/** What the provider said, without the status that the package puts in front. */
function detailOf(error: APIError): string {
  return told(error.message.replace(/^\d{3} /, ''))
}

function told(text: string): string {
  // Providers repeat a key that they refuse; clients of ours are not to have it.
  const said = text.replace(/\bsk-[\w-]{4,}/g, 'sk-***').slice(0, 2000)
  return /[.!?]$/.test(said) ? said : `${said}.`
}

function codeOf(error: APIError, status: number): ProviderError['code'] {
  if (status === 429) return 'rate_limit_exceeded'
  const isAboutThePrompt = status === 400 || status === 413 || status === 422
  return isAboutThePrompt ||
    error.code === 'context_length_exceeded' ||
    error.code === 'content_filter'
    ? 'invalid_prompt'
    : 'server_error'
}

function isRetryable(error: APIError, status: number, headers: Headers | undefined): boolean {
  const said = headers?.get('x-should-retry')
  if (said === 'true' || said === 'false') return said === 'true'
  // A quota that is used up is a 429 that no waiting helps.
  if (error.code === 'insufficient_quota' || error.type === 'insufficient_quota') return false
  return status === 408 || status === 409 || status === 429 || status >= 500
}

/** `retry-after-ms`, else `retry-after` in seconds or as an HTTP date. */
export function retryAfterMs(headers: Headers | undefined, now = Date.now()): number | undefined {
  const ms = Number(headers?.get('retry-after-ms') ?? Number.NaN)
  if (ms >= 0) return ms
  const value = headers?.get('retry-after')
  if (!value) return undefined
  const seconds = Number(value)
  const waitMs = Number.isNaN(seconds) ? Date.parse(value) - now : seconds * 1000
  return Number.isNaN(waitMs) ? undefined : Math.max(0, waitMs)
}
