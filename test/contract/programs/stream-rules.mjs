import assert from 'node:assert/strict'

/**
 * What a stream of a run must keep to, so that every accumulator of the official clients can follow
 * it: feed it all events in order, then `end()`. Throws with the event that broke a rule.
 */
export function createStreamRules({ continues = false } = {}) {
  const names = []
  const messages = new Map()
  const steps = new Map()
  let openMessage = null
  let runStatus = null
  let isOver = false

  const rules = {
    see(event) {
      const at = `event ${names.length} (${event.event})`
      names.push(event.event)
      assert.ok(!isOver, `${at}: came after the end of the run`)
      if (event.event.startsWith('thread.message.')) return seeMessage(event, at)
      if (event.event.startsWith('thread.run.step.')) return seeStep(event, at)
      if (event.event.startsWith('thread.run.')) return seeRun(event, at)
      assert.equal(event.event, 'thread.created', `${at}: unknown`)
      assert.equal(names.length, 1, `${at}: must be the first`)
      return undefined
    },
    end() {
      assert.ok(isOver, `no terminal event of the run; the last was ${names.at(-1)}`)
      assert.equal(openMessage, null, `message ${openMessage} was left open`)
      const open = [...steps].filter(([, step]) => step.isOpen && runStatus !== 'requires_action')
      assert.deepEqual(open, [], 'steps were left open')
      return {
        events: compact(names),
        runStatus,
        texts: [...messages.values()].map((message) => message.text),
        stepTypes: [...steps.values()].map((step) => step.type),
      }
    },
  }
  return rules

  function seeRun({ event, data }, at) {
    const status = event.slice('thread.run.'.length)
    assert.match(data.id, /^run_/, at)
    if (status === 'created') {
      assert.equal(runStatus, null, `${at}: the run was created twice`)
      assert.ok(!continues, `${at}: a continued run is not created again`)
      assert.equal(data.status, 'queued', at)
      runStatus = 'created'
      return
    }
    assert.equal(data.status, status, `${at}: the object has another status`)
    const allowed = FOLLOWS[runStatus ?? (continues ? 'submitted' : 'none')] ?? []
    assert.ok(allowed.includes(status), `${at}: cannot follow ${runStatus}`)
    runStatus = status
    isOver = ENDS.has(status)
    if (status === 'requires_action') {
      assert.ok(data.required_action.submit_tool_outputs.tool_calls.length > 0, at)
    }
    if (status === 'completed') assert.equal(typeof data.usage?.total_tokens, 'number', at)
  }

  function seeMessage({ event, data }, at) {
    const name = event.slice('thread.message.'.length)
    assert.match(data.id, /^msg_/, at)
    if (name === 'created') {
      assert.ok(!messages.has(data.id), `${at}: ${data.id} was created twice`)
      assert.equal(openMessage, null, `${at}: ${openMessage} is still open`)
      assert.deepEqual(data.content, [], `${at}: content must be empty`)
      messages.set(data.id, { parts: [], text: '' })
      openMessage = data.id
      return
    }
    const message = messages.get(data.id)
    assert.ok(message, `${at}: ${data.id} was not created`)
    assert.equal(openMessage, data.id, `${at}: ${data.id} is not the open message`)
    if (name === 'delta') {
      for (const part of data.delta.content ?? []) addPart(message, part, at)
      return
    }
    if (name === 'in_progress') return
    assert.ok(name === 'completed' || name === 'incomplete', `${at}: unknown`)
    assert.equal(data.status, name, at)
    message.text = textOf(data.content)
    const streamed = message.parts.map((part) => part.text).join('')
    assert.equal(streamed, message.text, `${at}: deltas and final text differ`)
    assert.equal(data.content.length, message.parts.length, `${at}: parts differ`)
    for (const part of data.content) checkAnnotations(part, at)
    openMessage = null
  }

  function seeStep({ event, data }, at) {
    const name = event.slice('thread.run.step.'.length)
    assert.match(data.id, /^step_/, at)
    if (name === 'created') {
      assert.ok(!steps.has(data.id), `${at}: ${data.id} was created twice`)
      const open = [...steps].filter(([, step]) => step.isOpen).map(([id]) => id)
      assert.deepEqual(open, [], `${at}: a step is still open`)
      if (data.type === 'tool_calls') assert.deepEqual(data.step_details.tool_calls, [], at)
      if (data.type === 'message_creation') {
        assert.match(data.step_details.message_creation.message_id, /^msg_/, at)
      }
      steps.set(data.id, { type: data.type, calls: [], isOpen: true })
      return
    }
    const step = steps.get(data.id)
    // The step that waited for outputs was created in the stream before.
    if (!step && continues && name === 'completed') return
    assert.ok(step, `${at}: ${data.id} was not created`)
    assert.ok(step.isOpen, `${at}: ${data.id} is over`)
    if (name === 'delta') {
      for (const call of data.delta.step_details.tool_calls ?? []) addCall(step, call, at)
      return
    }
    assert.equal(data.status, name, `${at}: the object has another status`)
    if (name === 'in_progress') return
    step.isOpen = false
    if (name === 'completed') checkCalls(step, data.step_details.tool_calls ?? [], at)
  }
}

const ENDS = new Set([
  'completed',
  'incomplete',
  'failed',
  'cancelled',
  'expired',
  'requires_action',
])
const FOLLOWS = {
  none: [],
  submitted: ['queued', 'cancelling'],
  created: ['queued', 'in_progress'],
  queued: ['in_progress', 'cancelling', 'cancelled', 'failed', 'expired', 'incomplete'],
  in_progress: [...ENDS, 'cancelling'],
  cancelling: ['cancelled', 'completed', 'failed', 'incomplete'],
}
/** `function.output` is null in the first delta of a call, as the original sent it. */
const NULL_AT_FIRST = new Set(['output'])

function addPart(message, part, at) {
  assert.ok(Number.isInteger(part.index), `${at}: a part without index`)
  assert.ok(part.index <= message.parts.length, `${at}: index ${part.index} leaves a hole`)
  assertMergeable(part, at)
  const known = message.parts[part.index]
  if (known) {
    assert.equal(part.type, known.type, `${at}: the part changed its type`)
  } else {
    message.parts.push({ type: part.type, text: '', annotations: 0 })
  }
  const target = message.parts[part.index]
  target.text += part.text?.value ?? ''
  for (const annotation of part.text?.annotations ?? []) {
    assert.ok(Number.isInteger(annotation.index), `${at}: an annotation without index`)
    assert.equal(annotation.index, target.annotations, `${at}: annotations out of order`)
    target.annotations += 1
  }
}

function addCall(step, call, at) {
  assert.ok(Number.isInteger(call.index), `${at}: a tool call without index`)
  assert.ok(call.index <= step.calls.length, `${at}: index ${call.index} leaves a hole`)
  assertMergeable(call, at, NULL_AT_FIRST)
  const isNew = call.index === step.calls.length
  assert.equal(typeof call.id, isNew ? 'string' : 'undefined', `${at}: id belongs in the first`)
  if (isNew) step.calls.push({ id: call.id, type: call.type, input: '', outputs: 0 })
  const known = step.calls[call.index]
  assert.equal(call.type, known.type, `${at}: the call changed its type`)
  known.input += call.code_interpreter?.input ?? call.function?.arguments ?? ''
  for (const output of call.code_interpreter?.outputs ?? []) {
    assert.ok(Number.isInteger(output.index), `${at}: an output without index`)
    assert.ok(output.index <= known.outputs, `${at}: outputs leave a hole`)
    known.outputs = Math.max(known.outputs, output.index + 1)
  }
}

function checkCalls(step, calls, at) {
  if (step.type !== 'tool_calls') return
  assert.deepEqual(
    calls.map((call) => call.id),
    step.calls.map((call) => call.id),
    `${at}: streamed calls and final calls differ`,
  )
  for (const [index, call] of calls.entries()) {
    const input = call.code_interpreter?.input ?? call.function?.arguments ?? ''
    assert.equal(step.calls[index].input, input, `${at}: input differs from its deltas`)
    if (call.type !== 'code_interpreter') continue
    const outputs = call.code_interpreter.outputs.length
    assert.equal(step.calls[index].outputs, outputs, `${at}: outputs differ from their deltas`)
  }
}

/** Clients join strings and add numbers; null and booleans have no sum. */
function assertMergeable(value, at, exceptions = new Set()) {
  for (const [key, inner] of Object.entries(value)) {
    if (exceptions.has(key)) continue
    assert.ok(inner !== null && typeof inner !== 'boolean', `${at}: ${key} is ${inner}`)
    if (typeof inner === 'object') assertMergeable(inner, at, exceptions)
  }
}

/** Indices count code points, as Python does. */
function checkAnnotations(part, at) {
  const points = Array.from(part.text?.value ?? '')
  for (const { text, start_index: start, end_index: end } of part.text?.annotations ?? []) {
    assert.equal(points.slice(start, end).join(''), text, `${at}: annotation is misplaced`)
  }
}

function textOf(content) {
  return content.map((part) => part.text?.value ?? '').join('')
}

/** A run of equal names is one entry, so that sequences can be compared. */
function compact(names) {
  return names.filter((name, index) => name !== names[index - 1])
}
