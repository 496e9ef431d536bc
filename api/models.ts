import type { Router } from '@koa/router'

import type { ListedModel } from '../models.ts'
import { modelNotFound } from '../wire/errors.ts'
import type { Model } from '../wire/openai.ts'
import type { ApiDeps } from './app.ts'
import type { Context, State } from './context.ts'

export function modelRoutes(router: Router<State>, { models }: ApiDeps): void {
  router.get('/models', list)
  // Names hold slashes and colons: everything after /models/ is the name.
  router.get('/models/*name', get)

  async function list(ctx: Context): Promise<void> {
    const data = await models.list()
    ctx.body = { object: 'list', data: data.map(present) }
  }

  async function get(ctx: Context): Promise<void> {
    const name = ctx.params['name'] ?? ''
    const listed = (await models.list()).find(({ id }) => id === name)
    if (!listed && !(await models.answersTo(name))) throw modelNotFound(name)
    // What a pattern or the default answers to is on no list, and there all the same.
    ctx.body = present(listed ?? { id: name, created: 0, ownedBy: 'longrun' })
  }
}

function present({ id, created, ownedBy }: ListedModel): Model {
  return { id, object: 'model', created, owned_by: ownedBy }
}
