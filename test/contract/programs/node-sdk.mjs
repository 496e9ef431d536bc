import { createRequire } from 'node:module'

/**
 * Opens one generation of the client. The methods here only even out the order of arguments and the
 * names that changed from openai 4 to 5; everything else is called on `client` itself.
 */
export function openSdk(packageName, options) {
  const isOwn = packageName === 'openai'
  const base = isOwn ? import.meta.url : new URL('../../sdks/package.json', import.meta.url)
  const require = createRequire(base)
  const { OpenAI } = require(packageName)
  const { AssistantStream } = require(`${packageName}/lib/AssistantStream`)
  const { VERSION: version } = require(`${packageName}/version`)
  const client = new OpenAI({ ...options, timeout: 30_000 })
  const { assistants, threads } = client.beta
  const { runs, messages } = threads
  const isOld = Number(version.split('.')[0]) < 5

  /** (thread, id, ...) in openai 4 is (id, {thread_id}, ...) since 5. */
  const inThread = (resource, method) => (threadId, id, body) =>
    isOld
      ? resource[method](threadId, id, ...(body ? [body] : []))
      : resource[method](id, { thread_id: threadId, ...body })
  const remove = (resource) => (id) => (isOld ? resource.del(id) : resource.delete(id))

  return {
    version,
    client,
    AssistantStream,
    errors: OpenAI,
    deleteAssistant: remove(assistants),
    deleteThread: remove(threads),
    deleteFile: remove(client.files),
    retrieveMessage: inThread(messages, 'retrieve'),
    updateMessage: inThread(messages, 'update'),
    deleteMessage: inThread(messages, isOld ? 'del' : 'delete'),
    retrieveRun: inThread(runs, 'retrieve'),
    updateRun: inThread(runs, 'update'),
    cancelRun: inThread(runs, 'cancel'),
    pollRun: inThread(runs, 'poll'),
    submit: inThread(runs, 'submitToolOutputs'),
    submitAndPoll: inThread(runs, 'submitToolOutputsAndPoll'),
    submitAndStream: inThread(runs, 'submitToolOutputsStream'),
    listSteps: (threadId, runId, query = {}) =>
      isOld
        ? runs.steps.list(threadId, runId, query)
        : runs.steps.list(runId, { thread_id: threadId, ...query }),
    retrieveStep: (threadId, runId, stepId, query = {}) =>
      isOld
        ? runs.steps.retrieve(threadId, runId, stepId, query)
        : runs.steps.retrieve(stepId, { thread_id: threadId, run_id: runId, ...query }),
  }
}
