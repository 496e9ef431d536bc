import type { Store } from '../store/index.ts'
import { notFound } from '../wire/errors.ts'
import { presentInspection, type InspectionOfRun } from '../wire/present/inspection.ts'
import { presentRun, type LongrunOfRun, type RunObject } from '../wire/present/run.ts'

/** A run as the read of it alone shows it. */
export type InspectedRun = RunObject & { longrun: LongrunOfRun & InspectionOfRun }

/** The run with what it is doing, all of one moment. Throws notFound(run) where it has gone in between. */
export async function inspectedRun(
  { inspection }: Pick<Store, 'inspection'>,
  runId: string,
): Promise<InspectedRun> {
  const found = await inspection.of(runId)
  if (!found) throw notFound('run', runId)
  const run = presentRun(found.run)
  return { ...run, longrun: { ...run.longrun, ...presentInspection(found) } }
}
