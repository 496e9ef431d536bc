import { describe, expect, test } from 'vitest'
import * as errors from '../../wire/errors.ts'
import type { ApiError } from '../../wire/errors.ts'

type Row = [ApiError, number, string, string | null, string | null]

const texts: Row[] = [
  [
    errors.missingApiKey(),
    401,
    "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer auth (i.e. Authorization: Bearer YOUR_KEY).",
    null,
    null,
  ],
  [
    errors.missingBetaHeader(),
    400,
    "You must provide the 'OpenAI-Beta' header to access the Assistants API. Please try again by setting the header 'OpenAI-Beta: assistants=v2'.",
    null,
    'invalid_beta',
  ],
  [
    errors.rateLimited(),
    429,
    "You've exceeded the rate limit, please slow down and try again later.",
    null,
    'rate_limit_exceeded',
  ],
  [errors.notFound('thread', 'thread_X'), 404, "No thread found with id 'thread_X'.", null, null],
  [errors.notFound('run step', 'step_X'), 404, "No run step found with id 'step_X'.", null, null],
  [errors.noSuchFile('file-X'), 404, 'No such File object: file-X', 'id', null],
  [errors.unknownRoute(), 404, 'Not found', null, null],
  [
    errors.methodNotAllowed('PUT', '/v1/threads'),
    405,
    'Not allowed to PUT on /v1/threads. (HINT: Perhaps you meant to use a different HTTP method?)',
    null,
    'method_not_supported',
  ],
  [
    errors.threadLockedForMessage('thread_X', 'run_Y'),
    400,
    "Can't add messages to thread_X while a run run_Y is active.",
    null,
    null,
  ],
  [
    errors.threadLockedForRun('thread_X', 'run_Y'),
    400,
    'Thread thread_X already has an active run run_Y.',
    null,
    null,
  ],
  [
    errors.outputsNotAccepted('completed'),
    400,
    'Runs in status "completed" do not accept tool outputs.',
    null,
    null,
  ],
  [
    errors.outputsDoNotMatch(['call_a', 'call_b'], ['call_a']),
    400,
    "Expected tool outputs for call_ids ['call_a', 'call_b'], got ['call_a']",
    null,
    null,
  ],
  [errors.cannotCancel('completed'), 400, "Cannot cancel run with status 'completed'.", null, null],
  [errors.tooLarge(1024), 413, 'Maximum content size limit (1024) exceeded.', null, null],
  [
    errors.wrongContentType('text/plain'),
    415,
    "Unsupported content type: 'text/plain'. This API method only accepts 'application/json' requests, but you specified the header 'Content-Type: text/plain'.",
    null,
    'unsupported_content_type',
  ],
  [
    errors.arrayTooShort('x', 2, 1),
    400,
    "Invalid 'x': array too short. Expected an array with minimum length 2, but got an array with length 1 instead.",
    'x',
    'array_below_min_length',
  ],
  [
    errors.stringTooShort('x', 2, 1),
    400,
    "Invalid 'x': string too short. Expected a string with minimum length 2, but got a string with length 1 instead.",
    'x',
    'string_below_min_length',
  ],
]

test.each(texts)(
  '%s has the words that clients match on',
  (error, status, message, param, code) => {
    expect(errors.envelope(error)).toEqual({
      error: { message, type: 'invalid_request_error', param, code },
    })
    expect(error.status).toBe(status)
  },
)

describe('what is the fault of the server', () => {
  test('is a server_error that the SDKs retry', () => {
    expect(errors.serverError()).toMatchObject({ status: 500, type: 'server_error' })
    expect(errors.unavailable('the database')).toMatchObject({
      status: 503,
      type: 'server_error',
      message: 'Service unavailable: the database cannot be reached. Please try again.',
    })
  })
})

describe('a state that forbids a call', () => {
  test('is never a 409, which the SDKs would send again', () => {
    const refusals = [
      errors.threadLockedForMessage('thread_X', 'run_Y'),
      errors.threadLockedForRun('thread_X', 'run_Y'),
      errors.outputsNotAccepted('expired'),
      errors.outputsDoNotMatch([], []),
      errors.cannotCancel('expired'),
    ]
    expect(refusals.map((error) => error.status)).toEqual([400, 400, 400, 400, 400])
  })
})

describe('a key that is not known', () => {
  test('is shown by its ends only', () => {
    const { message, code } = errors.badApiKey('sk-abcdefghijklmnopqrstuvwxyz')
    expect(message).toContain('Incorrect API key provided: sk-ab***yz.')
    expect(code).toBe('invalid_api_key')
  })

  test('is not shown at all when its ends are most of it', () => {
    expect(errors.badApiKey('sk-abcd').message).toContain('provided: ***.')
    expect(errors.badApiKey('').message).toContain('provided: ***.')
  })
})

describe("a stranger's text inside our sentence", () => {
  test('is cut in the middle when it is long', () => {
    const { message } = errors.notFound('run', `run_${'x'.repeat(100_000)}`)
    expect(message.length).toBeLessThan(200)
    expect(message).toMatch(/^No run found with id 'run_x+\.\.\.x+'\.$/)
  })

  test('is well-formed, so that the answer can be sent', () => {
    const { message } = errors.invalidValue('role', 'a\ud800', ['user'])
    expect(message.isWellFormed()).toBe(true)
  })
})

test('words are joined as the original joins them', () => {
  expect(errors.oneOf([], 'and')).toBe('')
  expect(errors.oneOf(['a'], 'and')).toBe('a')
  expect(errors.oneOf(['a', 'b'], 'or')).toBe('a or b')
  expect(errors.oneOf(['a', 'b', 'c'], 'and')).toBe('a, b, and c')
})
