import type { Logger } from '../log.ts'

/** Runs `work` at boot and then every `ms`, never twice at once; a failure is logged and the loop goes on. */
export function every(
  ms: number,
  log: Logger,
  name: string,
  work: () => Promise<void>,
): AsyncDisposable {
  let timer: NodeJS.Timeout | undefined
  let stopped = false
  const turn = async (): Promise<void> => {
    try {
      await work()
    } catch (error) {
      log.warn({ err: error }, `${name} failed; it is tried again`)
    }
    if (stopped) return
    timer = setTimeout(() => {
      running = turn()
    }, ms)
  }
  let running = turn()
  return {
    async [Symbol.asyncDispose]() {
      stopped = true
      clearTimeout(timer)
      await running
    },
  }
}
