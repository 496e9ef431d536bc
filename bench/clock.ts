/** Milliseconds of a clock that all processes of a machine share, which `performance.now()` is not. */
export function nowMs(): number {
  return Number(process.hrtime.bigint()) / 1e6
}

/** Waits, or throws what `stop` aborts with. */
export async function pause(ms: number, stop: AbortSignal): Promise<void> {
  stop.throwIfAborted()
  await new Promise<void>((resolve, reject) => {
    const timer = setTimeout(() => {
      stop.removeEventListener('abort', onAbort)
      resolve()
    }, ms)
    const onAbort = (): void => {
      clearTimeout(timer)
      reject(stop.reason as Error)
    }
    stop.addEventListener('abort', onAbort, { once: true })
  })
}
