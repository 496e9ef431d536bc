import type { Dialect, Schema } from './document.ts'

/**
 * Where our answers are meant to differ from the OpenAPI documents, each with its reason. `spec` is a line of the table in
 * section 0 of the API's description, "where the schema and the live server disagree"; without one the choice is ours.
 * What is not listed here is a violation, and the full contract test finds what is listed and never met.
 */
export const deviations: Deviation[] = [
  {
    at: ['RunObject/properties/instructions'],
    also: { type: 'null' },
    why: 'null where neither the run nor its assistant has any',
    spec: 'D7',
  },
  {
    at: ['RunObject'],
    keys: ['tool_resources'],
    also: { type: 'object' },
    why: 'the resources that the run began with were on the live answers',
    spec: 'D5',
  },
  {
    at: ['RunObject', 'AssistantObject'],
    keys: ['reasoning_effort'],
    also: { type: ['string', 'null'] },
    why: 'it was on the live answers',
    spec: 'D5, D6',
  },
  {
    at: ['RunObject', 'RunStepObject', 'AssistantObject'],
    keys: ['longrun'],
    also: { type: 'object' },
    why: 'what the original did not have',
  },
  {
    at: ['RunObject/properties/tools'],
    also: { type: 'array', maxItems: 128 },
    why: 'a run has the tools of its assistant, which may be 128',
    spec: 'D20',
  },
  {
    at: ['RunObject/properties/max_prompt_tokens', 'RunObject/properties/max_completion_tokens'],
    also: { type: 'integer', minimum: 16 },
    why: 'the live service took budgets below 256',
    spec: 'D19',
  },
  {
    at: ['RunObject/properties/incomplete_details/anyOf/0/properties/reason'],
    also: { enum: ['max_steps'] },
    why: 'the original had no such limit; a run that reached it has done part of its work, and did not fail',
  },
  {
    at: ['RunStepObject'],
    keys: ['expires_at'],
    also: { type: ['integer', 'null'] },
    why: 'it was on the live answers',
    spec: 'D3',
  },
  {
    at: ['RunCompletionUsage/anyOf/0', 'RunStepCompletionUsage/anyOf/0'],
    keys: ['prompt_token_details'],
    also: {
      type: 'object',
      properties: { cached_tokens: { type: 'integer' } },
      required: ['cached_tokens'],
    },
    why: 'it was on the live answers, in the singular',
    spec: 'D4',
  },
  {
    at: ['RunCompletionUsage/anyOf/0', 'RunStepCompletionUsage/anyOf/0'],
    keys: ['completion_tokens_details'],
    also: {
      type: 'object',
      properties: { reasoning_tokens: { type: 'integer' } },
      required: ['reasoning_tokens'],
    },
    why: 'it was on the live answers',
    spec: 'D4',
  },
  {
    at: [
      'ListAssistantsResponse/properties/first_id',
      'ListAssistantsResponse/properties/last_id',
      'ListMessagesResponse/properties/first_id',
      'ListMessagesResponse/properties/last_id',
      'ListRunsResponse/properties/first_id',
      'ListRunsResponse/properties/last_id',
      'ListRunStepsResponse/properties/first_id',
      'ListRunStepsResponse/properties/last_id',
      'ListFilesResponse/properties/first_id',
      'ListFilesResponse/properties/last_id',
    ],
    also: { type: 'null' },
    why: 'null on an empty page',
    spec: 'D8',
  },
  {
    at: ['OpenAIFile/properties/expires_at', 'OpenAIFile/properties/status_details'],
    also: { type: 'null' },
    why: 'both were null on the live answers',
    spec: 'D18',
  },
  {
    at: ['OpenAIFile/properties/purpose'],
    also: { enum: ['evals'] },
    why: 'the document takes files for evals, and leaves them out where it lists what files are for',
    dialect: 'v2',
  },
  {
    at: ['OpenAIFile'],
    keys: ['expires_at'],
    also: { type: ['integer', 'null'] },
    why: 'files have no dialect: the header is not asked for',
    dialect: 'v1',
  },
  {
    at: ['OpenAIFile/properties/purpose'],
    also: { enum: ['batch', 'batch_output', 'vision', 'user_data', 'evals'] },
    why: 'files have no dialect: the header is not asked for',
    dialect: 'v1',
  },
  {
    at: ['ListFilesResponse'],
    keys: ['first_id', 'last_id', 'has_more'],
    also: { type: ['string', 'boolean', 'null'] },
    why: 'files have no dialect: the header is not asked for',
    dialect: 'v1',
  },
  {
    at: ['AssistantObject'],
    keys: ['temperature', 'top_p'],
    also: { type: ['number', 'null'] },
    why: 'v1 took them from clients, who may read back what they set',
    dialect: 'v1',
  },
  {
    at: ['AssistantObject'],
    keys: ['response_format'],
    also: { $ref: '#/components/schemas/AssistantsApiResponseFormatOption' },
    why: 'v1 took it from clients, who may read back what they set',
    dialect: 'v1',
  },
  ...['AssistantFile', 'MessageFile'].map((file) => ({
    at: [`List${file}sResponse`],
    also: {
      type: 'object',
      properties: {
        object: { const: 'list' },
        data: { type: 'array', items: { $ref: `#/components/schemas/${file}Object` } },
        first_id: { type: ['string', 'null'] },
        last_id: { type: ['string', 'null'] },
        has_more: { type: 'boolean' },
      },
      required: ['object', 'data', 'first_id', 'last_id', 'has_more'],
    },
    why: 'the document requires `items`, of which it says nothing; its clients read `data`',
    dialect: 'v1' as const,
  })),
  {
    at: ['FileSearchRankingOptions'],
    keys: ['hybrid_search'],
    also: { type: 'null' },
    why: 'it was on the live answers, where the server fills in the ranking options',
    spec: 'D12',
  },
  {
    at: ['Error'],
    keys: ['error'],
    also: { $ref: '#/components/schemas/Error' },
    why: "an error event is flat for Node's client, and has `error` for Python's",
    spec: 'D14',
  },
]

/** Answers that go beyond the documents, or stay behind them. */
export interface Deviation {
  /** The places in the documents' schemas: `RunObject/properties/instructions`. */
  at: string[]
  /** What is right there too. */
  also: Schema
  /** Or keys that are there too, with such values: ours is a superset. */
  keys?: string[]
  why: string
  spec?: string
  /** Both, where nothing is said. */
  dialect?: Dialect
}

/** Events that the documents do not know. */
export const extraEvents: ReadonlyMap<string, { why: string }> = new Map([
  ['snapshot', { why: 'it stands for events that have been removed since the end of their run' }],
])

/** What the documents do not know at all. Paths as our router writes them. */
export const extensions: Extension[] = [
  {
    routes: ['GET /healthz', 'GET /readyz'],
    why: 'whether the process lives, and whether runs would be carried out, for whoever runs it',
  },
  {
    routes: ['GET /v1/threads'],
    why: 'the original had no list of threads',
    schema: {
      type: 'object',
      required: ['object', 'data', 'first_id', 'last_id', 'has_more'],
      properties: {
        object: { enum: ['list'] },
        data: { type: 'array', items: { $ref: '#/components/schemas/ThreadObject' } },
        first_id: { type: ['string', 'null'] },
        last_id: { type: ['string', 'null'] },
        has_more: { type: 'boolean' },
      },
    },
  },
  {
    routes: ['POST /v1/threads/:thread_id/fork'],
    why: 'a thread that begins with the messages of another',
    schema: { $ref: '#/components/schemas/ThreadObject' },
  },
  {
    routes: ['POST /v1/threads/import'],
    why: 'threads from elsewhere, with their ids and times',
    schema: {
      type: 'object',
      required: ['object', 'imported', 'existing', 'ignored', 'failed', 'errors'],
      properties: {
        object: { enum: ['thread.import'] },
        imported: { type: 'integer' },
        existing: { type: 'integer' },
        ignored: { type: 'integer' },
        failed: { type: 'integer' },
        errors: { type: 'array', items: { type: 'object' } },
      },
    },
  },
  { routes: ['GET /v1/export'], why: 'everything of a project, as JSON Lines' },
  { routes: ['GET /v1/usage'], why: 'what Runs used and cost, by day and model' },
  {
    routes: ['GET /v1/threads/:thread_id/runs/:run_id/events'],
    why: "the events of a Run for whoever comes back or watches: the original's streams died with their sockets",
  },
  {
    routes: [
      'GET /v1/chat/completions',
      'POST /v1/chat/completions',
      'GET /v1/chat/completions/:id',
      'POST /v1/chat/completions/:id',
      'DELETE /v1/chat/completions/:id',
      'GET /v1/chat/completions/:id/messages',
      'POST /v1/completions',
      'POST /v1/embeddings',
      'POST /v1/images/generations',
      'POST /v1/images/edits',
      'POST /v1/images/variations',
      'POST /v1/audio/speech',
      'POST /v1/audio/transcriptions',
      'POST /v1/audio/translations',
      'POST /v1/moderations',
      'POST /v1/responses',
      'POST /v1/responses/compact',
      'POST /v1/responses/input_tokens',
      'GET /v1/responses/:id',
      'DELETE /v1/responses/:id',
      'POST /v1/responses/:id/cancel',
      'GET /v1/responses/:id/input_items',
    ],
    why: "other APIs of the original: the answer, also a refusal, is the model endpoint's own",
  },
]

interface Extension {
  routes: string[]
  why: string
  /** Of the answer; without one neither answers nor refusals are looked at. */
  schema?: Schema
}

/** Operations of the documents that we do not serve. */
export const notServed: { operation: string; why: string }[] = [
  { operation: 'deleteModel', why: 'it is for models that were tuned at the original' },
  ...[
    'listVectorStores createVectorStore getVectorStore modifyVectorStore deleteVectorStore',
    'createVectorStoreFileBatch getVectorStoreFileBatch cancelVectorStoreFileBatch',
    'listFilesInVectorStoreBatch listVectorStoreFiles createVectorStoreFile getVectorStoreFile',
    'deleteVectorStoreFile updateVectorStoreFileAttributes retrieveVectorStoreFileContent',
    'searchVectorStore',
  ].flatMap((line) => line.split(' ').map((operation) => ({ operation, why: 'not there yet' }))),
]
