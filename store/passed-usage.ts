import type { Logger } from '../log.ts'
import type { Db } from './db.ts'

/** What requests used that were passed on to the endpoints of models; what runs use is in `usage`. */
export interface PassedUsage extends AsyncDisposable {
  /** Writes a row behind the caller's back: no answer waits for it, and a failure is only logged. */
  count(request: PassedRequest): void
  /** The same for the tokens of an answer that was still being made when its row was written. */
  settle(projectId: string, objectId: string, tokens: Tokens): void
}

export interface PassedRequest {
  projectId: string
  /** The path below `/v1/`. */
  endpoint: string
  /** As the client named it; undefined where it did not. */
  model: string | undefined
  /** The id of the object that the endpoint keeps, where it does. */
  objectId: string | undefined
  /** Undefined where the endpoint did not tell. */
  tokens: Tokens | undefined
}

export interface Tokens {
  prompt: number | null
  completion: number | null
  cached: number | null
  reasoning: number | null
}

export function createPassedUsage(db: Db, log: Logger): PassedUsage {
  const writing = new Set<Promise<unknown>>()

  function write(statement: string, values: unknown[]): void {
    const done = db
      .sql(statement, values)
      .catch((error: unknown) => log.error({ err: error }, 'the usage of a request is lost'))
      .finally(() => writing.delete(done))
    writing.add(done)
  }

  return {
    count({ projectId, endpoint, model, objectId, tokens }) {
      write(
        `INSERT INTO passed_usage (project_id, endpoint, model, object_id,
           prompt_tokens, completion_tokens, cached_tokens, reasoning_tokens)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
        [projectId, endpoint, model ?? null, objectId ?? null, ...columns(tokens)],
      )
    },
    settle(projectId, objectId, tokens) {
      write(
        `UPDATE passed_usage SET prompt_tokens = $3, completion_tokens = $4, cached_tokens = $5, reasoning_tokens = $6
         WHERE project_id = $1 AND object_id = $2 AND prompt_tokens IS NULL`,
        [projectId, objectId, ...columns(tokens)],
      )
    },
    async [Symbol.asyncDispose]() {
      await Promise.all(writing)
    },
  }
}

function columns(tokens: Tokens | undefined): (number | null)[] {
  if (!tokens) return [null, null, null, null]
  return [tokens.prompt, tokens.completion, tokens.cached, tokens.reasoning]
}
