import { readFile } from 'node:fs/promises'
import { join } from 'node:path'

import { defaultPayloadConverter, toPayloads, type Payload } from '@temporalio/common'
import { msNumberToTs, tsToMs } from '@temporalio/common/lib/time.js'
import { parseWorkflowCode } from '@temporalio/worker/lib/worker.js'
import type { Workflow } from '@temporalio/worker/lib/workflow/interface.js'
import { ReusableVMWorkflowCreator } from '@temporalio/worker/lib/workflow/reusable-vm.js'
import type { SignalDefinition } from '@temporalio/workflow'
import { inject } from 'vitest'

import { createLogger } from '../../log.ts'
import { workflowBundle } from '../../worker/bundle.ts'
import { assistantRunType, type RunInput } from '../../workflows/messages.ts'

/** The workflow of a run without a server, by a clock of its own: months pass at once. */
export interface RunInTime extends AsyncDisposable {
  /** What it waits for at this moment. */
  activities(): { type: string; args: unknown[] }[]
  /** Timers that run, in milliseconds from now, the next first. */
  timers(): number[]
  /** What the run came to; undefined while it is under way. */
  result(): unknown
  /** The only activity of this type that it waits for succeeds. */
  succeed(type: string, value: unknown): Promise<void>
  signal<Args extends unknown[]>(signal: SignalDefinition<Args>, ...args: Args): Promise<void>
  /** Time passes; timers that come due on the way fire in their order. */
  pass(ms: number): Promise<void>
  /** Goes on with a worker that has never heard of the run. Throws where it would do other things than were done. */
  moveToAnotherWorker(): Promise<void>
}

type Activation = Parameters<Workflow['activate']>[0]
type Job = NonNullable<Activation['jobs']>[number]
type Completion = Awaited<ReturnType<Workflow['activate']>>
type Command = NonNullable<NonNullable<Completion['successful']>['commands']>[number]

/** Temporal's own parts for it are not a public interface: the version is pinned. */
export async function startRun(input: RunInput, beganAt: Date): Promise<RunInTime> {
  const creator = await newCreator()
  const runId = `${input.runId}-execution`
  const past: { activation: Activation; commands: Command[] }[] = []
  const activities = new Map<number, { type: string; args: unknown[] }>()
  const timers = new Map<number, number>()
  let nowMs = beganAt.getTime()
  let result: unknown
  let workflow = await newWorkflow(creator, input, runId, nowMs)

  async function feed(...jobs: Job[]): Promise<void> {
    const timestamp = msNumberToTs(nowMs)
    const activation = { runId, timestamp, jobs, isReplaying: false, historyLength: past.length }
    const commands = await activate(workflow, activation)
    past.push({ activation, commands })
    commands.forEach(obey)
  }

  function obey(command: Command): void {
    const { scheduleActivity, requestCancelActivity, startTimer, cancelTimer } = command
    if (scheduleActivity) {
      const args = (scheduleActivity.arguments ?? []).map(valueOf)
      activities.set(scheduleActivity.seq ?? 0, { type: scheduleActivity.activityType ?? '', args })
    }
    if (requestCancelActivity) activities.delete(requestCancelActivity.seq ?? 0)
    if (startTimer) {
      timers.set(startTimer.seq ?? 0, nowMs + tsToMs(startTimer.startToFireTimeout))
    }
    if (cancelTimer) timers.delete(cancelTimer.seq ?? 0)
    if (command.completeWorkflowExecution) {
      result = valueOf(command.completeWorkflowExecution.result ?? {})
    }
    if (command.failWorkflowExecution) {
      throw new Error(`The workflow failed: ${JSON.stringify(command.failWorkflowExecution)}`)
    }
  }

  function nextTimer(): [number, number] | undefined {
    return [...timers].toSorted(([, a], [, b]) => a - b)[0]
  }

  const initializeWorkflow = {
    workflowType: assistantRunType,
    workflowId: input.runId,
    arguments: toPayloads(defaultPayloadConverter, input) ?? [],
  }
  await feed({ initializeWorkflow })

  return {
    activities: () => [...activities.values()],
    timers: () => [...timers.values()].map((at) => at - nowMs).toSorted((a, b) => a - b),
    result: () => result,
    async succeed(type, value) {
      const waiting = [...activities].filter(([, activity]) => activity.type === type)
      const [first, second] = waiting
      if (!first || second) throw new Error(`It waits for ${waiting.length} of ${type}`)
      const [seq] = first
      activities.delete(seq)
      const completed = { result: defaultPayloadConverter.toPayload(value) }
      await feed({ resolveActivity: { seq, result: { completed } } })
    },
    async signal({ name }, ...args) {
      const payloads = toPayloads(defaultPayloadConverter, ...args) ?? []
      await feed({ signalWorkflow: { signalName: name, input: payloads } })
    },
    async pass(ms) {
      const until = nowMs + ms
      for (let next = nextTimer(); next && next[1] <= until; next = nextTimer()) {
        const [seq, at] = next
        nowMs = at
        timers.delete(seq)
        await feed({ fireTimer: { seq } })
      }
      nowMs = until
    },
    async moveToAnotherWorker() {
      await workflow.dispose()
      workflow = await newWorkflow(creator, input, runId, beganAt.getTime())
      for (const { activation, commands } of past) {
        const again = await activate(workflow, { ...activation, isReplaying: true })
        const [before, now] = [commands, again].map((all) => JSON.stringify(all))
        if (before !== now) throw new Error(`It did ${before}, and would now do ${now}`)
      }
    },
    async [Symbol.asyncDispose]() {
      await workflow.dispose()
      await creator.destroy()
    },
  }
}

async function newCreator(): Promise<ReusableVMWorkflowCreator> {
  const dataDir = join(inject('testDir'), 'harness')
  const { codePath } = await workflowBundle(dataDir, createLogger('error'))
  const bundle = parseWorkflowCode(await readFile(codePath, 'utf8'), codePath)
  const names = new Set(['modelTurn', 'runTool', 'requireAction', 'finalizeRun'])
  return ReusableVMWorkflowCreator.create(bundle, 5000, names)
}

function newWorkflow(
  creator: ReusableVMWorkflowCreator,
  input: RunInput,
  runId: string,
  nowMs: number,
): Promise<Workflow> {
  const at = new Date(nowMs)
  // Only what a workflow looks at; the worker adds what the server says of it.
  const info = {
    workflowId: input.runId,
    runId,
    workflowType: assistantRunType,
    taskQueue: 'runs',
    namespace: 'longrun',
    firstExecutionRunId: runId,
    startTime: at,
    runStartTime: at,
    searchAttributes: {},
    attempt: 1,
    unsafe: { isReplaying: false },
  } as unknown as Parameters<typeof creator.createWorkflow>[0]['info']
  const randomnessSeed = [1, 2, 3, 4, 5, 6, 7, 8]
  return creator.createWorkflow({ info, randomnessSeed, now: nowMs, showStackTraceSources: false })
}

async function activate(workflow: Workflow, activation: Activation): Promise<Command[]> {
  const { successful, failed } = await workflow.activate(activation)
  await workflow.getAndResetSinkCalls()
  if (failed) throw new Error(`The workflow broke: ${failed.failure?.message}`)
  return successful?.commands ?? []
}

function valueOf(payload: Payload): unknown {
  return payload.data ? defaultPayloadConverter.fromPayload(payload) : undefined
}
