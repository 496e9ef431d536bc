/**
 * The numbers that the contract documents, each with where it comes from: "schema" is the published OpenAPI document,
 * "live" what recorded answers of the original service show, "ours" a choice where nothing is known.
 */

// --- text and metadata ---

/** schema */
export const MAX_ASSISTANT_NAME_CHARS = 256
/** schema */
export const MAX_DESCRIPTION_CHARS = 512
/** schema, assistants; runs are held to the same */
export const MAX_INSTRUCTIONS_CHARS = 256_000
/** schema of v1; v2's schema no longer prints a number */
export const MAX_MESSAGE_TEXT_CHARS = 256_000
/** schema */
export const MAX_METADATA_PAIRS = 16
/** schema */
export const MAX_METADATA_KEY_CHARS = 64
/** schema */
export const MAX_METADATA_VALUE_CHARS = 512
/** ours: longer than every id that the original is known to mint */
export const MAX_ID_CHARS = 64
/** ours: the original's is not known; a name that no model has */
export const MAX_MODEL_CHARS = 256
/** ours: Postgres and JSON.stringify both fail on bodies that nest thousands deep */
export const MAX_BODY_DEPTH = 100

/** ours: what a Postgres integer column holds */
export const MAX_INTEGER = 2_147_483_647

// --- tools ---

/** schema, assistants; its 20 for runs is too few for an assistant's own tools, so runs take as many */
export const MAX_TOOLS = 128
/** schema */
export const MAX_FUNCTION_NAME_CHARS = 64
/** live: quoted in its error text */
export const MAX_FUNCTION_DESCRIPTION_CHARS = 1_048_576
/** the structured outputs guide: objects inside of objects; its error text is quoted by many who met it */
export const MAX_STRICT_LEVELS = 10
/** the structured outputs guide: properties of all objects of a schema */
export const MAX_STRICT_PROPERTIES = 5000
/** schema */
export const MAX_CODE_INTERPRETER_FILES = 20
/** schema of v1 */
export const MAX_ASSISTANT_FILES = 20
/** schema of v1 */
export const MAX_MESSAGE_FILES = 10
/** schema: per assistant and per thread */
export const MAX_VECTOR_STORES = 1
/** the file search guide: a store that was made along with a thread, after its last use */
export const THREAD_STORE_EXPIRES_AFTER_DAYS = 7
/** schema: stores made before November 2025; the later 100,000,000 is not for one machine */
export const MAX_VECTOR_STORE_FILES = 10_000
/** schema */
export const MAX_FILE_SEARCH_RESULTS = 50
/** schema */
export const MIN_CHUNK_TOKENS = 100
/** schema */
export const MAX_CHUNK_TOKENS = 4096
/** schema */
export const DEFAULT_CHUNK_TOKENS = 800
/** schema: never more than half of the chunk */
export const DEFAULT_CHUNK_OVERLAP_TOKENS = 400

// --- runs ---

/** schema says 256; the live service took 100 and reports name 16 as the lowest */
export const MIN_TOKEN_BUDGET = 16
/** schema */
export const MAX_TEMPERATURE = 2
/** schema */
export const MAX_TOP_P = 1
/** live: expires_at - created_at */
export const RUN_EXPIRES_AFTER_SECONDS = 600
/** ours: 90 days, for `expires_after_seconds` */
export const MAX_RUN_EXPIRES_AFTER_SECONDS = 7_776_000
/** ours: model turns of one run, for `max_steps` */
export const MAX_STEPS = 1000
/** ours: for `fallback_models` */
export const MAX_FALLBACK_MODELS = 8
/** ours: runs that wait in the queue of one thread; whoever interrupts cancels them in one transaction */
export const MAX_WAITING_RUNS = 100
/** the file search guide: how long a run waits for files of the thread's store */
export const WAIT_FOR_THREAD_FILES_SECONDS = 60

/** ours: the end of the year 9999, where times of four digits end */
export const MAX_SECONDS = 253_402_300_799
/** ours: words to look for in threads */
export const MAX_SEARCH_CHARS = 512
/** ours: for `?wait=`; proxies tend to give up after a minute */
export const MAX_WAIT_SECONDS = 60

// --- files ---

/** schema */
export const MAX_FILE_BYTES = 512 * 1024 * 1024
/** schema */
export const MAX_UPLOAD_BYTES = 8 * 1024 * 1024 * 1024
/** schema */
export const MAX_PART_BYTES = 64 * 1024 * 1024
/** schema */
export const UPLOAD_EXPIRES_AFTER_SECONDS = 3600
/** schema */
export const MIN_FILE_EXPIRES_AFTER_SECONDS = 3600
/** schema */
export const MAX_FILE_EXPIRES_AFTER_SECONDS = 2_592_000
/** schema */
export const BATCH_FILE_EXPIRES_AFTER_SECONDS = 2_592_000
/** ours: as long as file systems allow */
export const MAX_FILENAME_CHARS = 255
/** ours */
export const MAX_MIME_TYPE_CHARS = 255
/** ours: 8 GB in parts of 64 MB are 128; smaller parts are welcome */
export const MAX_UPLOAD_PARTS = 10_000

// --- lists ---

/** schema */
export const DEFAULT_PAGE_SIZE = 20
/** schema */
export const MAX_PAGE_SIZE = 100
/** schema */
export const MAX_FILES_PAGE_SIZE = 10_000
/** ours: days times models of `GET /v1/usage`, about 3 MB */
export const MAX_USAGE_ROWS = 10_000
