import {
  call,
  contextLengthExceeded,
  cutAfter,
  fail,
  rateLimited,
  refuse,
  say,
  sayAndCall,
  serverError,
  silence,
  stallAfter,
  type ModelRequest,
  type ScriptedCall,
  type Step,
} from '../../support/model.ts'
import type { Random } from '../../support/random.ts'

/** What a provider may do to a run: mostly it answers. */
export function answerAtRandom(random: Random): (request: ModelRequest) => Step {
  const text = (): string => `Answer number ${random.integer(1000)} and nothing else.`
  const one = (): ScriptedCall => ({ name: 'look_up', arguments: { key: random.integer(10) } })
  const several = (): ScriptedCall[] => Array.from({ length: 2 + random.integer(2) }, one)
  const always: [number, () => Step][] = [
    [44, () => say(text())],
    [8, () => say(text(), { delayMs: 20 })],
    [3, () => say(text(), { usage: null })],
    [2, () => say(text(), { finishReason: 'length' })],
    [1, () => say(text(), { finishReason: 'content_filter' })],
    [2, () => refuse('No.')],
    [6, () => rateLimited({ ms: random.integer(50) })],
    [3, () => serverError()],
    [3, () => fail(400, { message: 'No such thing.', code: 'bad_request' })],
    [1, () => contextLengthExceeded()],
    [5, () => cutAfter(random.integer(4), text())],
    [2, () => stallAfter(2, text())],
    [1, () => silence()],
  ]
  const withTools: [number, () => Step][] = [
    [22, () => call(one())],
    [10, () => call(several())],
    [6, () => sayAndCall(text(), one())],
    [3, () => call({ name: 'unknown', arguments: {} })],
    [3, () => call({ name: 'look_up', arguments: '{"key": ' })],
    [3, () => cutAfter(1, { calls: several() })],
  ]
  return (request) => {
    const hasTools = (request.body.tools ?? []).length > 0
    return random.weighed(hasTools ? [...always, ...withTools] : always)()
  }
}
