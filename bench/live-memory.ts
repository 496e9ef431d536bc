import { once } from 'node:events'
import { readFileSync } from 'node:fs'

/**
 * What a process holds in memory once its garbage is collected, in MB: a Node with room to spare lets it lie for minutes, so
 * that its size at any moment says little. The process has been started with `--inspect` on this port. Its worker threads,
 * where Temporal keeps workflows, have heaps of their own.
 */
export async function liveMemoryMb(pid: number, inspectPort: number): Promise<number> {
  const targets = (await (await fetch(`http://127.0.0.1:${inspectPort}/json`)).json()) as {
    webSocketDebuggerUrl: string
  }[]
  const socket = new WebSocket(targets[0]?.webSocketDebuggerUrl ?? '')
  await once(socket, 'open')
  try {
    const inspector = speakTo(socket)
    await inspector.call('NodeWorker.enable', { waitForDebuggerOnStart: false })
    for (const sessionId of inspector.threads()) {
      await inspector.callThread(sessionId, 'HeapProfiler.collectGarbage')
    }
    await inspector.call('HeapProfiler.collectGarbage')
  } finally {
    socket.close()
  }
  return residentMb(pid)
}

export function residentMb(pid: number): number {
  const [, kb] = /VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8')) ?? []
  return Number(kb) / 1024
}

/** The Chrome DevTools Protocol: calls are numbered, and so are those that go through to a thread. */
function speakTo(socket: WebSocket) {
  const threads: string[] = []
  const open = new Map<string, () => void>()
  let calls = 0
  socket.addEventListener('message', ({ data }) => {
    const { id, method, params } = JSON.parse(String(data)) as Message
    if (id !== undefined) open.get(`${id}`)?.()
    if (method === 'NodeWorker.attachedToWorker') threads.push(params.sessionId)
    if (method !== 'NodeWorker.receivedMessageFromWorker') return
    const inner = JSON.parse(params.message) as Message
    open.get(`${params.sessionId} ${inner.id}`)?.()
  })
  const answered = (key: string) => new Promise<void>((resolve) => open.set(key, resolve))
  const call = (method: string, params: object = {}): Promise<void> => {
    calls += 1
    const answer = answered(`${calls}`)
    socket.send(JSON.stringify({ id: calls, method, params }))
    return answer
  }
  return {
    call,
    threads: () => [...threads],
    async callThread(sessionId: string, method: string): Promise<void> {
      calls += 1
      const answer = answered(`${sessionId} ${calls}`)
      const message = JSON.stringify({ id: calls, method })
      await call('NodeWorker.sendMessageToWorker', { sessionId, message })
      await answer
    },
  }
}

interface Message {
  id?: number
  method?: string
  params: { sessionId: string; message: string }
}
