import type { AssistantRow } from '../../store/rows.ts'
import type { Assistant } from '../openai.ts'
import { seconds } from '../time.ts'

/** `reasoning_effort` was on the live answers and not in the schema (spec D6). */
export type AssistantObject = Assistant & {
  reasoning_effort: string | null
  longrun?: LongrunOfAssistant
}

/** What the original did not have; only where something of it was set. */
export interface LongrunOfAssistant {
  on_active_run: string | null
  fallback_models: string[]
}

export function presentAssistant(row: AssistantRow): AssistantObject {
  const { on_active_run, fallback_models } = row
  return {
    id: row.id,
    object: 'assistant',
    created_at: seconds(row.created_at),
    name: row.name,
    description: row.description,
    model: row.model,
    instructions: row.instructions,
    tools: row.tools,
    top_p: row.top_p,
    temperature: row.temperature,
    reasoning_effort: row.reasoning_effort,
    tool_resources: row.tool_resources,
    metadata: row.metadata,
    // Checked at the edge, and kept as it came.
    response_format: row.response_format as Assistant['response_format'],
    ...((on_active_run !== null || fallback_models.length > 0) && {
      longrun: { on_active_run, fallback_models },
    }),
  }
}
