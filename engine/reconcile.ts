import {
  WorkflowExecutionAlreadyStartedError,
  WorkflowNotFoundError,
  type Client,
} from '@temporalio/client'

import type { Tx } from '../store/db.ts'
import { assistantRunType } from '../workflows/messages.ts'
import type { Delivery } from './deliver.ts'
import type { EngineOptions } from './index.ts'

export interface Reconciler {
  /** Compares the runs that are open here with the workflows that are open there, and mends what does not fit. */
  reconcile(): Promise<void>
  /** Ends runs whose deadline has passed unheard, Temporal up or not: no lock outlives its run. */
  expireOverdue(): Promise<void>
}

/** The run's worker and its workflow come first: this is for when both are gone. */
const overdueGraceMs = 5000
/**
 * To list thousands of workflows takes Temporal seconds, to count them milliseconds. Where none is missing by number, each
 * round compares a part of them one by one: a workflow without a run may hide that another is gone.
 */
const comparedAtOnce = 500
const running = `WorkflowType = '${assistantRunType}' AND ExecutionStatus = 'Running'`
/** Any number that no other program uses for an advisory lock in our database. */
const reconcilerLock = 7_205_759_404

export function createReconciler(
  options: Pick<EngineOptions, 'store' | 'log' | 'reconcileMs' | 'taskQueue'> & {
    client: () => Client | undefined
    delivery: Pick<Delivery, 'start'>
  },
): Reconciler {
  const { store, log } = options
  // A run that is younger may not have reached Temporal's index yet, and would be asked for one by one.
  const settledMs = options.reconcileMs / 4
  /** Where among the open runs the next round goes on. */
  let next = 0

  const settled = (): string => new Date(Date.now() - settledMs).toISOString()

  async function mend(client: Client, id: string): Promise<void> {
    if (await isOpen(client, id)) return
    const run = await store.runs.openRun(id)
    if (!run) return
    try {
      await options.delivery.start(client, run, null)
      log.warn(
        { run_id: run.id, status: run.status },
        'the workflow of a run was gone; it has been started again',
      )
    } catch (error) {
      if (!(error instanceof WorkflowExecutionAlreadyStartedError)) throw error
      const message = 'The workflow of the run ended without ending the run.'
      await store.runs.end(run.id, { status: 'failed', error: { code: 'server_error', message } })
      log.error({ run_id: run.id }, message)
    }
  }

  return {
    async reconcile() {
      const client = options.client()
      if (!client) return
      await alone(async (tx) => {
        await store.runs.promoteStranded()
        const ids = await store.runs.openIds(settledMs)
        const { count } = await client.workflow.count(
          // Those that are too young to be compared would stand in for as many that are gone.
          `${running} AND TaskQueue = '${options.taskQueue}' AND StartTime < '${settled()}'`,
        )
        next = next < ids.length ? next : 0
        const [from, to] = count < ids.length ? [0, ids.length] : [next, next + comparedAtOnce]
        for (let at = from; at < to; at += comparedAtOnce) {
          const compared = ids.slice(at, at + comparedAtOnce)
          await each(await lostOf(client, compared), (id) => mend(client, id))
          // A transaction that is idle for long is ended, and its lock with it.
          await tx.sql('SELECT 1')
        }
        next = to
      })
    },
    async expireOverdue() {
      const overdue = await store.runs.overdue(overdueGraceMs)
      await each(
        overdue.map(({ id }) => id),
        async (id) => {
          const status = await store.runs.end(id, { status: 'expired' })
          if (status === 'expired') log.warn({ run_id: id }, 'a run was past its deadline')
        },
      )
    },
  }

  /** One run that cannot be mended must not keep the others from it. */
  async function each(ids: string[], act: (id: string) => Promise<void>): Promise<void> {
    for (const id of ids) {
      try {
        await act(id)
      } catch (error) {
        log.error({ err: error, run_id: id }, 'a run could not be mended; it is tried again')
      }
    }
  }

  /** One process of all reconciles at a time. */
  async function alone(work: (tx: Tx) => Promise<void>): Promise<void> {
    await store.db.tx(async (tx) => {
      const [lock] = await tx.sql<{ held: boolean }>(
        // A process that is frozen while it holds the lock must not keep the others from it for ever.
        `SELECT pg_try_advisory_xact_lock($1) AS held,
           set_config('idle_in_transaction_session_timeout', '60s', true)`,
        [reconcilerLock],
      )
      if (lock?.held) await work(tx)
    })
  }
}

/** The runs whose workflow is not in Temporal's index. */
async function lostOf(client: Client, ids: string[]): Promise<string[]> {
  if (ids.length === 0) return []
  const open = new Set<string>()
  const query = `${running} AND WorkflowId IN (${ids.map((id) => `'${id}'`).join(', ')})`
  for await (const { workflowId } of client.workflow.list({ query })) open.add(workflowId)
  return ids.filter((id) => !open.has(id))
}

/** The index lags behind; the workflow itself does not. */
async function isOpen(client: Client, workflowId: string): Promise<boolean> {
  try {
    const { status } = await client.workflow.getHandle(workflowId).describe()
    return status.name === 'RUNNING'
  } catch (error) {
    if (error instanceof WorkflowNotFoundError) return false
    throw error
  }
}
