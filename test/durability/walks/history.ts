/** What was asked and answered, for whoever has to find out why a walk went wrong. */
export interface History {
  note(threadId: string, client: string, text: string): void
  /** The commands of a thread, the oldest first. */
  of(threadId: string): string
  readonly length: number
}

export function createHistory(): History {
  const beganAt = performance.now()
  const lines: { threadId: string; text: string }[] = []
  return {
    note(threadId, client, text) {
      const at = String(Math.round(performance.now() - beganAt)).padStart(6)
      lines.push({ threadId, text: `${at} ms  ${client}  ${text}` })
    },
    of: (threadId) =>
      lines
        .filter((line) => line.threadId === threadId)
        .map(({ text }) => text)
        .join('\n'),
    get length() {
      return lines.length
    },
  }
}
