import type { Logger } from '../log.ts'
import { createBlobLedger } from './blob-ledger.ts'
import { settlePlace } from './blob-place.ts'
import { noBlobs, type Blobs } from './blobs.ts'
import { createAssistantFiles, type AssistantFiles } from './assistant-files.ts'
import { createAssistants, type Assistants } from './assistants.ts'
import { createCodeFiles, type CodeFiles } from './code-files.ts'
import { createContext, type ContextStore } from './context.ts'
import { openDb, type Db } from './db.ts'
import { openEventLog, type EventLog } from './events.ts'
import { createFiles, type Files } from './files.ts'
import { createIdempotency, type Idempotency } from './idempotency.ts'
import { createKeys, type Keys } from './keys.ts'
import { createMessages, type Messages } from './messages.ts'
import { migrate } from './migrations/index.ts'
import { defineModels } from './models/index.ts'
import { createObjects, type Objects } from './objects.ts'
import { createEventRetention, type EventRetention } from './event-retention.ts'
import { createOutbox, type Outbox } from './outbox.ts'
import type { MessageRow, RunRow, RunStepRow, ToolCallRow } from './rows.ts'
import { createPassedObjects, type PassedObjects } from './passed-objects.ts'
import { createPassedUsage, type PassedUsage } from './passed-usage.ts'
import { createInspection, type Inspections } from './inspection.ts'
import { createRuns, type Runs } from './runs.ts'
import { createSandboxes, type Sandboxes } from './sandboxes.ts'
import { listPage, type ListQuery, type Rows } from './lists.ts'
import { createExports, type Exports } from './export.ts'
import { createThreadFork, type ThreadFork } from './thread-fork.ts'
import { createThreadImport, type ThreadImport } from './thread-import.ts'
import { createThreadList, type ThreadList } from './thread-list.ts'
import { createThreads, type Threads } from './threads.ts'
import { createToolCalls, type ToolCalls } from './tool-calls.ts'
import { createTurns, type Turns } from './turns.ts'
import { createUploads, type Uploads } from './uploads.ts'
import { createUsageSums, type UsageSums } from './usage-sums.ts'

/** All that outlives a process. The only way in for other folders is `openStore`. */
export interface Store extends AsyncDisposable {
  db: Db
  keys: Keys
  assistants: Assistants
  assistantFiles: AssistantFiles
  threads: Threads & ThreadList & ThreadFork & ThreadImport
  exports: Exports
  files: Files
  uploads: Uploads
  messages: Omit<Objects<MessageRow>, 'create'> & Messages
  runs: Omit<Objects<RunRow>, 'create'> & Runs
  inspection: Inspections
  steps: Steps
  turns: Turns
  /** What prompts are made of. */
  context: ContextStore
  toolCalls: ToolCalls
  codeFiles: CodeFiles
  sandboxes: Sandboxes
  events: EventLog
  outbox: Outbox
  eventRetention: EventRetention
  idempotency: Idempotency
  passedObjects: PassedObjects
  passedUsage: PassedUsage
  usageSums: UsageSums
}

export interface Steps {
  list(runId: string, query: ListQuery): Promise<Rows<RunStepRow>>
  get(runId: string, stepId: string): Promise<RunStepRow | undefined>
  /** The tool calls of these steps, by step. */
  calls(steps: RunStepRow[]): Promise<Map<string, ToolCallRow[]>>
}

/** Opens the store and brings its schema up to date. Without `blobs` it has no bytes of files; it does not close them. */
export async function openStore(options: {
  databaseUrl: string
  log: Logger
  maxConnections?: number
  blobs?: Blobs
}): Promise<Store> {
  const db = openDb(options.databaseUrl, options.maxConnections ?? 20)
  const applied = await migrate(db.sequelize)
  if (applied.length > 0) options.log.info({ applied }, 'the schema has been brought up to date')
  if (options.blobs) {
    await settlePlace(db, options.blobs).catch(async (error: unknown) => {
      await db.sequelize.close()
      throw error
    })
  }
  const ledger = createBlobLedger(db, options.blobs ?? noBlobs, options.log)
  const models = defineModels(db.sequelize)
  const events = openEventLog(db, options)
  const turns = createTurns(db, events, options.log)
  const idempotency = createIdempotency(db)
  const passedUsage = createPassedUsage(db, options.log)
  return {
    db,
    events,
    turns,
    context: createContext(db),
    keys: createKeys(db),
    assistants: createAssistants(db, createObjects(db, models.assistants)),
    assistantFiles: createAssistantFiles(db),
    threads: {
      ...createThreads(db, events, createObjects(db, models.threads)),
      ...createThreadList(db),
      ...createThreadFork(db),
      ...createThreadImport(db),
    },
    exports: createExports(db),
    files: createFiles(db, models.files, ledger),
    uploads: createUploads(db, ledger),
    messages: { ...createObjects(db, models.messages), ...createMessages(db, events) },
    runs: { ...createObjects(db, models.runs), ...createRuns(db, events, options.log) },
    inspection: createInspection(db),
    steps: {
      list: (runId, query) =>
        listPage(db, models.runSteps, { run_id: runId, superseded: false }, query),
      async get(runId, stepId) {
        const found = await models.runSteps.findOne({
          where: { id: stepId, run_id: runId },
          raw: true,
        })
        return (found as unknown as RunStepRow | null) ?? undefined
      },
      async calls(steps) {
        const rows = await db.sql<ToolCallRow>(
          'SELECT * FROM tool_calls WHERE step_id = ANY ($1::text[]) ORDER BY step_id, idx',
          [steps.map(({ id }) => id)],
        )
        return Map.groupBy(rows, ({ step_id }) => step_id as string)
      },
    },
    toolCalls: createToolCalls(db, events, ledger),
    codeFiles: createCodeFiles(db.sql),
    sandboxes: createSandboxes(db),
    outbox: createOutbox(db),
    eventRetention: createEventRetention(db),
    idempotency,
    passedObjects: createPassedObjects(db),
    passedUsage,
    usageSums: createUsageSums(db),
    async [Symbol.asyncDispose]() {
      await ledger[Symbol.asyncDispose]()
      await idempotency[Symbol.asyncDispose]()
      await turns[Symbol.asyncDispose]()
      await passedUsage[Symbol.asyncDispose]()
      await events[Symbol.asyncDispose]()
      await db.sequelize.close()
    },
  }
}
