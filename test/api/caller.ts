import type { TestServer } from '../support/server.ts'

/** An answer as it came over HTTP; the official client would throw what tests want to look at. */
export interface Answer {
  status: number
  headers: Headers
  body: Body
  text: string
}

/** Loose on purpose: tests say what they expect of it. */
export type Body = Record<string, unknown> & {
  id: string
  data: Body[]
  error: { message: string; type: string; param: string | null; code: string | null }
}

export interface CallOptions {
  /** Beside or in place of the usual ones; `undefined` leaves one out. */
  headers?: Record<string, string | undefined>
  /** The body as it goes over the wire, in place of JSON. */
  raw?: string | Uint8Array<ArrayBuffer>
  signal?: AbortSignal
}

export type Caller = ReturnType<typeof createCaller>

/** Calls paths below `/v1` with the headers that clients send. */
export function createCaller(
  { baseUrl }: Pick<TestServer, 'baseUrl'>,
  key = 'any',
  dialect: 'v1' | 'v2' = 'v2',
) {
  const send = async (
    method: string,
    path: string,
    body?: unknown,
    { headers = {}, raw, signal }: CallOptions = {},
  ): Promise<Answer> => {
    const sent = raw ?? (body === undefined ? undefined : JSON.stringify(body))
    const all = {
      authorization: `Bearer ${key}`,
      'openai-beta': `assistants=${dialect}`,
      ...(sent !== undefined && { 'content-type': 'application/json' }),
      ...headers,
    }
    const given = Object.entries(all).filter(
      (pair): pair is [string, string] => pair[1] !== undefined,
    )
    const answer = await fetch(`${baseUrl}${path}`, {
      method,
      headers: given,
      ...(sent !== undefined && { body: sent }),
      ...(signal && { signal }),
    })
    const text = await answer.text()
    const isJson = /^application\/json\b/.test(answer.headers.get('content-type') ?? '')
    return {
      status: answer.status,
      headers: answer.headers,
      body: (isJson ? JSON.parse(text) : {}) as Body,
      text,
    }
  }
  return {
    send,
    get: (path: string, options?: CallOptions) => send('GET', path, undefined, options),
    post: (path: string, body?: unknown, options?: CallOptions) =>
      send('POST', path, body, options),
    delete: (path: string, options?: CallOptions) => send('DELETE', path, undefined, options),
    /** The body of a POST that must succeed. */
    async make(path: string, body?: unknown): Promise<Body> {
      const answer = await send('POST', path, body)
      if (answer.status !== 200) throw new Error(`POST ${path}: ${answer.status} ${answer.text}`)
      return answer.body
    },
    /** The body of a GET that must succeed. */
    async read(path: string): Promise<Body> {
      const answer = await send('GET', path)
      if (answer.status !== 200) throw new Error(`GET ${path}: ${answer.status} ${answer.text}`)
      return answer.body
    },
    /** A run once it has settled: the server holds the answer until then. */
    async settled(threadId: unknown, runId: unknown): Promise<Body> {
      for (;;) {
        const { body, status } = await send(
          'GET',
          `/threads/${String(threadId)}/runs/${String(runId)}`,
          undefined,
          { headers: { 'x-stainless-poll-helper': 'true' } },
        )
        if (status !== 200 || !/^(queued|in_progress|cancelling)$/.test(String(body['status'])))
          return body
      }
    },
  }
}

/** An error's status and its envelope, in the form in which tests write them down. */
export function refusal({ status, body }: Answer): Refusal {
  return { status, ...body.error }
}

type Refusal = { status: number } & Body['error']

/** What the answer of a refused request must be, but for a type that is nearly always this one. */
export function refused(
  status: number,
  message: string,
  param: string | null = null,
  code: string | null = null,
): Refusal {
  return { status, message, type: 'invalid_request_error', param, code }
}
