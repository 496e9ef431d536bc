import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from 'node:http'
import { buffer } from 'node:stream/consumers'

import { errorBody, sendJson } from '../../local/chat-completions.ts'

/** What the scripted model serves beside chat completions: whatever a test gives it a handler for. */
export interface Endpoints {
  serve: (route: string, handler: EndpointHandler) => void
  /** Every request, in order of arrival. */
  requests: EndpointRequest[]
  answer: (request: IncomingMessage, response: ServerResponse) => Promise<void>
}

export interface EndpointRequest {
  /** `POST /embeddings` */
  route: string
  query: URLSearchParams
  headers: IncomingHttpHeaders
  bytes: Buffer
  json: () => Record<string, unknown>
  form: () => Promise<FormData>
  /** Resolves when the exchange is over: whether the whole answer was written before. */
  closed: Promise<'finished' | 'closed by the client'>
}

/** Writes the answer itself, so that a test decides when each byte of it goes. An object is sent as JSON. */
export type EndpointHandler = (
  request: EndpointRequest,
  response: ServerResponse,
) => object | void | Promise<object | void>

export function createEndpoints(): Endpoints {
  const handlers: { route: RegExp; handler: EndpointHandler }[] = []
  const requests: EndpointRequest[] = []
  return {
    requests,
    serve(route, handler) {
      const parts = route.split('*').map((part) => part.replaceAll(/[.+?^${}()|[\]\\]/g, '\\$&'))
      // The newest goes first, so that a test may replace what another has set up.
      handlers.unshift({ route: new RegExp(`^${parts.join('[^/]+')}$`), handler })
    },
    async answer(message, response) {
      const request = await read(message, response)
      requests.push(request)
      const found = handlers.find(({ route }) => route.test(request.route))
      if (!found) {
        const message404 = `The scripted model does not serve ${request.route}.`
        sendJson(response, 404, errorBody({ message: message404 }))
        return
      }
      const body = await found.handler(request, response)
      if (body) sendJson(response, 200, body)
    },
  }
}

async function read(message: IncomingMessage, response: ServerResponse): Promise<EndpointRequest> {
  const closed = new Promise<'finished' | 'closed by the client'>((resolve) => {
    response.once('close', () =>
      resolve(response.writableFinished ? 'finished' : 'closed by the client'),
    )
  })
  const url = new URL(message.url ?? '/', 'http://model')
  const bytes = await buffer(message)
  const { headers } = message
  return {
    route: `${message.method} ${url.pathname.replace(/^\/v1/, '')}`,
    query: url.searchParams,
    headers,
    bytes,
    closed,
    json: () => JSON.parse(bytes.toString('utf8')) as Record<string, unknown>,
    form: () =>
      new Response(new Uint8Array(bytes), {
        headers: { 'content-type': headers['content-type'] ?? '' },
      }).formData(),
  }
}
