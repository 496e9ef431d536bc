import { loadClientConnectConfig } from '@temporalio/envconfig'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { z } from 'zod'

/**
 * The only reader of environment variables. `loadConfig(process.env)` is called once by each main; everyone else is handed
 * the piece that it needs. Units are in the names; a message says which variable to set and to what.
 */
export type Config = ReturnType<typeof loadConfig>

const Roles = z.enum(['all', 'api', 'worker'])
const port = (fallback: number) => z.coerce.number().int().min(0).max(65_535).default(fallback)
const seconds = (fallback: number, max: number) =>
  z.coerce.number().positive().max(max).default(fallback)
const whole = (fallback: number, min: number, max: number) =>
  z.coerce.number().int().min(min).max(max).default(fallback)
const url = z.url({ protocol: /^https?$/ }).transform((value) => value.replace(/\/+$/, ''))

const allowed = 'must be host:port, or several with commas, as in api.example.com:443'

const Env = z.object({
  ROLE: Roles.default('all'),
  HOST: z.string().default('127.0.0.1'),
  PORT: port(3000),
  DATA_DIR: z.string().default('.data'),
  FILES_DIR: z.string().optional(),
  FILES_DOWNLOAD: z.enum(['all', 'outputs']).default('all'),
  FILES_S3_BUCKET: z.string().optional(),
  FILES_S3_PREFIX: z.string().optional(),
  FILES_S3_REGION: z.string().optional(),
  FILES_S3_ENDPOINT: url.optional(),
  FILES_S3_ACCESS_KEY_ID: z.string().optional(),
  FILES_S3_SECRET_ACCESS_KEY: z.string().optional(),
  LOG_LEVEL: z.enum(['trace', 'debug', 'info', 'warn', 'error', 'silent']).default('warn'),
  ADMIN_KEY: z.string().min(16).optional(),

  DATABASE_URL: z.url({ protocol: /^postgres(ql)?$/ }).optional(),
  POSTGRES_PORT: port(5433),
  TEMPORAL_ADDRESS: z
    .string()
    .regex(/^[^/\s]+:\d+$/, 'must be host:port, as in 127.0.0.1:7233')
    .optional(),
  TEMPORAL_NAMESPACE: z.string().default('longrun'),
  TEMPORAL_TASK_QUEUE: z.string().default('runs'),
  TEMPORAL_PORT: port(7233),
  TEMPORAL_UI_PORT: port(8233),
  TEMPORAL_UI_URL: url.optional(),
  TEMPORAL_CLI_PATH: z.string().optional(),
  CHROMA_URL: url.optional(),
  CHROMA_PORT: port(8000),

  UPSTREAM_BASE_URL: url.optional(),
  UPSTREAM_API_KEY: z.string().optional(),
  DEFAULT_MODEL: z.string().optional(),
  MODELS_FILE: z.string().optional(),
  MODEL_IDLE_TIMEOUT_S: seconds(120, 3600),
  MODEL_ATTEMPTS: z.coerce.number().int().min(1).max(100).default(6),

  SANDBOX_PROVIDER: z.enum(['auto', 'docker', 'bubblewrap', 'runsc', 'none']).default('auto'),
  SANDBOX_ROOT: z.string().optional(),
  SANDBOX_IMAGE: z.string().optional(),
  DOCKER_HOST: z.string().optional(),
  SANDBOX_MEMORY_MB: whole(512, 256, 1_048_576),
  SANDBOX_CPUS: z.coerce.number().min(0.1).max(1024).default(1),
  SANDBOX_PROCESSES: whole(128, 16, 32_768),
  SANDBOX_DISK_MB: whole(1024, 1, 1_048_576),
  SANDBOX_TIMEOUT_S: seconds(120, 86_400),
  SANDBOX_IDLE_S: seconds(3600, 30 * 86_400),
  SANDBOX_POOL: whole(1, 0, 100),
  SANDBOX_MAX: whole(32, 1, 10_000),
  SANDBOX_ALLOW: z
    .string()
    .transform((list) => list.split(',').map((entry) => entry.trim()))
    .pipe(z.array(z.string().regex(/^(?:[\w.-]+|\[[\da-fA-F:.]+\]):\d{1,5}$/, allowed)))
    .optional(),

  RUN_EXPIRES_S: seconds(600, 90 * 86_400),
  RUN_MAX_STEPS: z.coerce.number().int().min(1).max(1000).default(50),
  RECONCILE_S: seconds(60, 3600),
  SHUTDOWN_GRACE_S: seconds(5, 600),

  // What local/setup.mjs found; not for people.
  LONGRUN_TEMPORAL_CLI: z.string().optional(),
  LONGRUN_CHROMA: z.string().optional(),
  LONGRUN_CACHE: z.string().optional(),
  XDG_CACHE_HOME: z.string().optional(),
  OPENAI_API_KEY: z.string().optional(),
})

/** Reads and checks the environment. Throws one Error that lists every bad variable, what it holds and what it accepts. */
export function loadConfig(env: NodeJS.ProcessEnv) {
  const set = Object.fromEntries(Object.entries(env).filter(([, value]) => value !== ''))
  const parsed = Env.safeParse(set)
  if (!parsed.success) {
    const lines = parsed.error.issues.map((issue) => `  ${issue.path.join('.')}: ${issue.message}`)
    throw new Error(`The configuration is not usable:\n${lines.join('\n')}`)
  }
  const e = parsed.data
  const unused = (['UPSTREAM_API_KEY', 'DEFAULT_MODEL'] as const).find(
    (name) => e[name] !== undefined,
  )
  if (unused && !e.UPSTREAM_BASE_URL && !e.MODELS_FILE) {
    throw new Error(
      `${unused} is set, but no endpoint that it is for: set UPSTREAM_BASE_URL or MODELS_FILE`,
    )
  }
  return {
    files: filesOf(e),
    sandbox: sandboxOf(e),
    role: e.ROLE,
    host: e.HOST,
    port: e.PORT,
    dataDir: e.DATA_DIR,
    logLevel: e.LOG_LEVEL,
    adminKey: e.ADMIN_KEY,
    databaseUrl: e.DATABASE_URL,
    postgresPort: e.POSTGRES_PORT,
    temporal: {
      address: e.TEMPORAL_ADDRESS,
      namespace: e.TEMPORAL_NAMESPACE,
      taskQueue: e.TEMPORAL_TASK_QUEUE,
      port: e.TEMPORAL_PORT,
      uiPort: e.TEMPORAL_UI_PORT,
      uiUrl: e.TEMPORAL_UI_URL,
      cliPath: e.LONGRUN_TEMPORAL_CLI ?? e.TEMPORAL_CLI_PATH,
      // TEMPORAL_API_KEY, TEMPORAL_TLS*, TEMPORAL_PROFILE and the others that every Temporal client knows.
      connection: e.TEMPORAL_ADDRESS
        ? loadClientConnectConfig({ overrideEnvVars: definedOf(set) }).connectionOptions
        : // Our own server is on this machine: packing what it is told costs more than it saves.
          { grpcCompression: { codec: 'none' as const } },
    },
    chroma: { url: e.CHROMA_URL, port: e.CHROMA_PORT, spec: e.LONGRUN_CHROMA },
    models: {
      upstream: e.UPSTREAM_BASE_URL && { baseUrl: e.UPSTREAM_BASE_URL, apiKey: e.UPSTREAM_API_KEY },
      defaultModel: e.DEFAULT_MODEL,
      file: e.MODELS_FILE,
      idleTimeoutMs: e.MODEL_IDLE_TIMEOUT_S * 1000,
      attempts: e.MODEL_ATTEMPTS,
    },
    runs: { expiresAfterS: e.RUN_EXPIRES_S, maxSteps: e.RUN_MAX_STEPS },
    reconcileMs: e.RECONCILE_S * 1000,
    hasOpenAiKey: e.OPENAI_API_KEY !== undefined,
    shutdownGraceMs: e.SHUTDOWN_GRACE_S * 1000,
  }
}

function filesOf(e: z.infer<typeof Env>) {
  const { FILES_S3_BUCKET: bucket, FILES_S3_ACCESS_KEY_ID: id, FILES_S3_SECRET_ACCESS_KEY: key } = e
  const unused = s3Names.find((name) => e[name] !== undefined)
  if (unused && !bucket) throw new Error(`${unused} is set, but no bucket: set FILES_S3_BUCKET`)
  if ((id === undefined) !== (key === undefined)) {
    throw new Error(
      'FILES_S3_ACCESS_KEY_ID and FILES_S3_SECRET_ACCESS_KEY belong together: set both, or neither for what the AWS SDK finds',
    )
  }
  return {
    dir: e.FILES_DIR ?? join(e.DATA_DIR, 'files'),
    downloadsInputs: e.FILES_DOWNLOAD === 'all',
    s3:
      bucket === undefined
        ? undefined
        : {
            bucket,
            prefix: e.FILES_S3_PREFIX ?? '',
            region: e.FILES_S3_REGION,
            endpoint: e.FILES_S3_ENDPOINT,
            credentials: id && key ? { accessKeyId: id, secretAccessKey: key } : undefined,
          },
  }
}

const megabyte = 1024 * 1024

function sandboxOf(e: z.infer<typeof Env>) {
  const { SANDBOX_PROVIDER: provider, SANDBOX_ROOT: directory, SANDBOX_IMAGE: image } = e
  if (directory !== undefined && image !== undefined) {
    throw new Error('SANDBOX_ROOT and SANDBOX_IMAGE are both set: set the one that is meant')
  }
  if (image !== undefined && (provider === 'bubblewrap' || provider === 'runsc')) {
    throw new Error(
      `SANDBOX_IMAGE is for docker, and SANDBOX_PROVIDER is ${provider}: set SANDBOX_PROVIDER to docker, or SANDBOX_ROOT in place of the image`,
    )
  }
  return {
    provider,
    root: {
      cacheDir: e.LONGRUN_CACHE ?? join(e.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'longrun'),
      directory,
      image,
    },
    limits: {
      memoryBytes: e.SANDBOX_MEMORY_MB * megabyte,
      cpus: e.SANDBOX_CPUS,
      processes: e.SANDBOX_PROCESSES,
      diskBytes: e.SANDBOX_DISK_MB * megabyte,
    },
    cellTimeoutMs: e.SANDBOX_TIMEOUT_S * 1000,
    idleMs: e.SANDBOX_IDLE_S * 1000,
    warmSpares: e.SANDBOX_POOL,
    maxSessions: e.SANDBOX_MAX,
    dockerHost: e.DOCKER_HOST,
    network: e.SANDBOX_ALLOW ? { allow: e.SANDBOX_ALLOW } : ('none' as const),
  }
}

const s3Names = [
  'FILES_S3_PREFIX',
  'FILES_S3_REGION',
  'FILES_S3_ENDPOINT',
  'FILES_S3_ACCESS_KEY_ID',
  'FILES_S3_SECRET_ACCESS_KEY',
] as const

function definedOf(env: Record<string, string | undefined>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(env).filter((entry): entry is [string, string] => entry[1] !== undefined),
  )
}
