import {
  WorkflowExecutionAlreadyStartedError,
  WorkflowNotFoundError,
  type Client,
} from '@temporalio/client'
import { defineSearchAttributeKey, SearchAttributeType } from '@temporalio/common'

import type { PendingCommand } from '../store/outbox.ts'
import type { RunRow } from '../store/rows.ts'
import {
  assistantRunType,
  cancelRequested,
  toolOutputsSubmitted,
  type RunInput,
} from '../workflows/messages.ts'
import type { EngineOptions } from './index.ts'

export interface Delivery extends AsyncDisposable {
  /** `known` are the run's commands, where the caller has them at hand. */
  deliver(runId: string, known?: PendingCommand[]): Promise<void>
  sweep(): Promise<void>
  /** Starts the workflow of a run; one that runs already is left alone. Throws WorkflowExecutionAlreadyStartedError. */
  start(client: Client, run: RunRow, assistantName: string | null): Promise<void>
}

/** A command that is younger is on its way already. */
const leftBehindMs = 2000
const sweepBatch = 200
const atOnce = 16
/** Delivered commands are removed together: one statement for many. */
const removeAfterMs = 20

const searchAttributes = {
  AssistantId: defineSearchAttributeKey('AssistantId', SearchAttributeType.KEYWORD),
  ThreadId: defineSearchAttributeKey('ThreadId', SearchAttributeType.KEYWORD),
  Model: defineSearchAttributeKey('Model', SearchAttributeType.KEYWORD),
  ProjectId: defineSearchAttributeKey('ProjectId', SearchAttributeType.KEYWORD),
}

export function createDelivery(
  options: EngineOptions & { client: () => Client | undefined },
): Delivery {
  const { store, log } = options
  const underWay = new Map<string, Promise<boolean>>()
  let delivered: string[] = []
  let removal: NodeJS.Timeout | undefined

  /** Whether everything of the run has been delivered. One delivery of a run at a time, so its commands keep their order. */
  function deliverRun(client: Client, runId: string, known?: PendingCommand[]): Promise<boolean> {
    const before = underWay.get(runId) ?? Promise.resolve(true)
    const mine = before.then(async () => {
      try {
        for (const pending of known ?? (await store.outbox.of(runId))) {
          if (delivered.includes(pending.id)) continue
          await send(client, runId, pending)
          remove(pending.id)
        }
        return true
      } catch (error) {
        log.warn(
          { err: error, run_id: runId },
          'a command for Temporal is delayed; the sweep delivers it',
        )
        return false
      }
    })
    underWay.set(runId, mine)
    void mine.finally(() => {
      if (underWay.get(runId) === mine) underWay.delete(runId)
    })
    return mine
  }

  async function send(
    client: Client,
    runId: string,
    { command, run, assistantName }: PendingCommand,
  ): Promise<void> {
    const handle = client.workflow.getHandle(runId)
    try {
      switch (command.kind) {
        case 'start':
          return run && (await start(client, run, assistantName))
        case 'tool_outputs':
          return await handle.signal(toolOutputsSubmitted, { stepId: command.stepId })
        case 'cancel':
          return await handle.signal(cancelRequested)
        default:
          command satisfies never
      }
    } catch (error) {
      // The run has ended in the meantime, or its workflow is gone: then the reconciler begins it again from Postgres.
      if (error instanceof WorkflowNotFoundError) return
      if (error instanceof WorkflowExecutionAlreadyStartedError) return
      throw error
    }
  }

  async function start(client: Client, run: RunRow, assistantName: string | null): Promise<void> {
    const input: RunInput = {
      runId: run.id,
      expiresAt: run.expires_at.getTime(),
      modelAttempts: options.modelAttempts,
      maxSteps: Math.min(run.max_steps ?? options.maxSteps, options.maxSteps),
      model: run.model,
      fallbackModels: [...new Set(run.fallback_models)].filter((name) => name !== run.model),
    }
    await client.workflow.start(assistantRunType, {
      workflowId: run.id,
      taskQueue: options.taskQueue,
      args: [input],
      // A terminated workflow may be started again; one that completed has ended its run.
      workflowIdReusePolicy: 'ALLOW_DUPLICATE_FAILED_ONLY',
      workflowIdConflictPolicy: 'USE_EXISTING',
      workflowTaskTimeout: '4s',
      requestEagerStart: options.hasWorker(),
      staticSummary: `${assistantName ?? run.assistant_id} · ${run.model}`,
      staticDetails: `Thread ${run.thread_id}, assistant ${run.assistant_id}, project ${run.project_id}.`,
      memo: { assistantId: run.assistant_id, threadId: run.thread_id, model: run.model },
      typedSearchAttributes: [
        { key: searchAttributes.AssistantId, value: run.assistant_id },
        { key: searchAttributes.ThreadId, value: run.thread_id },
        { key: searchAttributes.Model, value: run.model },
        { key: searchAttributes.ProjectId, value: run.project_id },
      ],
    })
  }

  function remove(id: string): void {
    delivered.push(id)
    removal ??= setTimeout(() => void flushRemovals(), removeAfterMs)
  }

  async function flushRemovals(): Promise<void> {
    clearTimeout(removal)
    removal = undefined
    const ids = [...delivered]
    if (ids.length === 0) return
    try {
      await store.outbox.remove(ids)
      delivered = delivered.filter((id) => !ids.includes(id))
    } catch (error) {
      // They are delivered once more by the sweep, which changes nothing.
      delivered = []
      log.warn({ err: error }, 'delivered commands could not be removed from the outbox')
    }
  }

  return {
    start,
    async deliver(runId, known) {
      const client = options.client()
      if (client) await deliverRun(client, runId, known)
    },
    async sweep() {
      const client = options.client()
      if (!client) return
      const [probe, ...rest] = await store.outbox.leftBehind(leftBehindMs, sweepBatch)
      // One alone first: while Temporal is away every call takes seconds to fail.
      if (!probe || !(await deliverRun(client, probe))) return
      const queue = rest.values()
      const lane = async (): Promise<void> => {
        for (const runId of queue) await deliverRun(client, runId)
      }
      await Promise.all(Array.from({ length: atOnce }, lane))
    },
    async [Symbol.asyncDispose]() {
      await Promise.all(underWay.values())
      await flushRemovals()
    },
  }
}
