import type { Router } from '@koa/router'

import type { Endpoint, ModelRoute } from '../models.ts'
import type { NewPassedObject, PassedKind, PassedObjectRow } from '../store/passed-objects.ts'
import {
  brokenUpstream,
  missingModel,
  missingParameter,
  modelNotFound,
  passedObjectNotFound,
  previousResponseNotFound,
} from '../wire/errors.ts'
import type { ApiDeps } from './app.ts'
import type { Context, State } from './context.ts'
import { handOn } from './pass-through/answer.ts'
import {
  readPassedBody,
  readUnchanged,
  type PassedBody,
  type SentBody,
} from './pass-through/body.ts'
import { calls, isAboutResponses, type Call } from './pass-through/calls.ts'
import { sentHeaders } from './pass-through/headers.ts'
import { storedCompletions } from './pass-through/stored-completions.ts'
import { askUpstream, type UpstreamAnswer } from './pass-through/upstream.ts'
import { onClose } from './run-stream.ts'

/**
 * What clients of the Assistants API also call, passed on to the endpoint of the model: with its key in place of the
 * caller's, streamed, and counted.
 */
export function passThroughRoutes(router: Router<State>, deps: ApiDeps): void {
  const { store, models, log } = deps
  for (const call of calls) router.post(`/${call.path}`, (ctx) => pass(ctx, call))

  router.get('/responses/:id', (ctx) => onKept(ctx, 'response'))
  router.delete('/responses/:id', (ctx) => onKept(ctx, 'response'))
  router.post('/responses/:id/cancel', (ctx) => onKept(ctx, 'response', 'cancel'))
  router.get('/responses/:id/input_items', (ctx) => onKept(ctx, 'response', 'input_items'))

  router.get('/chat/completions', storedCompletions(deps, endpointOf))
  router.get('/chat/completions/:id', (ctx) => onKept(ctx, 'chat.completion'))
  router.post('/chat/completions/:id', (ctx) => onKept(ctx, 'chat.completion'))
  router.delete('/chat/completions/:id', (ctx) => onKept(ctx, 'chat.completion'))
  router.get('/chat/completions/:id/messages', (ctx) => onKept(ctx, 'chat.completion', 'messages'))

  async function pass(ctx: Context, call: Call): Promise<void> {
    const { projectId } = ctx.state
    const body = await readPassedBody(ctx)
    const asked = body.model || undefined
    const previous = await findPrevious(call, ctx, body)
    const endpoint: Endpoint & { upstreamName?: string } =
      asked === undefined ? await unnamed(call, body, previous) : await named(asked)
    const addsUsage = call.asksForUsage === true && lacksUsage(body, endpoint)
    const sent = await body.withChanges({
      model: asked && endpoint.upstreamName,
      includesUsage: addsUsage,
    })
    const answer = await ask(ctx, endpoint, call.path, sent)

    const kind = call.leaves
    const leaves = kind === 'response' || body.store === true ? kind : undefined
    const model = asked ?? previous?.model ?? null
    const onId = leaves && ((id: string) => keep(ctx, { id, kind: leaves, model }))
    await handOn(ctx, endpoint, answer, { onId, hidesUsage: addsUsage }, ({ tokens, id }) => {
      if (call.isFree) return
      store.passedUsage.count({
        projectId,
        endpoint: call.path,
        model: model ?? undefined,
        objectId: leaves && id,
        tokens,
      })
    })
  }

  /** Asks the endpoint for an object that it keeps, if it is this project's. */
  async function onKept(ctx: Context, kind: PassedKind, part?: string): Promise<void> {
    const { projectId } = ctx.state
    const id = ctx.params['id'] ?? ''
    const kept = await store.passedObjects.find(projectId, kind, id)
    const endpoint = kept && (await endpointOf(kept))
    if (!endpoint) {
      throw passedObjectNotFound(kind === 'response' ? 'Response' : 'Chat completion', id)
    }
    const folder = kind === 'response' ? 'responses' : 'chat/completions'
    const path = `${folder}/${encodeURIComponent(id)}${part ? `/${part}` : ''}`
    const body = ctx.method === 'POST' ? await readUnchanged(ctx) : undefined
    const answer = await ask(ctx, endpoint, path, body)
    if (ctx.method === 'DELETE' && answer.status < 300) {
      await store.passedObjects.forget(projectId, id)
    }
    // What was made in the background tells its usage only once it is done.
    await handOn(ctx, endpoint, answer, { hidesUsage: false }, ({ tokens }) => {
      if (tokens) store.passedUsage.settle(projectId, id, tokens)
    })
  }

  async function ask(
    ctx: Context,
    endpoint: Endpoint,
    path: string,
    body?: SentBody,
  ): Promise<UpstreamAnswer> {
    const { bytes, contentType } = body ?? {}
    const { projectId } = ctx.state
    const headers = sentHeaders(ctx.headers, { projectId, contentType })
    const request = { method: ctx.method, path: `${path}${ctx.search}`, headers, body: bytes }
    const answer = await askUpstream(endpoint, request, onClose(ctx).signal)
    const isRedirect = answer.status >= 300 && answer.status < 400
    const isKeyRefused = answer.status === 401 || answer.status === 403
    if (!isRedirect && !isKeyRefused) return answer
    answer.body.destroy()
    // A client that follows a redirect would leave us, with its own key.
    if (isRedirect) throw brokenUpstream('answered with a redirect, which is not followed')
    // The caller would take its own key for wrong; and what endpoints say of a key shows its beginning and its end.
    const facts = { status: answer.status, endpoint: new URL(endpoint.baseUrl).host }
    log.error(
      { ...facts, request_id: ctx.state.requestId },
      'an endpoint refused the key of this server',
    )
    throw brokenUpstream("refused this server's key")
  }

  async function keep(ctx: Context, object: NewPassedObject): Promise<void> {
    try {
      await store.passedObjects.keep(ctx.state.projectId, object)
    } catch (error) {
      // The answer is paid for, so the client gets it, even if it cannot ask for it again.
      log.error({ err: error, request_id: ctx.state.requestId }, 'an object could not be kept')
    }
  }

  async function findPrevious(call: Call, ctx: Context, body: PassedBody) {
    const id = body.previous_response_id
    if (!id || !isAboutResponses(call)) return undefined
    const found = await store.passedObjects.find(ctx.state.projectId, 'response', id)
    if (!found) throw previousResponseNotFound(id)
    return found
  }

  async function named(name: string): Promise<ModelRoute> {
    const route = await models.find(name)
    if (!route) throw modelNotFound(name)
    return route
  }

  /** For a body without a model: where the response was made that it continues, or the default. */
  async function unnamed(
    call: Call,
    body: PassedBody,
    previous: PassedObjectRow | undefined,
  ): Promise<Endpoint> {
    // A prompt that the endpoint keeps names the model itself.
    const isNamedElsewhere = isAboutResponses(call) && (previous ?? body.prompt)
    if (call.needsModel && !isNamedElsewhere) {
      throw isAboutResponses(call) ? missingParameter('model') : missingModel()
    }
    const endpoint = previous ? await endpointOf(previous) : models.unnamed()
    if (!endpoint) throw modelNotFound(previous?.model ?? 'default')
    return endpoint
  }

  async function endpointOf({ model }: NewPassedObject): Promise<Endpoint | undefined> {
    return model === null ? models.unnamed() : models.find(model)
  }
}

/** Whether the stream would not tell its usage, and can be asked to. */
function lacksUsage({ stream, stream_options: options }: PassedBody, endpoint: Endpoint): boolean {
  if (stream !== true || endpoint.quirks.no_stream_options) return false
  if (options === undefined || options === null) return true
  if (typeof options !== 'object') return false
  const asked: unknown = Reflect.get(options, 'include_usage')
  return asked === undefined || asked === null || asked === false
}
