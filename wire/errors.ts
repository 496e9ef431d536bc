/**
 * What an HTTP caller is told when a request is refused. The texts are those that the original service is known to send,
 * because clients match on them; where a text is ours the factory says so.
 */
export class ApiError extends Error {
  status: number
  type: ErrorType
  param: string | null
  code: string | null
  /** An id of the body that names nothing: the answer says where in the body it stands. */
  refersTo: string | undefined

  constructor(status: number, message: string, detail: ErrorDetail = {}) {
    super(message)
    this.name = 'ApiError'
    this.status = status
    this.type = detail.type ?? 'invalid_request_error'
    this.param = detail.param ?? null
    this.code = detail.code ?? null
    this.refersTo = detail.refersTo
  }
}

export type ErrorType = 'invalid_request_error' | 'server_error'

export type ErrorDetail = {
  type?: ErrorType
  param?: string | null
  code?: string | null
  refersTo?: string
}

export type ErrorEnvelope = {
  error: { message: string; type: string; param: string | null; code: string | null }
}

/** The codes of a failed run's `last_error`: the run's own outcome, never an HTTP error. */
export type RunFailureCode = 'server_error' | 'rate_limit_exceeded' | 'invalid_prompt'

export function envelope(error: ApiError): ErrorEnvelope {
  const { message, type, param, code } = error
  return { error: { message, type, param, code } }
}

// --- the caller -----------------------------------------------------------------------------

export function missingApiKey(): ApiError {
  return new ApiError(
    401,
    "You didn't provide an API key. You need to provide your API key in an Authorization header " +
      'using Bearer auth (i.e. Authorization: Bearer YOUR_KEY).',
  )
}

/** The second sentence is ours: the original sends the reader to its own website. */
export function badApiKey(key: string): ApiError {
  return new ApiError(
    401,
    `Incorrect API key provided: ${masked(key)}. Ask whoever runs this server for a valid key.`,
    { code: 'invalid_api_key' },
  )
}

export function missingBetaHeader(): ApiError {
  return new ApiError(
    400,
    "You must provide the 'OpenAI-Beta' header to access the Assistants API. " +
      "Please try again by setting the header 'OpenAI-Beta: assistants=v2'.",
    { code: 'invalid_beta' },
  )
}

export function rateLimited(): ApiError {
  return new ApiError(
    429,
    "You've exceeded the rate limit, please slow down and try again later.",
    { code: 'rate_limit_exceeded' },
  )
}

// --- what the path names --------------------------------------------------------------------

export type NamedKind =
  | 'assistant'
  | 'assistant file'
  | 'thread'
  | 'message'
  | 'message file'
  | 'run'
  | 'run step'
  | 'upload'

export function notFound(kind: NamedKind, id: string): ApiError {
  return new ApiError(404, `No ${kind} found with id '${shown(id)}'.`)
}

export function modelNotFound(name: string): ApiError {
  return new ApiError(
    404,
    `The model '${shown(name)}' does not exist or you do not have access to it.`,
    { param: 'model', code: 'model_not_found' },
  )
}

/** For what endpoints keep; the text for chat completions is by analogy. */
export function passedObjectNotFound(kind: 'Response' | 'Chat completion', id: string): ApiError {
  return new ApiError(404, `${kind} with id '${shown(id)}' not found.`)
}

/** A 400 in the original too. */
export function previousResponseNotFound(id: string): ApiError {
  return new ApiError(400, `Previous response with id '${shown(id)}' not found.`, {
    param: 'previous_response_id',
    code: 'previous_response_not_found',
  })
}

export function noSuchFile(id: string): ApiError {
  return new ApiError(404, `No such File object: ${shown(id)}`, { param: 'id', refersTo: id })
}

export function vectorStoreNotFound(id: string): ApiError {
  return new ApiError(404, `Vector store with id ['${shown(id)}'] not found.`, { refersTo: id })
}

export function unknownRoute(): ApiError {
  return new ApiError(404, 'Not found')
}

export function methodNotAllowed(method: string, path: string): ApiError {
  return new ApiError(
    405,
    `Not allowed to ${shown(method)} on ${shown(path)}. ` +
      '(HINT: Perhaps you meant to use a different HTTP method?)',
    { code: 'method_not_supported' },
  )
}

// --- the state of threads and runs: always 400, the SDKs would retry a 409 -------------------

export function threadLockedForMessage(threadId: string, runId: string): ApiError {
  return new ApiError(400, `Can't add messages to ${threadId} while a run ${runId} is active.`)
}

export function threadLockedForRun(threadId: string, runId: string): ApiError {
  return new ApiError(400, `Thread ${threadId} already has an active run ${runId}.`)
}

/** Ours: only those wait that asked for it. */
export function tooManyWaitingRuns(threadId: string, maximum: number): ApiError {
  return new ApiError(
    400,
    `Thread ${threadId} already has ${maximum} runs that wait for its active run, which is the maximum. ` +
      "Wait until one of them has begun, cancel one, or create the run with 'on_active_run' set to " +
      "'interrupt', which cancels all of them.",
    { param: 'on_active_run', code: 'too_many_waiting_runs' },
  )
}

export function outputsNotAccepted(status: string): ApiError {
  return new ApiError(400, `Runs in status "${status}" do not accept tool outputs.`)
}

export function outputsDoNotMatch(expected: string[], got: string[]): ApiError {
  return new ApiError(
    400,
    `Expected tool outputs for call_ids ${idList(expected)}, got ${idList(got)}`,
  )
}

export function cannotCancel(status: string): ApiError {
  return new ApiError(400, `Cannot cancel run with status '${status}'.`)
}

// --- the body and the query -----------------------------------------------------------------

/** The hint is ours: the original's continues with its help centre. */
export function badJson(): ApiError {
  return new ApiError(
    400,
    'We could not parse the JSON body of your request. (HINT: This likely means you ' +
      "aren't using your HTTP library correctly. The API expects a JSON payload, but what was " +
      'sent was not valid JSON.)',
  )
}

/** The second half of the original's text counts what it read; we stop reading at the limit. */
export function tooLarge(limitBytes: number): ApiError {
  return new ApiError(413, `Maximum content size limit (${limitBytes}) exceeded.`)
}

export function wrongContentType(contentType: string, accepted = 'application/json'): ApiError {
  return new ApiError(
    415,
    `Unsupported content type: '${shown(contentType)}'. ` +
      `This API method only accepts '${accepted}' requests, but you specified the header ` +
      `'Content-Type: ${shown(contentType)}'.`,
    { code: 'unsupported_content_type' },
  )
}

/** What the endpoints of models say; those of assistants have the words of `missingParameter`. */
export function missingModel(): ApiError {
  return new ApiError(400, 'you must provide a model parameter')
}

/** Ours. */
export function badMultipart(): ApiError {
  return new ApiError(400, 'We could not parse the multipart form data of your request.')
}

export function unknownParameter(path: string): ApiError {
  return new ApiError(400, `Unknown parameter: '${path}'.`, {
    param: path,
    code: 'unknown_parameter',
  })
}

export function missingParameter(path: string): ApiError {
  return new ApiError(400, `Missing required parameter: '${path}'.`, {
    param: path,
    code: 'missing_required_parameter',
  })
}

/** `expected` and `got` come with their article: 'a string', 'one of a string or array of objects'. */
export function invalidType(path: string, expected: string, got: string): ApiError {
  return new ApiError(
    400,
    `Invalid type for '${path}': expected ${expected}, but got ${got} instead.`,
    { param: path, code: 'invalid_type' },
  )
}

/** An enum that does not know the value. */
export function invalidValue(path: string, value: string, supported: string[]): ApiError {
  const values = supported.map((one) => `'${one}'`)
  const sentence =
    values.length === 1
      ? `Supported values are: ${values[0]}.`
      : `Supported values are: ${oneOf(values, 'and')}.`
  return new ApiError(400, `Invalid value: '${shown(value)}'. ${sentence}`, {
    param: path,
    code: 'invalid_value',
  })
}

/** A value of the right type that breaks a rule which `rule` states as a whole sentence. */
export function invalidParameter(path: string, rule: string): ApiError {
  return new ApiError(400, `Invalid '${path}': ${rule}`, { param: path, code: 'invalid_value' })
}

export function patternMismatch(path: string, pattern: string): ApiError {
  return invalidParameter(
    path,
    `string does not match pattern. Expected a string that matches the pattern '${pattern}'.`,
  )
}

export function integerAbove(path: string, maximum: number, got: number): ApiError {
  return above('integer', path, maximum, got)
}

export function integerBelow(path: string, minimum: number, got: number): ApiError {
  return below('integer', path, minimum, got)
}

export function decimalAbove(path: string, maximum: number, got: number): ApiError {
  return above('decimal', path, maximum, got)
}

export function decimalBelow(path: string, minimum: number, got: number): ApiError {
  return below('decimal', path, minimum, got)
}

export function stringTooLong(path: string, maximum: number, got: number): ApiError {
  return new ApiError(
    400,
    `Invalid '${path}': string too long. Expected a string with maximum length ${maximum}, ` +
      `but got a string with length ${got} instead.`,
    { param: path, code: 'string_above_max_length' },
  )
}

export function stringTooShort(path: string, minimum: number, got: number): ApiError {
  const empty = got === 0
  return new ApiError(
    400,
    `Invalid '${path}': ${empty ? 'empty string' : 'string too short'}. ` +
      `Expected a string with minimum length ${minimum}, ` +
      `but got ${empty ? 'an empty string' : `a string with length ${got}`} instead.`,
    { param: path, code: empty ? 'empty_string' : 'string_below_min_length' },
  )
}

export function arrayTooLong(path: string, maximum: number, got: number): ApiError {
  return new ApiError(
    400,
    `Invalid '${path}': array too long. Expected an array with maximum length ${maximum}, ` +
      `but got an array with length ${got} instead.`,
    { param: path, code: 'array_above_max_length' },
  )
}

export function arrayTooShort(path: string, minimum: number, got: number): ApiError {
  const empty = got === 0
  return new ApiError(
    400,
    `Invalid '${path}': ${empty ? 'empty array' : 'array too short'}. ` +
      `Expected an array with minimum length ${minimum}, ` +
      `but got ${empty ? 'an empty array' : `an array with length ${got}`} instead.`,
    { param: path, code: empty ? 'empty_array' : 'array_below_min_length' },
  )
}

export function tooManyProperties(path: string, maximum: number, got: number): ApiError {
  return new ApiError(
    400,
    `Invalid '${path}': too many properties. Expected an object with at most ${maximum} ` +
      `properties, but got an object with ${got} properties instead.`,
    { param: path, code: 'object_above_max_properties' },
  )
}

export function propertyNameTooLong(
  path: string,
  name: string,
  maximum: number,
  got: number,
): ApiError {
  return new ApiError(
    400,
    `Invalid property name in '${path}': '${shown(name)}' is too long. ` +
      `Expected a string with maximum length ${maximum}, ` +
      `but got a string with length ${got} instead.`,
    { param: path, code: 'string_above_max_length' },
  )
}

export function mutuallyExclusive(path: string, one: string, other: string): ApiError {
  return new ApiError(
    400,
    `Mutually exclusive parameters: '${path}'. ` +
      `Ensure you are only providing one of: '${one}' or '${other}'.`,
    { param: path, code: 'mutually_exclusive_parameters' },
  )
}

export function invalidId(path: string, value: string, prefix: string): ApiError {
  return invalidParameter(path, `'${shown(value)}'. Expected an ID that begins with '${prefix}'.`)
}

export function invalidIdCharacters(path: string, value: string): ApiError {
  return invalidParameter(
    path,
    `'${shown(value)}'. Expected an ID that contains letters, numbers, underscores, or dashes, ` +
      'but this value contained additional characters.',
  )
}

/** Ours: the database cannot hold U+0000 or half of a surrogate pair. */
export function unstorableText(path: string, what: string): ApiError {
  return invalidParameter(path, `the text contains ${what}, which cannot be stored.`)
}

/** Ours: the original's limit is not known. */
export function tooDeep(path: string, maximum: number): ApiError {
  return invalidParameter(
    path,
    `nested too deeply. Expected at most ${maximum} levels of objects and arrays.`,
  )
}

/** Only for a message's text; an empty list of parts has the words of an empty array. */
export function emptyContent(path: string): ApiError {
  return new ApiError(400, 'Message content must be non-empty.', { param: path })
}

export function invalidUrl(path: string): ApiError {
  return new ApiError(
    400,
    `Invalid '${path}'. Expected a valid URL, but got a value with an invalid format.`,
    { param: path, code: 'invalid_value' },
  )
}

/** `rule` is a whole sentence. */
export function invalidFunctionSchema(path: string, name: string, rule: string): ApiError {
  return new ApiError(400, `Invalid schema for function '${shown(name)}': ${rule}`, {
    param: path,
    code: 'invalid_function_parameters',
  })
}

/** `why` is a whole sentence. The words are those of chat completions. */
export function badToolChoice(why: string): ApiError {
  return new ApiError(400, `Invalid value for 'tool_choice': ${why}`, { param: 'tool_choice' })
}

// --- files and uploads ----------------------------------------------------------------------

/** Forms are refused in other words than JSON bodies. */
export function missingFormField(name: string): ApiError {
  return new ApiError(400, `'${name}' is a required property`)
}

export function unknownFormField(name: string): ApiError {
  return new ApiError(
    400,
    `Additional properties are not allowed ('${shown(name)}' was unexpected)`,
  )
}

export function badPurpose(value: string, purposes: readonly string[]): ApiError {
  const values = purposes.map((one) => `'${one}'`).join(', ')
  return new ApiError(400, `'${shown(value)}' is not one of [${values}] - 'purpose'`, {
    param: 'purpose',
  })
}

export function contentRefused(purpose: string): ApiError {
  return new ApiError(400, `Not allowed to download files of purpose: ${purpose}`)
}

/** Ours, like the rest of this section. */
export function rangeNotSatisfiable(sizeBytes: number): ApiError {
  return new ApiError(416, `The requested range is not within the ${sizeBytes} bytes of the file.`)
}

/** `action` as in 'add parts to'; the form is that of `cannotCancel`. */
export function uploadNotPending(action: string, status: string): ApiError {
  return new ApiError(400, `Cannot ${action} upload with status '${status}'.`)
}

export function uploadTooLarge(maximum: number, got: number): ApiError {
  return new ApiError(
    400,
    `The parts of an upload may have ${maximum} bytes in all, and with this one they would have ${got}.`,
    { param: 'data' },
  )
}

export function partNotFound(id: string, uploadId: string, partIds: string[]): ApiError {
  const isTwice = partIds.indexOf(id) !== partIds.lastIndexOf(id)
  return new ApiError(
    400,
    isTwice
      ? `Part '${shown(id)}' is named more than once.`
      : `No part found with id '${shown(id)}' in upload '${uploadId}'.`,
    { param: 'part_ids', code: 'invalid_value', refersTo: id },
  )
}

export function bytesOfPartsDiffer(announced: number, got: number): ApiError {
  return new ApiError(
    400,
    `The upload was created for ${announced} bytes, but the parts named have ${got} bytes in all.`,
    { param: 'part_ids', code: 'invalid_value' },
  )
}

export function md5Differs(expected: string, got: string): ApiError {
  return new ApiError(
    400,
    `The md5 checksum of the uploaded bytes is '${got}', but '${expected}' was expected.`,
    { param: 'md5', code: 'invalid_value' },
  )
}

/** Ours: a search of the list of threads that leaves too many of them. */
export function searchTooWide(): ApiError {
  return new ApiError(
    400,
    'The search takes too long: too many threads fit. Add a filter, a range of time, or a rarer word.',
    { code: 'search_too_wide' },
  )
}

/** Ours: a sum of usage over more days and models than one answer holds. */
export function usageTooWide(maximum: number): ApiError {
  return new ApiError(
    400,
    `The usage that you asked for has more than ${maximum} rows, one for each day and model. ` +
      "Ask for fewer days with 'from' and 'to', or for an assistant or a thread with 'kind' and 'id'.",
    { param: 'from', code: 'usage_too_wide' },
  )
}

/** Ours: a filter of the list of stored chat completions that leaves too few of them. */
export function filterTooNarrow(looked: number): ApiError {
  return new ApiError(
    400,
    `The filter by metadata is too narrow: none of ${looked} stored chat completions fits. ` +
      "Name their 'model', or begin further on with 'after'.",
    { param: 'metadata', code: 'filter_too_narrow' },
  )
}

// --- the server -----------------------------------------------------------------------------

export function serverError(): ApiError {
  return new ApiError(
    500,
    'The server had an error while processing your request. Sorry about that!',
    { type: 'server_error' },
  )
}

/** Ours. */
export function storageFull(): ApiError {
  return new ApiError(507, 'The storage of this server is full, so nothing was written.', {
    type: 'server_error',
    code: 'storage_full',
  })
}

/** Ours: somebody else removed them. */
export function bytesMissing(): ApiError {
  return new ApiError(500, 'The bytes of this file are missing from the storage of this server.', {
    type: 'server_error',
    code: 'bytes_missing',
  })
}

/** Ours. `what` is the part that is away, as a noun phrase: 'the database'. The SDKs retry a 503. */
export function unavailable(what: string): ApiError {
  return new ApiError(503, `Service unavailable: ${what} cannot be reached. Please try again.`, {
    type: 'server_error',
  })
}

/** Ours, and nobody is left to read it: the client closed the connection before there was an answer. */
export function clientGone(): ApiError {
  return new ApiError(499, 'The client closed the connection.')
}

/** Ours. `did` is what the endpoint did instead of answering: 'broke off without an answer'. The SDKs retry a 502. */
export function brokenUpstream(did: string): ApiError {
  return new ApiError(502, `The endpoint of the model ${did}.`, { type: 'server_error' })
}

// --- words ----------------------------------------------------------------------------------

/** 'a', 'b', and 'c' */
export function oneOf(words: string[], conjunction: 'and' | 'or'): string {
  if (words.length < 3) return words.join(` ${conjunction} `)
  return `${words.slice(0, -1).join(', ')}, ${conjunction} ${words.at(-1)}`
}

/** A stranger's text inside our sentence: long ones are cut as the original does ("pre..._id"). */
export function shown(text: string): string {
  const short = text.length <= 128 ? text : `${text.slice(0, 61)}...${text.slice(-61)}`
  return short.toWellFormed()
}

type NumberKind = 'integer' | 'decimal'

function above(kind: NumberKind, path: string, maximum: number, got: number): ApiError {
  return new ApiError(
    400,
    `Invalid '${path}': ${kind} above maximum value. ` +
      `Expected a value <= ${maximum}, but got ${got} instead.`,
    { param: path, code: `${kind}_above_max_value` },
  )
}

function below(kind: NumberKind, path: string, minimum: number, got: number): ApiError {
  return new ApiError(
    400,
    `Invalid '${path}': ${kind} below minimum value. ` +
      `Expected a value >= ${minimum}, but got ${got} instead.`,
    { param: path, code: `${kind}_below_min_value` },
  )
}

function idList(ids: string[]): string {
  return `[${ids.map((id) => `'${shown(id)}'`).join(', ')}]`
}

function masked(key: string): string {
  const clean = key.replace(/[^\x21-\x7e]/g, '?')
  return clean.length < 8 ? '***' : `${clean.slice(0, 5)}***${clean.slice(-2)}`
}
