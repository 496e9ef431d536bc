import { z } from 'zod'
import {
  DEFAULT_PAGE_SIZE,
  MAX_INTEGER,
  MAX_ID_CHARS,
  MAX_PAGE_SIZE,
  MAX_WAIT_SECONDS,
} from '../wire/limits.ts'
import type * as Official from '../wire/openai.ts'
import { id, list, queryInteger, text } from './validation.ts'
import type { Accepts, Holds, SameKeys } from './validation.ts'

export const page = {
  limit: queryInteger(1, MAX_PAGE_SIZE).default(DEFAULT_PAGE_SIZE),
  order: z.enum(['asc', 'desc']).default('desc'),
  after: text(MAX_ID_CHARS).optional(),
  before: text(MAX_ID_CHARS).optional(),
}
const Include = z.literal('step_details.tool_calls[*].file_search.results[*].content')
const include = z.preprocess(
  (value) => (typeof value === 'string' ? [value] : value),
  list(Include, { of: 'strings' }),
)

export const ListQuery = z.strictObject(page)
export type ListQuery = z.infer<typeof ListQuery>

export const ListMessagesQuery = z.strictObject({ ...page, run_id: id('run').optional() })
export type ListMessagesQuery = z.infer<typeof ListMessagesQuery>

export const ListStepsQuery = z.strictObject({ ...page, include: include.default([]) })
export type ListStepsQuery = z.infer<typeof ListStepsQuery>

/** Ours: how long the answer may be held until the run settles. */
export const GetRunQuery = z.strictObject({ wait: queryInteger(0, MAX_WAIT_SECONDS).optional() })

/** Ours: the number of the event after which a run's stream goes on. */
export const RunEventsQuery = z.strictObject({
  after: queryInteger(0, MAX_INTEGER).default(0),
  include: include.default([]),
})

/** For creating a run, and for reading one step. */
export const IncludeQuery = z.strictObject({ include: include.default([]) })
export type IncludeQuery = z.infer<typeof IncludeQuery>

// --- ties: drift between these schemas and the official package does not compile -------------

type StepsParams = Omit<Official.StepListParams, 'thread_id'>
type StepParams = Omit<Official.StepRetrieveParams, 'thread_id' | 'run_id'>
export type Ties = [
  Holds<SameKeys<Official.AssistantListParams, ListQuery>>,
  Holds<SameKeys<Official.RunListParams, ListQuery>>,
  Holds<SameKeys<Official.MessageListParams, ListMessagesQuery>>,
  Holds<SameKeys<StepsParams, ListStepsQuery>>,
  Holds<SameKeys<StepParams, IncludeQuery>>,
  Holds<Accepts<Official.RunStepInclude, z.input<typeof Include>>>,
]
