import { StringDecoder } from 'node:string_decoder'

import type { CodeOutput } from './sandbox.ts'

/** Makes text of what programs write: UTF-8 in pieces, without escape sequences, storable in a database. */
export interface TextCleaner {
  push(bytes: Buffer): string
  /** The rest, at the end. */
  flush(): string
}

// CSI, OSC and the other strings, two-character sequences; after them, what may still become one.
const ESCAPE =
  // oxlint-disable-next-line no-control-regex
  /\u001B(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\u0007\u001B]*(?:\u0007|\u001B\\)|[ -/]+[0-~]|[0-OQ-WYZ\\`-~])/g
// oxlint-disable-next-line no-control-regex
const OPEN_ESCAPE = /\u001B(?:\[[0-?]*[ -/]*|[\]PX^_][^\u0007\u001B]*\u001B?|[ -/]*)$/
const MAX_HELD_BACK = 4096

export function createTextCleaner(): TextCleaner {
  const decoder = new StringDecoder('utf8')
  let held = ''

  function clean(text: string): string {
    // oxlint-disable-next-line no-control-regex
    return text.replaceAll(ESCAPE, '').replaceAll('\u0000', '\uFFFD').toWellFormed()
  }

  return {
    push(bytes) {
      const text = held + decoder.write(bytes)
      const open = OPEN_ESCAPE.exec(text)
      const cut = open && text.length - open.index <= MAX_HELD_BACK ? open.index : text.length
      held = text.slice(cut)
      return clean(text.slice(0, cut))
    },
    flush() {
      const text = held + decoder.end()
      held = ''
      return clean(text)
    },
  }
}

/** Collects the outputs of a cell. */
export function createOutputs(onOutput: ((piece: CodeOutput) => void) | undefined) {
  const outputs: CodeOutput[] = []
  let logs: string[] = []

  function closeLogs(): void {
    if (logs.length > 0) outputs.push({ type: 'logs', logs: logs.join('') })
    logs = []
  }

  return {
    add(piece: CodeOutput): void {
      if (piece.type === 'logs') {
        if (piece.logs === '') return
        logs.push(piece.logs)
      } else {
        closeLogs()
        outputs.push(piece)
      }
      onOutput?.(piece)
    },
    take(): CodeOutput[] {
      closeLogs()
      return outputs
    },
  }
}
