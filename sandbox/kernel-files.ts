import { join } from 'node:path'

import type { SandboxRoot } from './root.ts'

/** The programs of the supervisor, on the host. */
export const kernelDir = join(import.meta.dirname, 'python')

/** Where every provider binds `kernelDir`, read-only. */
export const KERNEL_PATH = '/kernel'

/** Starts the supervisor inside. It needs the standard library only, and no variable changes how it is found. */
export function supervisorArgv(root: SandboxRoot): string[] {
  return [root.python, '-I', '-S', '-B', '-u', `${KERNEL_PATH}/supervisor.py`]
}

/** The whole environment inside; the interpreter's own variables (PYTHONPATH ...) come from the root. */
export function insideEnv(root: SandboxRoot): Record<string, string> {
  const bin = root.python.slice(0, root.python.lastIndexOf('/'))
  return {
    HOME: '/home/sandbox',
    USER: 'sandbox',
    LOGNAME: 'sandbox',
    PATH: [...new Set([bin, '/usr/bin', '/bin'])].join(':'),
    LANG: 'C.UTF-8',
    LC_ALL: 'C.UTF-8',
    TZ: 'UTC',
    TERM: 'dumb',
    TMPDIR: '/tmp',
    MPLBACKEND: 'agg',
    MPLCONFIGDIR: '/home/sandbox/.config/matplotlib',
    FONT_CACHE: '/opt/wheels/.matplotlib',
    // One thread each: BLAS would start as many as the host has cores, in every fork.
    OPENBLAS_NUM_THREADS: '1',
    OMP_NUM_THREADS: '1',
    MKL_NUM_THREADS: '1',
    PYTHONDONTWRITEBYTECODE: '1',
    ...root.env,
  }
}
