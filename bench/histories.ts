import { Client, Connection } from '@temporalio/client'

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
