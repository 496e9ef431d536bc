import { pipeline } from 'node:stream'

import type { Endpoint } from '../../models.ts'
import type { Context } from '../context.ts'
import { sseHeaders } from '../sse.ts'
import { answerHeaders } from './headers.ts'
import { createReader, isEventStream, type Reader, type ReaderOptions } from './reader.ts'
import { refusalText, type UpstreamAnswer } from './upstream.ts'

/** Answers as the endpoint did; `whenOver` is called once, however the answer ends. */
export async function handOn(
  ctx: Context,
  endpoint: Endpoint,
  answer: UpstreamAnswer,
  options: ReaderOptions,
  whenOver: (reader: Reader) => void,
): Promise<void> {
  const refusal = answer.status < 400 ? undefined : await refusalText(answer.body, endpoint.apiKey)
  ctx.status = answer.status
  ctx.set(answerHeaders(answer.headers))
  if (refusal !== undefined) {
    ctx.body = refusal
    return
  }
  const contentType = answer.headers['content-type'] ?? ''
  const reader = createReader(contentType, options)
  // The client's end of the pipe is Koa's; an error of either end destroys the other.
  ctx.body = pipeline(answer.body, reader.stream, () => whenOver(reader))
  if (!isEventStream(contentType)) return
  ctx.set({ ...sseHeaders, 'content-type': contentType })
  // Before the first event, so that the client knows that it has been heard.
  ctx.flushHeaders()
}
