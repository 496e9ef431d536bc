import { timingSafeEqual } from 'node:crypto'

import type { Middleware } from 'koa'

import type { Keys } from '../../store/keys.ts'
import type { ProjectRow } from '../../store/rows.ts'
import { ApiError, badApiKey, missingApiKey } from '../../wire/errors.ts'
import type { State } from '../context.ts'

/** Who may ask, and for which project. */
export interface Access {
  keys: Keys
  /** The project of the admin key, and of everybody on a loopback server without keys. */
  defaultProjectId: ProjectRow['id']
  adminKey: string | undefined
  /** Whether the server listens on a loopback address only. */
  isLoopback: boolean
}

/** A key that has just been made closes an open server after this long. */
const openForMs = 2000

/**
 * Bearer keys, each of one project. While there is no key at all a loopback server lets every bearer in, but only requests
 * that come from programs of this machine: a web page that a browser here has open must not reach a server that runs code.
 */
export function authenticated(access: Access): Middleware<State> {
  const isOpen = openServer(access)
  return async (ctx, next) => {
    const key = /^Bearer\s+(\S+)$/i.exec(ctx.get('authorization'))?.[1]
    if (await isOpen()) {
      assertLocal(ctx.get('host'), ctx.get('origin'))
      if (!key) throw missingApiKey()
      ctx.state.projectId = access.defaultProjectId
    } else {
      if (!key) throw missingApiKey()
      const projectId = isAdminKey(access.adminKey, key)
        ? access.defaultProjectId
        : await access.keys.projectOf(key)
      if (!projectId) throw badApiKey(key)
      ctx.state.projectId = projectId
    }
    ctx.set('openai-project', ctx.state.projectId)
    await next()
  }
}

export function isLoopbackHost(host: string): boolean {
  return /^(localhost|127(\.\d{1,3}){3}|\[?::1\]?)$/i.test(host)
}

/** Whether everybody is let in; asked of the database now and then, since keys are made while we run. */
function openServer(access: Access): () => Promise<boolean> {
  if (!access.isLoopback || access.adminKey !== undefined) return async () => false
  let open = Promise.resolve(false)
  let until = 0
  return () => {
    if (Date.now() > until) {
      until = Date.now() + openForMs
      open = access.keys.any().then((any) => !any)
      open.catch(() => (until = 0))
    }
    return open
  }
}

/** A page that lets its own name point at 127.0.0.1 sends that name as Host; any page sends its Origin. */
function assertLocal(host: string, origin: string): void {
  const name = host.replace(/:\d+$/, '')
  if (!isLoopbackHost(name)) {
    throw forbidden(
      `This server has no API keys, so it answers only to a loopback name, and not to '${name}'.`,
    )
  }
  if (origin !== '' && origin !== `http://${host}`) {
    throw forbidden(
      `This server has no API keys, so it answers no pages of other origins ('${origin}').`,
    )
  }
}

function forbidden(sentence: string): ApiError {
  return new ApiError(403, `${sentence} Make a key with \`npm run admin -- key create\`.`, {
    code: 'forbidden',
  })
}

function isAdminKey(adminKey: string | undefined, key: string): boolean {
  if (adminKey === undefined) return false
  const [a, b] = [Buffer.from(adminKey), Buffer.from(key)]
  return a.length === b.length && timingSafeEqual(a, b)
}
