import { randomUUID } from 'node:crypto'

import { createLogger } from '../../log.ts'
import { openStore, type Store } from '../../store/index.ts'
import type { AssistantRow, RunRow } from '../../store/rows.ts'
import type { NewRun } from '../../store/run-create.ts'
import { idFrom } from '../../wire/ids.ts'

/** What a process has of the database: two of these on one database are two processes' worth. */
export function openTestStore(databaseUrl: string): Promise<Store> {
  return openStore({ databaseUrl, log: createLogger('fatal'), maxConnections: 8 })
}

/** A queued run on a thread of its own. */
export async function createRun(store: Store, given: Partial<NewRun> = {}): Promise<RunRow> {
  const { id: project_id } = await store.keys.defaultProject()
  const assistant: Omit<AssistantRow, 'seq'> = {
    id: idFrom('assistant', randomUUID()),
    project_id,
    name: null,
    description: null,
    model: 'm',
    instructions: null,
    tools: [],
    tool_resources: {},
    metadata: {},
    temperature: 1,
    top_p: 1,
    reasoning_effort: null,
    response_format: 'auto',
    on_active_run: null,
    fallback_models: [],
    created_at: new Date(),
  }
  await store.assistants.create(assistant, {})
  const { run } = await store.runs.create(
    newRun({ project_id, assistant_id: assistant.id, ...given }),
    { id: idFrom('thread', randomUUID()), resources: {}, metadata: {} },
    [],
  )
  return run
}

export function newRun(
  given: Partial<NewRun> & Pick<NewRun, 'project_id' | 'assistant_id'>,
): NewRun {
  return {
    id: idFrom('run', randomUUID()),
    metadata: {},
    created_at: new Date(),
    onActiveRun: null,
    expiresAfterS: null,
    defaultExpiresAfterS: 600,
    max_prompt_tokens: null,
    max_completion_tokens: null,
    truncation_strategy: { type: 'auto', last_messages: null },
    tool_choice: 'auto',
    parallel_tool_calls: true,
    max_steps: null,
    overrides: {},
    additionalInstructions: null,
    ...given,
  }
}
