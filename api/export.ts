import type { Router } from '@koa/router'
import { Readable } from 'node:stream'

import type { ExportedThread } from '../store/export.ts'
import { presentAssistant } from '../wire/present/assistant.ts'
import {
  exportedMessage,
  exportedRun,
  exportedThread,
  exportedVectorStore,
  exportedVectorStoreFile,
} from '../wire/present/exported.ts'
import { presentFile } from '../wire/present/file.ts'
import type { ApiDeps } from './app.ts'
import type { Context, State } from './context.ts'

/** A thread's line ends after this much; the rest of its messages follow in lines of their own, which an import takes too. */
const lineChars = 8 * 1024 * 1024

/** Ours: `GET /v1/export`, everything of the project as JSON Lines. */
export function exportRoutes(router: Router<State>, { store: { exports } }: ApiDeps): void {
  router.get('/export', (ctx: Context) => {
    ctx.set({
      'content-type': 'application/jsonl; charset=utf-8',
      'content-disposition': 'attachment; filename="export.jsonl"',
    })
    // Ends with the connection: Koa destroys it, and with it what is being read.
    ctx.body = Readable.from(linesOf(ctx.state.projectId), { objectMode: false })
  })

  async function* linesOf(projectId: string): AsyncGenerator<string> {
    for await (const row of exports.assistants(projectId)) yield line(presentAssistant(row))
    for await (const row of exports.files(projectId)) yield line(presentFile(row))
    for await (const row of exports.vectorStores(projectId)) {
      yield line(exportedVectorStore(row))
      for await (const file of exports.vectorStoreFiles(row.id)) {
        yield line(exportedVectorStoreFile(file))
      }
    }
    for await (const exported of exports.threads(projectId)) yield* threadLines(exported)
  }
}

async function* threadLines({ thread, messages, runs }: ExportedThread): AsyncGenerator<string> {
  let head = exportedThread(thread)
  let texts: string[] = []
  let chars = 0
  const full = (): string => `${head.slice(0, -1)},"messages":[${texts.join(',')}]}\n`
  for await (const page of messages) {
    for (const message of page) {
      const text = exportedMessage(message)
      if (chars > 0 && chars + text.length > lineChars) {
        yield full()
        head = JSON.stringify({ object: 'thread.messages', thread_id: thread.id })
        texts = []
        chars = 0
      }
      texts.push(text)
      chars += text.length
    }
  }
  yield full()
  for await (const { run, steps } of runs) yield line(exportedRun(run, steps))
}

function line(object: object): string {
  return `${JSON.stringify(object)}\n`
}
