import { proxyActivities } from '@temporalio/workflow'

const { nothing } = proxyActivities<{ nothing(startedAt: number): Promise<void> }>({
  scheduleToCloseTimeout: '1m',
  heartbeatTimeout: '5s',
})

/** The least that a run can be: one activity. */
export async function bare(startedAt: number): Promise<void> {
  await nothing(startedAt)
}
