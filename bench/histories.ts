import { Client, Connection } from '@temporalio/client'

/** What Temporal's price list counts as an action; heartbeats, which it counts too, are not in a history. */
export const actions = [
  'workflowExecutionStarted',
  'workflowExecutionContinuedAsNew',
  'activityTaskScheduled',
  'timerStarted',
  'workflowExecutionSignaled',
  'upsertWorkflowSearchAttributes',
  'markerRecorded',
]

/** Actions of one of these runs, on average. */
export async function actionsPerRun(address: string, runIds: string[]): Promise<number> {
  const counts = await countEvents(address, runIds)
  return actions.reduce((sum, name) => sum + (counts.get(name) ?? 0), 0) / runIds.length
}

/** How often each kind of event is in the histories of these runs, in the order of their first appearance. */
export async function countEvents(address: string, runIds: string[]): Promise<Map<string, number>> {
  const connection = await Connection.connect({ address })
  try {
    const client = new Client({ connection, namespace: 'longrun' })
    const counts = new Map<string, number>()
    for (const runId of runIds) {
      const { events } = await client.workflow.getHandle(runId).fetchHistory()
      for (const event of events ?? []) {
        const [kind] = Object.keys(event).filter((key) => key.endsWith('EventAttributes'))
        const what = kind?.replace('EventAttributes', '') ?? 'unknown'
        const timeout = timeouts[event.workflowTaskTimedOutEventAttributes?.timeoutType ?? 0]
        const name = timeout ? `${what}, ${timeout}` : what
        counts.set(name, (counts.get(name) ?? 0) + 1)
      }
    }
    return counts
  } finally {
    await connection.close()
  }
}

/** By their numbers in Temporal's API. */
const timeouts = ['', 'start to close', 'schedule to start']
