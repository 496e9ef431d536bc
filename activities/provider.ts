import OpenAI, { APIError } from 'openai'

import type { ModelRoute } from '../models.ts'
import type {
  ChatCompletionChunk,
  ChatCompletionCreateParamsStreaming as ChatRequest,
} from '../wire/openai.ts'
import { createHttpFetch } from './http-fetch.ts'
import { readResponse, type ModelEvent } from './model-response.ts'
import { cutAnswer, noAnswer, providerError, silence } from './provider-error.ts'

export interface Provider {
  /**
   * The chunks of an answer, to its end. Throws a `ProviderError`, also where the answer was cut; ends early, without one,
   * when `signal` aborts.
   */
  stream(
    route: ModelRoute,
    request: ChatRequest,
    signal: AbortSignal,
  ): AsyncIterable<ChatCompletionChunk>
}

export function createProvider(idleTimeoutMs: number): Provider {
  const { fetch, bodyOf } = createHttpFetch()
  const clients = new Map<string, OpenAI>()

  function clientFor({ baseUrl, apiKey }: ModelRoute): OpenAI {
    const key = `${baseUrl} ${apiKey}`
    const client =
      clients.get(key) ??
      new OpenAI({
        baseURL: baseUrl,
        apiKey,
        // Explicit, since the package reads them from the environment, where they are meant for other programs.
        organization: null,
        project: null,
        fetch,
        // Temporal owns the retries, and how long a model may be silent is measured here.
        maxRetries: 0,
        timeout: 2 * idleTimeoutMs,
        // It would write chunks that it cannot parse, which are people's content, to the console.
        logLevel: 'off',
      })
    clients.set(key, client)
    return client
  }

  return {
    async *stream(route, request, signal) {
      const idle = new AbortController()
      const left = new AbortController()
      const timer = setTimeout(() => idle.abort(), idleTimeoutMs)
      let ending: Promise<void> | undefined
      try {
        const client = clientFor(route)
        const response = await client.chat.completions
          .create(request, {
            signal: AbortSignal.any([signal, idle.signal, left.signal]),
          })
          .asResponse()
        const answer = await readResponse(
          { headers: response.headers, body: bodyOf(response) },
          () => timer.refresh(),
        )
        if (answer.kind === 'whole') {
          yield answer.chunk
          return
        }
        if (answer.kind !== 'stream') throw noAnswer(answer, response.status, route)

        let hasSaid = false
        let hasEnded = false
        for (;;) {
          const { done, value: events } = await answer.events.next()
          if (done) break
          if (events.length > 0) timer.refresh()
          for (const event of events) {
            if (event.data === '[DONE]') {
              // Some servers give no reason for their end, and only say that it is one.
              if (!hasSaid) throw cutAnswer(route)
              ending = endOf(answer.events)
              return
            }
            const chunk = chunkOf(event, response.headers)
            const [choice] = chunk.choices ?? []
            hasSaid ||= choice !== undefined
            hasEnded ||= Boolean(choice?.finish_reason)
            yield chunk
          }
        }
        if (!hasEnded) throw cutAnswer(route)
      } catch (error) {
        if (signal.aborted) return
        throw idle.signal.aborted ? silence(idleTimeoutMs, route) : providerError(error, route)
      } finally {
        clearTimeout(timer)
        void (ending ?? Promise.resolve()).then(() => left.abort())
      }
    },
  }
}

const endMs = 1000

/** A response that is read to its end leaves its connection to the next call; one that has none is not waited for. */
async function endOf(events: AsyncGenerator<ModelEvent[]>): Promise<void> {
  const timeout = new Promise<void>((resolve) => setTimeout(resolve, endMs).unref())
  const rest = (async () => {
    for await (const _ of events);
  })()
  await Promise.race([rest, timeout]).catch(() => {})
}

/** Throws what an event says that is no chunk. */
function chunkOf({ event, data }: ModelEvent, headers: Headers): ChatCompletionChunk {
  let said: ChatCompletionChunk & { error?: object }
  try {
    said = JSON.parse(data) as typeof said
  } catch {
    throw new APIError(
      undefined,
      { message: 'It sent an event that is no JSON' },
      undefined,
      headers,
    )
  }
  if (event === 'error' || said.error) {
    throw new APIError(undefined, said.error ?? said, undefined, headers)
  }
  return said
}
