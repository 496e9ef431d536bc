import { isDeepStrictEqual } from 'node:util'

import type { Event } from './transcript.ts'

/** What a transcript's names stand for before it begins: ids, and what is written in braces. */
export type Known = Record<string, string>

/**
 * The events of a transcript with the values of those that were seen in place of its names, as far as they can be such: a name
 * that finds none stays, in angle brackets, and differs from what was seen. Moments lie between `since` and now.
 */
export function bind(
  expected: Event[][],
  seen: Event[][],
  { known, since }: { known: Known; since: Date },
): unknown {
  const values = new Map<string, string | number>(Object.entries(known))
  let latest = Math.floor(since.getTime() / 1000)
  return bound(expected, seen)

  function bound(expected: unknown, seen: unknown): unknown {
    if (typeof expected === 'string') return boundText(expected, seen)
    if (Array.isArray(expected)) {
      const items: unknown[] = Array.isArray(seen) ? seen : []
      return expected.map((item, index) => bound(item, items[index]))
    }
    if (!isRecord(expected)) return expected
    const fields = isRecord(seen) ? seen : {}
    return Object.fromEntries(
      Object.entries(expected).map(([key, value]) => [key, bound(value, fields[key])]),
    )
  }

  function boundText(text: string, seen: unknown): unknown {
    const [, name, more] = /^([a-z]+_\d+|[@#]\w+)(?: \+ (\d+))?$/.exec(text) ?? []
    if (name === undefined) {
      return text.replaceAll(/\{\w+\}/g, (inBraces) => String(values.get(inBraces) ?? inBraces))
    }
    if (more === undefined && !values.has(name)) learn(name, seen)
    const value = values.get(name)
    if (value === undefined) return `<${text}>`
    return more === undefined ? value : Number(value) + Number(more)
  }

  function learn(name: string, seen: unknown): void {
    if (name.startsWith('@')) {
      if (!isWhole(seen) || seen < latest || seen > Date.now() / 1000) return
      latest = seen
      values.set(name, seen)
    } else if (name.startsWith('#')) {
      if (isWhole(seen) && seen > 0) values.set(name, seen)
    } else if (isIdOf(name, seen) && ![...values.values()].includes(seen)) {
      values.set(name, seen)
    }
  }
}

/** Deltas that only go on with the one before are one: how a text or code is cut is the model's business, and the writer's. */
export function merged(events: Event[]): Event[] {
  const kept: Event[] = []
  for (const next of events) {
    const joint = together(kept.at(-1), next)
    if (joint) kept.splice(-1, 1, joint)
    else kept.push(next)
  }
  return kept
}

/** Undefined where the second says anything but a further piece of the same text, arguments or code. */
function together(before: Event | undefined, next: Event): Event | undefined {
  if (before?.event !== next.event) return undefined
  if (next.event === 'thread.message.delta') {
    const [a, b] = [before.data, next.data] as MessageDelta[]
    const [from, ...others] = a?.delta.content ?? []
    const [piece] = b?.delta.content ?? []
    // A mark has a delta of its own, with its annotation (spec 4.2).
    if (!a || !from?.text || !piece?.text || from.text.annotations?.length) return undefined
    const { index } = from
    const { value } = piece.text
    const further = { ...a, delta: { content: [{ index, type: 'text', text: { value } }] } }
    if (!isDeepStrictEqual(b, further)) return undefined
    const text = { ...from.text, value: from.text.value + value }
    const content = [{ ...from, text }, ...others]
    return { ...before, data: { ...a, delta: { ...a.delta, content } } }
  }
  if (next.event !== 'thread.run.step.delta') return undefined
  const [a, b] = [inputOf(before), inputOf(next)]
  if (a === undefined || b === undefined) return undefined
  const saying = (text: string): Event => {
    const { id, object, delta } = next.data as StepDelta
    const { index, type } = delta.step_details.tool_calls[0] ?? {}
    const said =
      type === 'function'
        ? { function: { arguments: text } }
        : { code_interpreter: { input: text } }
    const step_details = { type: 'tool_calls', tool_calls: [{ index, type, ...said }] }
    return { event: next.event, data: { id, object, delta: { step_details } } }
  }
  // The first delta of a call has more than arguments, and stays as it is.
  const isFurther = isDeepStrictEqual(before, saying(a)) && isDeepStrictEqual(next, saying(b))
  return isFurther ? saying(a + b) : undefined
}

/** Arguments or code. */
function inputOf({ data }: Event): string | undefined {
  const [call] = (data as StepDelta).delta.step_details.tool_calls
  return call?.function?.arguments ?? call?.code_interpreter?.input
}

interface MessageDelta {
  delta: { content: { index: number; text?: { value: string; annotations?: unknown[] } }[] }
}

interface StepDelta {
  id: string
  object: string
  delta: { step_details: { tool_calls: CallDelta[] } }
}

interface CallDelta {
  index: number
  type: string
  function?: { arguments: string }
  code_interpreter?: { input?: string }
}

/** A prefix and 24 letters and digits, with a hyphen in those of files (spec 2.1). */
function isIdOf(name: string, seen: unknown): seen is string {
  const prefix = name.replace(/\d+$/, '').replace('file_', 'file-')
  return (
    typeof seen === 'string' &&
    seen.startsWith(prefix) &&
    /^[A-Za-z0-9]{24}$/.test(seen.slice(prefix.length))
  )
}

function isWhole(value: unknown): value is number {
  return Number.isInteger(value)
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null
}
