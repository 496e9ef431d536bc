import { afterAll, beforeAll, describe, expect, test } from 'vitest'

import { createCaller, type Answer, type Body, type Caller } from '../api/caller.ts'
import { field, form, type FormPart } from '../api/form.ts'
import { startServer, type TestServer } from '../support/server.ts'
import { isObject, openDocument, skipped, type Dialect, type Operation } from './document.ts'
import { createGenerator, type Generator } from './generator.ts'
import { makeObjects, respondWithCalls, type Ids } from './objects.ts'
import { servedOperations } from './routes.ts'
import { watchWrites, type Writes } from './rows.ts'

/** Another seed finds other things: `FUZZ_SEED=7 npm test -- test/contract/fuzz.test.ts`. */
const seed = Number(process.env['FUZZ_SEED'] ?? 1)

/**
 * Sends `rounds` requests to every operation of a document that we serve: sound ones, nearly sound ones, and rubbish. None
 * may be answered with a 5xx; a refusal has its envelope (every answer is held against the document, see http-capture) and
 * has written nothing.
 */
export function describeFuzz(dialect: Dialect, rounds: number): void {
  describe.skipIf(skipped)(
    `the ${dialect} document, ${rounds} times (seed ${seed})${skipped}`,
    () => {
      const operations = skipped ? [] : servedOperations(dialect)
      let server: TestServer
      let api: Caller
      let writes: Writes
      let ids: Ids = {}
      let generator: Generator
      const accepted = new Map<string, number>()

      beforeAll(async () => {
        server = await startServer()
        respondWithCalls(server.model)
        api = createCaller(server)
        writes = await watchWrites(server.databaseUrl)
        generator = createGenerator(seed, openDocument(dialect), () => ids)
      })
      afterAll(async () => {
        await writes[Symbol.asyncDispose]()
        await server[Symbol.asyncDispose]()
      })

      test.each(operations)('$method $path answers whatever is sent to it', async (operation) => {
        ids = await freshIds(operation)
        const findings: object[] = []
        // Those that use up what they are sent to take long to set up, and runs take long to end.
        const isSlow = operation.method === 'DELETE' || operation.path.endsWith('/cancel')
        const share = isSlow ? 8 : operation.path.endsWith('/runs') ? 2 : 1
        const times = Math.max(12, Math.ceil(rounds / share))
        for (let round = 0; round < times; round += 1) {
          const request = makeRequest(generator, operation, dialect)
          await writes.take()
          const answer = await send(request)
          if (answer.status >= 500) findings.push({ ...readable(request), said: answer.text })
          if (answer.status >= 400) {
            const written = await writes.take()
            if (written.length > 0 && (await writesAgain(request)))
              findings.push({ ...readable(request), written })
            continue
          }
          accepted.set(operation.id, (accepted.get(operation.id) ?? 0) + 1)
          await settle(answer)
          if (isFinal(operation)) ids = await freshIds(operation)
        }
        expect(findings.slice(0, 5)).toEqual([])
      })

      test('each of them was accepted now and then, and the server still works', async () => {
        const never = operations.filter(({ id }) => !accepted.has(id)).map(({ id }) => id)
        expect(never).toEqual([])
        const { thread_id, run_id } = await makeObjects(api, 'After all')
        await api.post(`/threads/${thread_id}/runs/${run_id}/cancel`)
        expect((await api.settled(thread_id, run_id))['status']).toBe('cancelled')
      })

      function send({ method, target, headers, raw }: Request): Promise<Answer> {
        return api.send(method, target, undefined, { headers, ...(raw !== undefined && { raw }) })
      }

      /** The run of these objects waits, and so locks its thread: what needs a free one is given one. */
      async function freshIds({ method, path }: Operation): Promise<Ids> {
        const made = await makeObjects(api, 'Fuzz')
        const isLocked = method === 'POST' && /\}\/(messages|runs)$/.test(path)
        return {
          // In the form of such ids: there is none yet.
          vector_store_id: 'vs_none',
          ...made,
          ...(isLocked && { thread_id: (await api.make('/threads')).id }),
          tool_call_id: made['call_id'] ?? '',
          model: 'scripted-model',
        }
      }

      /** A write may have been that of an earlier run; whoever is refused once more in silence writes for himself. */
      async function writesAgain(request: Request): Promise<boolean> {
        do await api.get('/assistants')
        while ((await writes.take()).length > 0)
        const { status } = await send(request)
        return status >= 400 && (await writes.take()).length > 0
      }

      /** A run that was made by chance gives the thread back. */
      async function settle({ body, text }: Answer): Promise<void> {
        const run = body['object'] === 'thread.run' ? body : runOf(text)
        if (!run) return
        const { status } = await api.settled(run['thread_id'], run.id)
        if (status !== 'requires_action' || run.id === ids['run_id']) return
        await api.post(`/threads/${String(run['thread_id'])}/runs/${run.id}/cancel`)
        await api.settled(run['thread_id'], run.id)
      }
    },
  )
}

interface Request {
  method: string
  /** The path below `/v1`, with its query. */
  target: string
  headers: Record<string, string | undefined>
  raw?: string | Uint8Array<ArrayBuffer>
}

function makeRequest(generator: Generator, operation: Operation, dialect: Dialect): Request {
  // A third is sound, as far as the schema can tell; the rest has a flaw or many.
  const mischief = generator.oneOf([0, 0, 0.02, 0.1, 0.3])
  const path = operation.path.replaceAll(/\{(\w+)\}/g, (_, name: string) =>
    generator.segment(name, mischief),
  )
  const request: Request = {
    method: operation.method,
    target: `${path}${generator.query(operation.parameters, mischief)}`,
    headers: { 'openai-beta': `assistants=${dialect}` },
  }
  const { 'application/json': schema, 'multipart/form-data': parts } = operation.body ?? {}
  if (schema) request.raw = JSON.stringify(generator.value(schema, mischief)) ?? ''
  if (parts) addForm(request, generator.value(parts, mischief))
  if (mischief === 0) return request
  if (typeof request.raw === 'string' && generator.chance(0.1))
    request.raw = generator.broken(request.raw)
  if (typeof request.raw === 'object' && generator.chance(0.1))
    request.raw = request.raw.slice(0, -40)
  if (generator.chance(0.05)) request.headers['content-type'] = generator.oneOf(contentTypes)
  if (generator.chance(0.03))
    request.headers['openai-beta'] = generator.oneOf([undefined, 'assistants=v3', '', 'v2'])
  if (generator.chance(0.03))
    request.headers['authorization'] = generator.oneOf([undefined, 'Basic eDp5', 'Bearer'])
  return request
}

/** Objects within go as `expires_after[anchor]`. */
function addForm(request: Request, value: unknown): void {
  const fields = isObject(value) ? Object.entries(value) : []
  const parts = fields.flatMap(([name, one]): FormPart[] => {
    if (name === 'file' || name === 'data') {
      return [{ disposition: `name="${name}"; filename="a.txt"`, content: textOf(one) }]
    }
    if (!isObject(one)) return [field(encodeURIComponent(name.toWellFormed()), textOf(one))]
    return Object.entries(one).map(([key, inner]) => field(`${name}[${key}]`, textOf(inner)))
  })
  const { raw, headers } = form(parts)
  request.raw = raw
  Object.assign(request.headers, headers)
}

function textOf(value: unknown): string {
  return typeof value === 'string' ? value : (JSON.stringify(value) ?? '')
}

/** As whoever mends it wants to see it. */
function readable({ raw = '', ...rest }: Request): object {
  const text = typeof raw === 'string' ? raw : new TextDecoder().decode(raw)
  return { ...rest, raw: text.length > 2000 ? `${text.slice(0, 2000)}... (${text.length})` : text }
}

const contentTypes = [undefined, 'text/plain', 'application/xml', 'multipart/form-data', 'x']

/** Whether it uses up the object that it is sent to. */
function isFinal({ method, path }: Operation): boolean {
  return method === 'DELETE' || /\/(cancel|submit_tool_outputs|complete)$/.test(path)
}

/** The run that a stream tells of. */
function runOf(stream: string): Body | undefined {
  const data = /^event: thread\.run\.\w+\ndata: (.*)$/m.exec(stream)?.[1]
  // Held against the document like all frames.
  return data === undefined ? undefined : (JSON.parse(data) as Body)
}
