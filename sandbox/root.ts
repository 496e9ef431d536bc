import { existsSync, statSync } from 'node:fs'
import { resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

import { treeRoot } from './rootfs/tree.ts'
import { readStatus, statusFile, statusStaleMs } from './rootfs/status.ts'

/** How a root file system for Python is put together. */
export interface SandboxRoot {
  /** Identifies its contents. */
  version: string
  /** Read-only, in this order: a later one may lie within an earlier one. Directories or files; host path -> path inside. */
  binds: { from: string; to: string }[]
  /** E.g. /bin -> usr/bin. */
  symlinks: { target: string; path: string }[]
  /** Path inside of the interpreter. */
  python: string
  /** For the interpreter, e.g. PYTHONPATH. */
  env: Record<string, string>
  /** The docker image that is the whole root; `binds` and `symlinks` are empty then, and only docker can use it. */
  image?: string
}

export type RootState =
  | {
      state: 'ready'
      root: SandboxRoot
      /** A bubblewrap that runs: the installed one, or the one in the cache. */
      bwrapPath: string | undefined
    }
  /** `progress` is for people: "62 %, downloading scipy". */
  | { state: 'building'; progress: string }
  /** Both are sentences for whoever runs the server. */
  | { state: 'failed'; why: string; remedy: string }

export type SettledRoot = Exclude<RootState, { state: 'building' }>

export interface RootOptions {
  /** Where set-up builds: `<user cache>/longrun`. */
  cacheDir: string
  /** A directory made by rootfs/debootstrap.sh, in place of what set-up builds. */
  directory: string | undefined
  /** An image made from rootfs/Dockerfile, in place of what set-up builds. */
  image: string | undefined
}

export interface RootBuild {
  /** What there is now. Reads a few names of the file system: cheap enough to ask often. */
  state(): RootState
  /** Waits while it is being built; `tell` hears each change of the progress. Rejects when the signal is aborted. */
  wait(signal: AbortSignal, tell?: (progress: string) => void): Promise<SettledRoot>
}

/** The root file system that set-up builds in the background (local/sandbox-root.ts), or the one that the options name. */
export function openRoot(options: RootOptions): RootBuild {
  const file = statusFile(options.cacheDir)
  const state = (): RootState => currentState(options, file)
  return {
    state,
    async wait(signal, tell) {
      for (let told = ''; ; await sleep(pollMs, undefined, { signal })) {
        signal.throwIfAborted()
        const current = state()
        if (current.state !== 'building') return current
        if (current.progress !== told) tell?.(current.progress)
        told = current.progress
      }
    },
  }
}

/** The root that is there; undefined while it is not built. */
export function findRoot(options: RootOptions): SandboxRoot | undefined {
  const current = openRoot(options).state()
  return current.state === 'ready' ? current.root : undefined
}

const pollMs = 200
const again = 'Start again with `npm start`, which builds it, or set SANDBOX_ROOT or SANDBOX_IMAGE.'
const onlyImage =
  'Build an image from sandbox/rootfs/Dockerfile, and set SANDBOX_IMAGE to its name.'

function currentState({ directory, image }: RootOptions, file: string): RootState {
  const status = readStatus(file)
  const bwrapPath = status && 'bwrapPath' in status ? existing(status.bwrapPath) : undefined
  if (image !== undefined) return { state: 'ready', root: imageRoot(image), bwrapPath }
  const isAtWork = status?.state === 'building' && !isStale(file)
  // With a directory, bubblewrap is still looked for.
  if (isAtWork) return { state: 'building', progress: `${status.percent} %, ${status.message}` }
  if (directory !== undefined) return directoryState(directory, bwrapPath)
  if (process.platform !== 'linux') {
    return failed(
      'The code interpreter can use the Python of this machine only on Linux.',
      onlyImage,
    )
  }
  if (!status) {
    return failed('The Python of the code interpreter has not been set up.', again)
  }
  switch (status.state) {
    case 'ready': {
      if (!status.root) return failed('The Python of the code interpreter was not built.', again)
      const gone = status.root.binds.find(({ from }) => !existsSync(from))
      if (gone)
        return failed(`The code interpreter's Python is incomplete: ${gone.from} is gone.`, again)
      return { state: 'ready', root: status.root, bwrapPath }
    }
    case 'building':
      return failed('The set-up of Python for the code interpreter was interrupted.', again)
    case 'failed':
      return failed(status.why, status.remedy)
    default:
      return status satisfies never
  }
}

function directoryState(directory: string, bwrapPath: string | undefined): RootState {
  const root = treeRoot(resolve(directory))
  if (root) return { state: 'ready', root, bwrapPath }
  return failed(
    `SANDBOX_ROOT is ${directory}, in which there is no /usr/bin/python3 or no /opt/wheels.`,
    'Make it with sandbox/rootfs/debootstrap.sh, or unset SANDBOX_ROOT for the Python of this machine.',
  )
}

/** The layout of rootfs/Dockerfile. */
function imageRoot(image: string): SandboxRoot {
  return {
    version: `image ${image}`,
    image,
    binds: [],
    symlinks: [],
    python: '/usr/local/bin/python3',
    env: { PYTHONPATH: '/opt/wheels', PYTHONNOUSERSITE: '1' },
  }
}

const failed = (why: string, remedy: string): RootState => ({ state: 'failed', why, remedy })

/** The builder says something every second: one that was killed or lost its machine does not. */
function isStale(file: string): boolean {
  const status = statSync(file, { throwIfNoEntry: false })
  return !status || Date.now() - status.mtimeMs > statusStaleMs
}

const existing = (path: string | undefined): string | undefined =>
  path !== undefined && existsSync(path) ? path : undefined
