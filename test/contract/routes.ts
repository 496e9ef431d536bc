import { createRouters, type ApiDeps } from '../../api/app.ts'
import { openDocument, type Dialect, type Operation } from './document.ts'

/** One method of one path that the server knows. */
export interface Route {
  /** `GET /v1/threads/:thread_id`. */
  name: string
  method: string
  /** `/v1/threads/:thread_id`. */
  path: string
  /** The names of the ids in the path, from left to right. */
  params: string[]
}

/** Every route of the server, from the table that it answers by. */
export function allRoutes(): Route[] {
  return Object.values(createRouters(nothing as ApiDeps)).flatMap(({ stack }) =>
    stack.flatMap(({ methods, path, paramNames }) =>
      methods
        .filter((method) => method !== 'HEAD')
        .map((method) => ({
          name: `${method} ${String(path)}`,
          method,
          path: String(path),
          params: paramNames.map(({ name }) => name),
        })),
    ),
  )
}

/** The operations of a document that the server knows, whatever their ids are called on either side. */
export function servedOperations(dialect: Dialect): Operation[] {
  const served = new Set(
    allRoutes().map(({ method, path }) => `${method} ${path.replaceAll(/[:*]\w+/g, '{}')}`),
  )
  return openDocument(dialect).operations.filter(({ method, path }) =>
    served.has(`${method} /v1${path.replaceAll(/\{\w+\}/g, '{}')}`),
  )
}

/** Whatever is asked of it is itself again: routes are only listed here, and nobody calls them. */
const nothing: unknown = new Proxy(() => nothing, { get: () => nothing, apply: () => nothing })
