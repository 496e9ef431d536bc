import { setTimeout as sleep } from 'node:timers/promises'

import { NativeConnection } from '@temporalio/worker'

import type { Logger } from '../log.ts'

/**
 * A connection to Temporal that is waited for in the background: the native one has no lazy mode, and a server that is
 * away must not keep us from serving. Undefined where the signal aborts first.
 */
export async function connectPatiently(
  options: { address: string; log: Logger; connection?: object },
  signal: AbortSignal,
): Promise<NativeConnection | undefined> {
  for (let waitMs = 100, told = false; !signal.aborted; waitMs = Math.min(waitMs * 2, 2000)) {
    try {
      return await NativeConnection.connect({ ...options.connection, address: options.address })
    } catch (error) {
      if (!told) {
        options.log.warn(
          { err: error, address: options.address },
          'Temporal cannot be reached; it is tried again until it can. Runs are accepted and start then',
        )
      }
      told = true
      await sleep(waitMs, undefined, { signal }).catch(() => {})
    }
  }
  return undefined
}
