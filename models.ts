import { readFileSync } from 'node:fs'

import { z } from 'zod'

import type { Price as ModelPrice } from './wire/cost.ts'

/**
 * The models table: which endpoint answers to a name, and what must be known of it. Any OpenAI-compatible
 * `/chat/completions` will do. Read at boot from `MODELS_FILE`, or made of `UPSTREAM_BASE_URL` alone.
 */
export interface Models {
  /** Where the name is answered: unknown names pass through or go to the default. Else throws an `UnknownModelError`. */
  resolve(name: string): Promise<ModelRoute>
  /** The same, and undefined where no endpoint answers to the name. */
  find(name: string): Promise<ModelRoute | undefined>
  /** Whether the table answers to the name itself, and does not leave it to an endpoint to refuse it. */
  answersTo(name: string): Promise<boolean>
  /** Where requests go that name no model: the endpoint of the default, else the first. Undefined where there is none. */
  unnamed(): Endpoint | undefined
  /** The names to offer, for GET /v1/models. */
  list(): Promise<ListedModel[]>
}

export interface Endpoint {
  /** Without a slash at its end. */
  baseUrl: string
  apiKey: string
  quirks: Quirks
}

export interface ModelRoute extends Endpoint {
  /** The name at the endpoint. */
  upstreamName: string
  /** Tokens. */
  contextSize: number
  /** Null where nobody has said what it costs. */
  price: ModelPrice | null
}

export interface ListedModel {
  id: string
  created: number
  ownedBy: string
}

export type Quirks = z.infer<typeof Quirks>

const Quirks = z.strictObject({
  /** The endpoint refuses `parallel_tool_calls`. */
  no_parallel_tool_calls: z.boolean().default(false),
  /** The endpoint refuses `stream_options`, and so tells no usage. */
  no_stream_options: z.boolean().default(false),
  /** The name of the parameter that limits what the model writes. */
  max_tokens_name: z.enum(['max_completion_tokens', 'max_tokens']).default('max_completion_tokens'),
  /** The role that instructions have; with `none`, for templates that know no such role, they begin the first user message. */
  system_role: z.enum(['system', 'developer', 'none']).default('system'),
  /** The endpoint refuses `tool_choice`, or does not heed it. Then `required` and named tools are left to the instructions. */
  no_tool_choice: z.boolean().default(false),
  /** The endpoint refuses `strict` in functions. We check the arguments of strict functions in any case. */
  no_strict: z.boolean().default(false),
  /** The endpoint refuses `response_format`. */
  no_response_format: z.boolean().default(false),
  /** The model cannot see: it is told that there was an image. */
  no_images: z.boolean().default(false),
})

/** Of an endpoint that takes all that the original took. */
export const defaultQuirks: Quirks = Quirks.parse({})

const dollars = z.number().min(0)
/** US dollars for a million tokens. */
const Price = z.strictObject({
  input: dollars,
  cached_input: dollars.optional(),
  output: dollars,
}) satisfies z.ZodType<ModelPrice>

const ModelsFile = z.strictObject({
  /** The entry for names that no other entry matches; without it they are errors of the run. */
  default: z.string().optional(),
  models: z.array(
    z.strictObject({
      /** A name, or a pattern with `*`. */
      name: z.string().min(1),
      base_url: z.url(),
      /** The key itself, or better the name of the variable that holds it. */
      api_key: z.string().optional(),
      api_key_env: z.string().optional(),
      /** The name at the endpoint, if it is another one. */
      upstream_name: z.string().optional(),
      context_size: z.number().int().positive().default(128_000),
      price: Price.optional(),
      quirks: Quirks.default(defaultQuirks),
    }),
  ),
})

type FileModel = z.infer<typeof ModelsFile>['models'][number]

export interface ModelsConfig {
  file: string | undefined
  upstream: { baseUrl: string; apiKey: string | undefined } | undefined | ''
  defaultModel: string | undefined
  env: NodeJS.ProcessEnv
}

/** An upstream that lists its models is asked again after this long. */
const listedForMs = 60_000
/** One that could not is asked again after this long. */
const retriedAfterMs = 5000
const defaultContextSize = 128_000

/** Throws where the models file cannot be read or is wrong, saying where. */
export function createModels(config: ModelsConfig): Models {
  if (config.file) return fromFile(config.file, config.defaultModel, config.env)
  if (config.upstream) return fromUpstream(config.upstream, config.defaultModel)
  throw new Error('No model is configured: set UPSTREAM_BASE_URL or MODELS_FILE')
}

/** For a request that no endpoint answers to. */
export class UnknownModelError extends Error {
  constructor(name: string, known: string[]) {
    super(`The model '${name}' is not in the models file, which names: ${known.join(', ')}.`)
    this.name = 'UnknownModelError'
  }
}

function fromUpstream(
  upstream: { baseUrl: string; apiKey: string | undefined },
  defaultModel: string | undefined,
): Models {
  const apiKey = upstream.apiKey ?? 'none'
  const listed = cached(() => listUpstream(upstream.baseUrl, apiKey), listedForMs)
  const endpoint = { baseUrl: upstream.baseUrl, apiKey, quirks: defaultQuirks }
  const resolve = async (name: string): Promise<ModelRoute> => {
    const upstreamName = defaultModel && !(await knows(listed, name)) ? defaultModel : name
    return { ...endpoint, upstreamName, contextSize: defaultContextSize, price: null }
  }
  return {
    resolve,
    find: resolve,
    async answersTo(name) {
      return defaultModel !== undefined || ((await listed()) ?? []).some(({ id }) => id === name)
    },
    unnamed: () => endpoint,
    list: async () => (await listed()) ?? [],
  }
}

function fromFile(path: string, defaultModel: string | undefined, env: NodeJS.ProcessEnv): Models {
  const parsed = ModelsFile.safeParse(readJson(path))
  if (!parsed.success) throw new Error(`${path} is not usable:\n${z.prettifyError(parsed.error)}`)
  const { models, default: fallback = defaultModel } = parsed.data
  const find = (name: string) => models.find((model) => matches(model.name, name))
  if (fallback !== undefined && !find(fallback)) {
    throw new Error(`${path}: the default '${fallback}' is the name of no model in it`)
  }
  for (const { name, api_key_env: variable } of models) {
    if (variable !== undefined && !env[variable]) {
      throw new Error(`${path}: '${name}' takes its key from ${variable}, which is not set`)
    }
  }
  const route = (name: string): ModelRoute | undefined => {
    const asked = fallback === undefined || find(name) ? name : fallback
    const model = find(asked)
    if (!model) return undefined
    const ownName = model.name.includes('*') ? asked : model.name
    return {
      ...endpointOf(model, env),
      upstreamName: model.upstream_name ?? ownName,
      contextSize: model.context_size,
      price: model.price ?? null,
    }
  }
  return {
    async resolve(name) {
      const found = route(name)
      if (found) return found
      const known = models.map((one) => one.name)
      throw new UnknownModelError(name, known)
    },
    find: async (name) => route(name),
    answersTo: async (name) => route(name) !== undefined,
    unnamed() {
      const model = fallback === undefined ? models[0] : find(fallback)
      return model && endpointOf(model, env)
    },
    list: async () =>
      models
        .filter(({ name }) => !name.includes('*'))
        .map(({ name }) => ({ id: name, created: 0, ownedBy: 'longrun' })),
  }
}

function endpointOf(model: FileModel, env: NodeJS.ProcessEnv): Endpoint {
  const key = model.api_key_env ? env[model.api_key_env] : model.api_key
  return {
    baseUrl: model.base_url.replace(/\/+$/, ''),
    apiKey: key ?? 'none',
    quirks: model.quirks,
  }
}

function readJson(path: string): unknown {
  try {
    return JSON.parse(readFileSync(path, 'utf8'))
  } catch (error) {
    throw new Error(`The models file ${path} could not be read`, { cause: error })
  }
}

function matches(pattern: string, name: string): boolean {
  const parts = pattern.split('*').map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'))
  return new RegExp(`^${parts.join('.*')}$`).test(name)
}

/** An upstream that cannot list its models is taken to know every name. */
async function knows(
  listed: () => Promise<ListedModel[] | undefined>,
  name: string,
): Promise<boolean> {
  const models = await listed()
  return !models || models.some(({ id }) => id === name)
}

const ModelList = z.object({
  data: z.array(
    z.object({
      id: z.string(),
      created: z.number().catch(0),
      owned_by: z.string().catch('upstream'),
    }),
  ),
})

async function listUpstream(baseUrl: string, apiKey: string): Promise<ListedModel[] | undefined> {
  try {
    const answer = await fetch(`${baseUrl}/models`, {
      headers: { authorization: `Bearer ${apiKey}` },
      signal: AbortSignal.timeout(5000),
    })
    const { data } = ModelList.parse(await answer.json())
    return data.map(({ id, created, owned_by }) => ({ id, created, ownedBy: owned_by }))
  } catch {
    // Many servers have no such list, and one that is away now is asked again later.
    return undefined
  }
}

/** The last good answer; one that is older than `ms` is asked for anew, behind the callers' backs. */
function cached<T>(load: () => Promise<T | undefined>, ms: number): () => Promise<T | undefined> {
  let good: T | undefined
  let loading: Promise<T | undefined> | undefined
  let nextAt = 0
  return async () => {
    if (!loading && Date.now() >= nextAt) {
      loading = load().then((loaded) => {
        good = loaded ?? good
        nextAt = Date.now() + (loaded === undefined ? retriedAfterMs : ms)
        loading = undefined
        return good
      })
    }
    return good ?? loading
  }
}
