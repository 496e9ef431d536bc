import { randomUUID } from 'node:crypto'

import { field, filePart, form } from '../api/form.ts'
import { call, say } from '../support/model.ts'
import type { ScriptedModel } from '../support/model.ts'
import type { Caller, CallOptions } from '../api/caller.ts'

/** Ids by the names that paths and bodies give them: `thread_id`. */
export type Ids = Record<string, string>

/** The model of `makeObjects`: calls the function where there is one, and then says something; and makes responses. */
export function respondWithCalls(model: ScriptedModel): void {
  model.serve('POST /responses', () => ({
    id: `resp_${randomUUID()}`,
    object: 'response',
    status: 'completed',
    output: [],
  }))
  model.respond(({ body, toolResults }) =>
    body.tools?.length && toolResults.length === 0
      ? call({ name: 'f', arguments: {} })
      : say('Yes.'),
  )
}

/**
 * One object of each kind; the run waits for the output of its call, `call_id`. All of their texts are `words`. Whoever adds
 * a kind of object to the API makes one here, under the name that its routes give its id.
 */
export async function makeObjects(api: Caller, words: string): Promise<Ids> {
  const tools = [{ type: 'function', function: { name: 'f' } }]
  const metadata = { note: words }
  const file = await uploaded(api, '/files', textFile(words))
  const { id: upload } = await api.make('/uploads', {
    filename: 'a.txt',
    purpose: 'assistants',
    bytes: words.length,
    mime_type: 'text/plain',
  })
  const part = await uploaded(api, `/uploads/${upload}/parts`, textPart(words))
  const assistant = await api.make('/assistants', {
    model: 'm',
    name: words,
    instructions: words,
    tools,
    metadata,
  })
  await api.send('POST', `/assistants/${assistant.id}/files`, { file_id: file }, inV1)
  const thread = await api.make('/threads', { metadata })
  const message = await api.make(`/threads/${thread.id}/messages`, {
    role: 'user',
    content: words,
    attachments: [{ file_id: file, tools: [{ type: 'code_interpreter' }] }],
    metadata,
  })
  const { id } = await api.make(`/threads/${thread.id}/runs`, {
    assistant_id: assistant.id,
    metadata,
  })
  const run = await api.settled(thread.id, id)
  const action = run['required_action'] as { submit_tool_outputs: { tool_calls: { id: string }[] } }
  const { data: steps } = await api.read(`/threads/${thread.id}/runs/${id}/steps`)
  const searching = await api.make('/threads', {
    tool_resources: { file_search: { vector_stores: [{ file_ids: [file] }] } },
  })
  const { file_search: search } = searching['tool_resources'] as {
    file_search: { vector_store_ids: string[] }
  }
  const response = await api.make('/responses', { model: 'm', input: words })
  const completion = await api.make('/chat/completions', {
    model: 'm',
    messages: [{ role: 'user', content: words }],
    store: true,
  })
  return {
    file_id: file,
    assistant_file_id: file,
    message_file_id: file,
    vector_store_id: search.vector_store_ids[0] ?? '',
    upload_id: upload,
    part_id: part,
    response_id: response.id,
    completion_id: completion.id,
    assistant_id: assistant.id,
    thread_id: thread.id,
    message_id: message.id,
    run_id: id,
    step_id: steps[0]?.id ?? '',
    call_id: action.submit_tool_outputs.tool_calls[0]?.id ?? '',
  }
}

/** Headers of those who speak the older dialect. */
export const inV1 = { headers: { 'openai-beta': 'assistants=v1' } }

export function textFile(content: string): CallOptions {
  return form([field('purpose', 'assistants'), filePart(content)])
}

export function textPart(content: string): CallOptions {
  return form([{ disposition: 'name="data"; filename="part"', content }])
}

async function uploaded(api: Caller, path: string, options: CallOptions): Promise<string> {
  const { status, body, text } = await api.send('POST', path, undefined, options)
  if (status !== 200) throw new Error(`POST ${path}: ${status} ${text}`)
  return body.id
}
