import { existsSync } from 'node:fs'
import { request, type IncomingMessage } from 'node:http'
import { homedir } from 'node:os'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import { json, text } from 'node:stream/consumers'
import { setTimeout as sleep } from 'node:timers/promises'

import { z } from 'zod'

/** What is asked of a docker daemon beside running a container: by its own HTTP, ten times as fast as by its command. */
export interface DockerDaemon {
  info(): Promise<DaemonInfo>
  /** The image's id; undefined where it is not there. */
  imageId(name: string): Promise<string | undefined>
  importImage(name: string, tar: Readable): Promise<void>
  inspect(container: string): Promise<Container | undefined>
  /** The ids of all that have the label, also of those that have ended. */
  labelled(label: string): Promise<string[]>
  /** Kills and removes it, and resolves when it is gone, also where others are at it. */
  remove(container: string): Promise<void>
}

/** It answered, with an error, or it did not. */
export class DockerDaemonError extends Error {
  override name = 'DockerDaemonError'
  /** Of HTTP; undefined where there was no answer. */
  readonly status: number | undefined

  constructor(message: string, status?: number, options?: ErrorOptions) {
    super(message, options)
    this.status = status
  }
}

const DaemonInfo = z.object({
  ServerVersion: z.string(),
  MemoryLimit: z.boolean().optional(),
  PidsLimit: z.boolean().optional(),
  CpuCfsQuota: z.boolean().optional(),
  SecurityOptions: z.array(z.string()).nullish(),
})
const Image = z.object({ Id: z.string() })
const Container = z.object({ Id: z.string(), State: z.object({ Pid: z.number() }) })
const Labelled = z.object({ Id: z.string() })

export type DaemonInfo = z.infer<typeof DaemonInfo>
export type Container = z.infer<typeof Container>

const TIMEOUT_MS = 20_000
const REMOVE_TRIES = 250
const REMOVE_PAUSE_MS = 20

/** Where daemons of this machine listen: the system's, the user's own (rootless), the one of a desktop. */
export function dockerSockets(uid: number | undefined): string[] {
  return [
    '/var/run/docker.sock',
    ...(uid === undefined ? [] : [`/run/user/${uid}/docker.sock`]),
    join(homedir(), '.docker', 'run', 'docker.sock'),
  ]
}

export function findSocket(uid: number | undefined): string | undefined {
  return dockerSockets(uid).find((path) => existsSync(path))
}

export function openDaemon(socketPath: string): DockerDaemon {
  const ask = (method: string, path: string, body?: Readable): Promise<IncomingMessage> =>
    send(socketPath, method, path, body)

  /** Undefined where the thing is not there. */
  async function find<T>(path: string, shape: z.ZodType<T>): Promise<T | undefined> {
    try {
      return shape.parse(await json(await ask('GET', path)))
    } catch (error) {
      if (error instanceof DockerDaemonError && error.status === 404) return undefined
      throw error
    }
  }

  const inspect = (container: string): Promise<Container | undefined> =>
    find(`/containers/${encodeURIComponent(container)}/json`, Container)

  return {
    info: async () => DaemonInfo.parse(await json(await ask('GET', '/info'))),
    imageId: async (name) => (await find(`/images/${encodeURIComponent(name)}/json`, Image))?.Id,
    async importImage(name, tar) {
      const [repo = '', tag = 'latest'] = name.split(':')
      const query = new URLSearchParams({ fromSrc: '-', repo, tag })
      const answer = await text(await ask('POST', `/images/create?${query.toString()}`, tar))
      // It has answered with 200 before it begins: errors come in the body.
      if (answer.includes('"errorDetail"')) throw new DockerDaemonError(answer.trim())
    },
    inspect,
    async labelled(label) {
      const query = new URLSearchParams({
        all: 'true',
        filters: JSON.stringify({ label: [label] }),
      })
      const found = await json(await ask('GET', `/containers/json?${query.toString()}`))
      return z
        .array(Labelled)
        .parse(found)
        .map(({ Id }) => Id)
    },
    async remove(container) {
      for (let tries = 0; tries < REMOVE_TRIES; tries += 1) {
        if (await removed(container)) return
        await sleep(REMOVE_PAUSE_MS)
      }
      throw new DockerDaemonError(`The container ${container} could not be removed.`)
    },
  }

  async function removed(container: string): Promise<boolean> {
    try {
      await text(await ask('DELETE', `/containers/${encodeURIComponent(container)}?force=true`))
      return true
    } catch (error) {
      const status = error instanceof DockerDaemonError ? error.status : undefined
      if (status === 404) return true
      if (status === 409) return false // it is being removed
      throw error
    }
  }
}

/** The paths have no version: the daemon then takes its own, and what is asked here is in all of them. */
async function send(
  socketPath: string,
  method: string,
  path: string,
  body?: Readable,
): Promise<IncomingMessage> {
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    const headers = { host: 'docker', ...(body && { 'content-type': 'application/x-tar' }) }
    const asked = request({ socketPath, method, path, headers, timeout: TIMEOUT_MS }, resolve)
    asked.once('timeout', () => asked.destroy(new Error('it did not answer in time')))
    asked.once('error', (cause) => {
      reject(
        new DockerDaemonError(`The docker daemon at ${socketPath}: ${cause.message}`, undefined, {
          cause,
        }),
      )
    })
    if (body) body.pipe(asked)
    else asked.end()
  })
  const { statusCode = 0 } = response
  if (statusCode < 400) return response
  const said = await text(response)
  throw new DockerDaemonError(messageOf(said), statusCode)
}

function messageOf(said: string): string {
  try {
    return z.object({ message: z.string() }).parse(JSON.parse(said)).message
  } catch {
    return said.trim()
  }
}
