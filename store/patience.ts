import { isConnectionError } from './db.ts'

const againMs = 250

/** Repeats what reads until there is a database to read from; undefined once `signal` aborts. */
export async function patiently<T>(
  signal: AbortSignal,
  read: () => Promise<T>,
): Promise<T | undefined> {
  while (!signal.aborted) {
    try {
      return await read()
    } catch (error) {
      if (!isConnectionError(error)) throw error
      await new Promise((resolve) => setTimeout(resolve, againMs))
    }
  }
  return undefined
}
