import { randomUUID } from 'node:crypto'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'

import type { Logger } from '../log.ts'
import {
  removeTree,
  Sandbox,
  SandboxStartError,
  type SandboxLimits,
  type SandboxOptions,
  type SandboxProvider,
} from '../sandbox/index.ts'

export interface PlaceOptions {
  log: Logger
  /** Undefined until it is known what runs code here. */
  provider: () => SandboxProvider | undefined
  /** Directories of the threads' files. */
  dir: string
  limits: SandboxLimits
  network: SandboxOptions['network']
  /** Sandboxes that are kept started for threads to come. */
  warmSpares: number
  /** Called with each start of a sandbox, and with the error where it failed. */
  onStart: (error?: unknown) => void
}

/** A sandbox and the directory that is its /mnt/data. */
export interface Place {
  sandbox: Sandbox
  dir: string
}

export interface Places extends AsyncDisposable {
  /** One that nobody has used. Throws SandboxStartError. */
  take(): Promise<Place>
  /** Ends it, and removes what lies in it; what cannot be removed is told to the log. */
  drop(place: Place): Promise<void>
  /** Starts spares where some are missing. */
  refill(): void
}

export function createPlaces(options: PlaceOptions): Places {
  const { log, dir, limits, network } = options
  const spares: Promise<Place | undefined>[] = []
  let isClosed = false

  async function start(): Promise<Place> {
    const provider = options.provider()
    if (!provider) throw new Error('This host has no sandboxes yet')
    const dataDir = join(dir, randomUUID())
    await mkdir(dataDir, { recursive: true, mode: 0o700 })
    try {
      const sandbox = await Sandbox.create(provider, { dataDir, limits, network })
      options.onStart()
      return { sandbox, dir: dataDir }
    } catch (error) {
      options.onStart(error)
      await remove(dataDir)
      if (error instanceof SandboxStartError) throw error
      const why = error instanceof Error ? error.message : String(error)
      throw new SandboxStartError(why, { cause: error })
    }
  }

  async function remove(dataDir: string): Promise<void> {
    await removeTree(dataDir).catch((error: unknown) =>
      log.error({ err: error, dir: dataDir }, 'the files of a sandbox could not be removed'),
    )
  }

  async function drop({ sandbox, dir: dataDir }: Place): Promise<void> {
    await sandbox
      .terminate()
      .catch((error: unknown) => log.error({ err: error }, 'a sandbox could not be ended'))
    await remove(dataDir)
  }

  return {
    drop,
    async take() {
      const spare = await spares.shift()
      if (spare && spare.sandbox.poll() === null) return spare
      if (spare) await drop(spare)
      return start()
    },
    refill() {
      while (!isClosed && options.provider() && spares.length < options.warmSpares) {
        spares.push(
          start().catch((error: unknown) => {
            log.warn({ err: error }, 'a spare sandbox could not be started')
            return undefined
          }),
        )
      }
    },
    async [Symbol.asyncDispose]() {
      isClosed = true
      await Promise.all(
        spares.map(async (spare) => {
          const place = await spare
          if (place) await drop(place)
        }),
      )
    },
  }
}
