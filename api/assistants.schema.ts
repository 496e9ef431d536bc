import { z } from 'zod'
import {
  integerAbove,
  mutuallyExclusive,
  propertyNameTooLong,
  tooManyProperties,
} from '../wire/errors.ts'
import {
  MAX_ASSISTANT_NAME_CHARS,
  MAX_CHUNK_TOKENS,
  MAX_CODE_INTERPRETER_FILES,
  MAX_DESCRIPTION_CHARS,
  MAX_FALLBACK_MODELS,
  MAX_FILE_SEARCH_RESULTS,
  MAX_FUNCTION_DESCRIPTION_CHARS,
  MAX_FUNCTION_NAME_CHARS,
  MAX_INSTRUCTIONS_CHARS,
  MAX_METADATA_KEY_CHARS,
  MAX_METADATA_PAIRS,
  MAX_METADATA_VALUE_CHARS,
  MAX_MODEL_CHARS,
  MAX_TEMPERATURE,
  MAX_TOOLS,
  MAX_TOP_P,
  MAX_VECTOR_STORE_FILES,
  MAX_VECTOR_STORES,
  MIN_CHUNK_TOKENS,
} from '../wire/limits.ts'
import type * as Official from '../wire/openai.ts'
import type {
  AssistantCreateParams as CreateParams,
  AssistantUpdateParams as UpdateParams,
} from '../wire/openai.ts'
import { strictMisfit } from './strict-schema.ts'
import { codePoints, id, integer, list, refuse, text } from './validation.ts'
import type { Accepts, Holds, SameKeys } from './validation.ts'

// --- shapes that threads, messages and runs share --------------------------------------------

/** Counted before it is read. In a modify a key given as null (or "") means: remove it. */
const metadataOf = <Value extends z.ZodType>(value: Value) =>
  z
    .record(z.string(), z.unknown())
    .check((ctx) => {
      const keys = Object.keys(ctx.value)
      if (keys.length > MAX_METADATA_PAIRS) {
        refuse(ctx, (path) => tooManyProperties(path, MAX_METADATA_PAIRS, keys.length))
        return
      }
      const long = keys.find((key) => codePoints(key) > MAX_METADATA_KEY_CHARS)
      if (long === undefined) return
      const length = codePoints(long)
      refuse(ctx, (path) => propertyNameTooLong(path, long, MAX_METADATA_KEY_CHARS, length))
    })
    .pipe(z.record(z.string(), value))

export const Metadata = metadataOf(text(MAX_METADATA_VALUE_CHARS))
export const MetadataChange = metadataOf(text(MAX_METADATA_VALUE_CHARS).nullable())
export type Metadata = z.infer<typeof Metadata>
export type MetadataChange = z.infer<typeof MetadataChange>

const name = text(MAX_FUNCTION_NAME_CHARS, 1).regex(/^[a-zA-Z0-9_-]+$/)

export const CodeInterpreterTool = z.strictObject({ type: z.literal('code_interpreter') })

/** The published schema forgot it; the live service put it into every answer, which clients send back. */
const HybridSearch = z.strictObject({
  embedding_weight: z.number().min(0).max(1),
  text_weight: z.number().min(0).max(1),
})
const RankingOptions = z.strictObject({
  ranker: z.enum(['auto', 'default_2024_08_21']).optional(),
  score_threshold: z.number().min(0).max(1),
  hybrid_search: HybridSearch.nullish(),
})
const FileSearchOptions = z.strictObject({
  max_num_results: integer(1, MAX_FILE_SEARCH_RESULTS).optional(),
  ranking_options: RankingOptions.optional(),
})
const FileSearchTool = z.strictObject({
  type: z.literal('file_search'),
  file_search: FileSearchOptions.optional(),
})

const FunctionDefinition = z.strictObject({
  name,
  description: text(MAX_FUNCTION_DESCRIPTION_CHARS).optional(),
  parameters: z.record(z.string(), z.unknown()).optional(),
  strict: z.boolean().nullish(),
})
export const FunctionTool = z.strictObject({
  type: z.literal('function'),
  function: FunctionDefinition,
})

/** Parameters that are left out are none at all, which strict mode accepts. */
const CheckedFunctionTool = FunctionTool.check((ctx) => {
  const { name: called, parameters, strict } = ctx.value.function
  if (!strict || !parameters) return
  const misfit = strictMisfit(called, parameters)
  if (misfit) refuse(ctx, misfit, ['function', 'parameters'])
})

export const Tool = z.discriminatedUnion('type', [
  CodeInterpreterTool,
  FileSearchTool,
  CheckedFunctionTool,
])
export type Tool = z.infer<typeof Tool>
export const Tools = list(Tool, { of: 'objects', maximum: MAX_TOOLS })

const JsonSchemaFormat = z.strictObject({
  name,
  description: z.string().optional(),
  schema: z.record(z.string(), z.unknown()).optional(),
  strict: z.boolean().nullish(),
})
export const ResponseFormat = z.union([
  z.literal('auto'),
  z.discriminatedUnion('type', [
    z.strictObject({ type: z.literal('text') }),
    z.strictObject({ type: z.literal('json_object') }),
    z.strictObject({ type: z.literal('json_schema'), json_schema: JsonSchemaFormat }),
  ]),
])
export type ResponseFormat = z.infer<typeof ResponseFormat>

export const Model = text(MAX_MODEL_CHARS, 1)
export const Instructions = text(MAX_INSTRUCTIONS_CHARS)
export const Temperature = z.number().min(0).max(MAX_TEMPERATURE)
export const TopP = z.number().min(0).max(MAX_TOP_P)
export const ReasoningEffort = z.enum(['none', 'minimal', 'low', 'medium', 'high', 'xhigh', 'max'])

const StaticChunking = z
  .strictObject({
    max_chunk_size_tokens: integer(MIN_CHUNK_TOKENS, MAX_CHUNK_TOKENS),
    chunk_overlap_tokens: integer(0),
  })
  .check((ctx) => {
    const { max_chunk_size_tokens: size, chunk_overlap_tokens: overlap } = ctx.value
    const most = Math.floor(size / 2)
    if (overlap > most) {
      refuse(ctx, (path) => integerAbove(path, most, overlap), ['chunk_overlap_tokens'])
    }
  })
export const ChunkingStrategy = z.discriminatedUnion('type', [
  z.strictObject({ type: z.literal('auto') }),
  z.strictObject({ type: z.literal('static'), static: StaticChunking }),
])

const CodeInterpreterResource = z.strictObject({
  file_ids: list(id('file'), { of: 'strings', maximum: MAX_CODE_INTERPRETER_FILES }).optional(),
})
const vectorStoreIds = list(id('vector_store'), {
  of: 'strings',
  maximum: MAX_VECTOR_STORES,
}).optional()

const VectorStoreHelper = z.strictObject({
  file_ids: list(id('file'), { of: 'strings', maximum: MAX_VECTOR_STORE_FILES }).optional(),
  chunking_strategy: ChunkingStrategy.optional(),
  metadata: Metadata.nullish(),
})
const FileSearchResource = z
  .strictObject({
    vector_store_ids: vectorStoreIds,
    vector_stores: list(VectorStoreHelper, {
      of: 'objects',
      maximum: MAX_VECTOR_STORES,
    }).optional(),
  })
  .check((ctx) => {
    if (ctx.value.vector_store_ids === undefined || ctx.value.vector_stores === undefined) return
    refuse(ctx, (path) => mutuallyExclusive(path, 'vector_store_ids', 'vector_stores'))
  })

/** On create: stores that exist, or the helper that makes one. */
export const ToolResources = z.strictObject({
  code_interpreter: CodeInterpreterResource.optional(),
  file_search: FileSearchResource.optional(),
})
export type ToolResources = z.infer<typeof ToolResources>

/** On modify, and on a run that brings its thread: only what exists. */
export const ToolResourceIds = z.strictObject({
  code_interpreter: CodeInterpreterResource.optional(),
  file_search: z.strictObject({ vector_store_ids: vectorStoreIds }).optional(),
})
export type ToolResourceIds = z.infer<typeof ToolResourceIds>

// --- assistants -----------------------------------------------------------------------------

/** Ours: what is done with a run that comes while its thread is busy. The original always rejects. */
export const OnActiveRun = z.enum(['reject', 'enqueue', 'interrupt', 'rollback'])
/** Ours: models that are asked, in this order, when the one that was named does not answer. */
export const FallbackModels = list(Model, { of: 'strings', maximum: MAX_FALLBACK_MODELS })

const fields = {
  name: text(MAX_ASSISTANT_NAME_CHARS).nullish(),
  description: text(MAX_DESCRIPTION_CHARS).nullish(),
  instructions: Instructions.nullish(),
  reasoning_effort: ReasoningEffort.nullish(),
  on_active_run: OnActiveRun.nullish(),
  fallback_models: FallbackModels.nullish(),
}

export const CreateAssistant = z.strictObject({
  model: Model,
  ...fields,
  tools: Tools.default([]),
  tool_resources: ToolResources.nullish(),
  metadata: Metadata.nullish(),
  temperature: Temperature.nullable().default(1),
  top_p: TopP.nullable().default(1),
  response_format: ResponseFormat.nullable().default('auto'),
})
export type CreateAssistant = z.infer<typeof CreateAssistant>

/** No defaults: what is not said stays as it is. */
export const ModifyAssistant = z.strictObject({
  model: Model.optional(),
  ...fields,
  tools: Tools.optional(),
  tool_resources: ToolResourceIds.nullish(),
  metadata: MetadataChange.nullish(),
  temperature: Temperature.nullish(),
  top_p: TopP.nullish(),
  response_format: ResponseFormat.nullish(),
})
export type ModifyAssistant = z.infer<typeof ModifyAssistant>

// --- ties: drift between these schemas and the official package does not compile -------------

type Ours = 'on_active_run' | 'fallback_models'
type StoreParams = CreateParams.ToolResources.FileSearch.VectorStore
type Chunking = NonNullable<StoreParams['chunking_strategy']>
type StaticParams = Extract<Chunking, { type: 'static' }>
type OurChunking = z.input<typeof ChunkingStrategy>
type OurStatic = Extract<OurChunking, { type: 'static' }>
export type Ties = [
  Holds<SameKeys<CreateParams, z.input<typeof CreateAssistant>, Ours>>,
  Holds<Accepts<CreateParams, z.input<typeof CreateAssistant>>>,
  Holds<SameKeys<UpdateParams, z.input<typeof ModifyAssistant>, Ours>>,
  Holds<Accepts<UpdateParams, z.input<typeof ModifyAssistant>>>,
  Holds<SameKeys<CreateParams.ToolResources, ToolResources>>,
  Holds<
    SameKeys<CreateParams.ToolResources.CodeInterpreter, z.input<typeof CodeInterpreterResource>>
  >,
  Holds<SameKeys<CreateParams.ToolResources.FileSearch, z.input<typeof FileSearchResource>>>,
  Holds<SameKeys<StoreParams, z.input<typeof VectorStoreHelper>>>,
  Holds<SameKeys<Chunking, OurChunking>>,
  Holds<SameKeys<StaticParams, OurStatic>>,
  Holds<SameKeys<StaticParams['static'], OurStatic['static']>>,
  Holds<SameKeys<UpdateParams.ToolResources, ToolResourceIds>>,
  Holds<SameKeys<UpdateParams.ToolResources.FileSearch, ToolResourceIds['file_search'] & {}>>,
  Holds<SameKeys<Official.CodeInterpreterTool, z.input<typeof CodeInterpreterTool>>>,
  Holds<SameKeys<Official.FileSearchTool, z.input<typeof FileSearchTool>>>,
  Holds<SameKeys<Official.FileSearchTool.FileSearch, z.input<typeof FileSearchOptions>>>,
  Holds<
    SameKeys<
      Official.FileSearchTool.FileSearch.RankingOptions,
      z.input<typeof RankingOptions>,
      'hybrid_search'
    >
  >,
  Holds<SameKeys<Official.FunctionTool, z.input<typeof FunctionTool>>>,
  Holds<SameKeys<Official.FunctionDefinition, z.input<typeof FunctionDefinition>>>,
  Holds<SameKeys<Official.ResponseFormatJSONSchema.JSONSchema, z.input<typeof JsonSchemaFormat>>>,
]
