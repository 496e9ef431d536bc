import { mkdirSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { z } from 'zod'
import { claimPort, SYSTEM_PATH, type Children } from './children.ts'

/** Where the set-up found Chroma's server: in the npm package, or in Python's wheel. */
const Spec = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('npm'), binding: z.string() }),
  z.object({ kind: z.literal('wheel'), python: z.string(), path: z.string() }),
])

/** Starts Chroma on `<dataDir>/chroma`. `spec` is what the set-up put into LONGRUN_CHROMA. */
export async function startChroma(options: {
  children: Children
  dataDir: string
  spec: string
  port: number
}): Promise<{ url: string }> {
  const dataDir = resolve(options.dataDir)
  const path = join(dataDir, 'chroma')
  mkdirSync(path, { recursive: true })
  const port = await claimPort({ port: options.port, part: 'Chroma', variable: 'CHROMA_PORT' })
  const url = `http://127.0.0.1:${port}`
  const cli = ['run', '--path', path, '--host', '127.0.0.1', '--port', String(port)]

  await options.children.spawn({
    name: 'chroma',
    ...program(Spec.parse(JSON.parse(options.spec)), cli, dataDir),
    // It ignores SIGTERM and SIGINT. SIGKILL loses nothing that it has acknowledged.
    stop: 'SIGKILL',
    graceMs: 5_000,
    ready: (signal) => untilHeartbeat(url, signal),
    restart: true,
  })
  return { url }
}

function program(spec: z.infer<typeof Spec>, cli: string[], home: string) {
  const env = { PATH: SYSTEM_PATH, HOME: home, ANONYMIZED_TELEMETRY: 'False' }
  switch (spec.kind) {
    case 'npm': {
      const script = `require(process.argv[1]).cli(['chroma', ...process.argv.slice(2)])`
      return { command: process.execPath, args: ['-e', script, spec.binding, ...cli], env }
    }
    case 'wheel': {
      // The wheel was installed without its dependencies: only the compiled module can be imported.
      const script = `import sys, chromadb_rust_bindings as b; b.cli(['chroma', *sys.argv[1:]])`
      return {
        command: spec.python,
        args: ['-s', '-B', '-c', script, ...cli],
        env: { ...env, PYTHONPATH: spec.path },
      }
    }
    default:
      return spec satisfies never
  }
}

async function untilHeartbeat(url: string, signal: AbortSignal) {
  while (true) {
    signal.throwIfAborted()
    const answer = await fetch(`${url}/api/v2/heartbeat`, { signal }).catch(() => undefined)
    if (answer?.ok) return
    await sleep(50, undefined, { signal })
  }
}
