import { randomBytes } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync } from 'node:fs'
import { homedir, setPriority } from 'node:os'
import { join } from 'node:path'

import type { SandboxRoot } from '../sandbox/root.ts'
import { hostRoot } from '../sandbox/rootfs/host.ts'
import {
  readStatus,
  recipeVersion,
  statusFile,
  writeStatus,
  type RootStatus,
} from '../sandbox/rootfs/status.ts'
import { takeBuildLock } from './build-lock.ts'
import { ensureBubblewrap } from './sandbox-bubblewrap.ts'
import { makeEtc } from './sandbox-etc.ts'
import { installPackages } from './sandbox-packages.ts'
import { findHostPython } from './sandbox-python.ts'
import { SandboxRefusal } from './sandbox-refusal.ts'

/**
 * Builds the sandbox's root file system in the user's cache: `node local/sandbox-root.ts [--wait]`.
 * Without --wait, as set-up starts it beside the server, it says one line as soon as its state can be read
 * (sandbox/root.ts), and leaves the work to another builder that is at it. Uses no npm packages: it runs beside `npm ci`.
 */
async function main(): Promise<void> {
  const waits = process.argv.includes('--wait')
  // The sandbox's user reads what this one writes.
  process.umask(0o022)
  const cacheDir = process.env['LONGRUN_CACHE'] ?? defaultCache()
  mkdirSync(cacheDir, { recursive: true })
  using lock = await takeBuildLock(join(cacheDir, `sandbox-${recipeVersion()}`), waits)
  const say = (line: string) => !waits && process.stdout.write(`${line}\n`)
  if (!lock.isHeld) {
    say('another builder is at it')
    return
  }
  const status = await build(cacheDir, waits, say)
  if (waits && status.state === 'failed') {
    process.stderr.write(`${status.why}\n${status.remedy}\n`)
    process.exitCode = 1
  }
}

const defaultCache = (): string =>
  join(process.env['XDG_CACHE_HOME'] || join(homedir(), '.cache'), 'longrun')

async function build(
  cacheDir: string,
  waits: boolean,
  say: (line: string) => void,
): Promise<RootStatus> {
  const file = statusFile(cacheDir)
  const isElsewhere = Boolean(process.env['SANDBOX_ROOT'])
  using progress = createProgress(file)
  // What was built stays in use while it is looked at.
  if (!isReady(file, isElsewhere)) progress.begin()
  say('the state can be read')
  // Beside a server it stands back.
  if (!waits) setPriority(10)

  const bubblewrap = ensureBubblewrap(cacheDir)
  const outcome = await outcomeOf(async () =>
    isElsewhere ? undefined : await ensureHostRoot(cacheDir, progress),
  )
  const status = { ...outcome, bwrapPath: await bubblewrap }
  progress.end()
  writeStatus(file, status)
  return status
}

type Outcome =
  | { state: 'ready'; root: SandboxRoot | undefined }
  | { state: 'failed'; why: string; remedy: string }

async function outcomeOf(work: () => Promise<SandboxRoot | undefined>): Promise<Outcome> {
  try {
    return { state: 'ready', root: await work() }
  } catch (error) {
    if (error instanceof SandboxRefusal) {
      return { state: 'failed', why: error.message, remedy: error.remedy }
    }
    const why = error instanceof Error ? error.message : String(error)
    return { state: 'failed', why, remedy: 'Mend that and start again.' }
  }
}

function isReady(file: string, isElsewhere: boolean): boolean {
  const status = readStatus(file)
  return status?.state === 'ready' && (isElsewhere || status.root !== undefined)
}

/** The root in the cache, which is whole or not there. */
async function ensureHostRoot(cacheDir: string, progress: Progress): Promise<SandboxRoot> {
  const python = await findHostPython()
  const recipe = recipeVersion()
  const name = `sandbox-${recipe}-py${python.version}-${process.arch}`
  const dir = join(cacheDir, name)
  if (!existsSync(dir)) {
    progress.begin()
    // We hold the lock: other beginnings can only be what was interrupted.
    for (const entry of readdirSync(cacheDir)) {
      if (entry.startsWith(`.new-${name}-`)) remove(join(cacheDir, entry))
    }
    const work = join(cacheDir, `.new-${name}-${randomBytes(4).toString('hex')}`)
    mkdirSync(join(work, 'empty'), { recursive: true })
    try {
      makeEtc(join(work, 'etc'), python)
      await installPackages(python, work, progress.tell)
      renameSync(work, dir)
    } finally {
      remove(work)
    }
  }
  return hostRoot(python, dir, `${recipe}-py${python.release}`)
}

const remove = (path: string) => rmSync(path, { recursive: true, force: true })

interface Progress {
  begin(): void
  tell: (percent: number, message: string) => void
  end(): void
}

/** Writes the state once a second, also when nothing changes: its age tells that somebody is at work. */
function createProgress(file: string): Progress & Disposable {
  let current = { percent: 1, message: 'beginning' }
  let beat: NodeJS.Timeout | undefined
  const write = () => writeStatus(file, { state: 'building', ...current })
  const end = () => {
    clearInterval(beat)
    beat = undefined
  }
  return {
    begin() {
      if (beat) return
      write()
      beat = setInterval(write, 1000)
    },
    tell(percent, message) {
      current = { percent: Math.round(percent), message }
    },
    end,
    [Symbol.dispose]: end,
  }
}

await main()
