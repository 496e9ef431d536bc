import { readdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'

import type { HostPython } from '../sandbox/rootfs/host.ts'
import { finishFile, requirementsFile } from '../sandbox/rootfs/status.ts'
import { downloadDebian } from './sandbox-debian.ts'
import { otherRoots, SandboxRefusal } from './sandbox-refusal.ts'
import { outputOf, runSlowly } from './slow-command.ts'

/** Installs the pinned packages into `<into>/wheels` and makes them ready. `tell` hears percents. Throws a SandboxRefusal. */
export async function installPackages(
  python: HostPython,
  into: string,
  tell: (percent: number, message: string) => void,
): Promise<void> {
  const wheels = join(into, 'wheels')
  const scratch = join(into, 'scratch')
  const env = {
    ...process.env,
    TMPDIR: scratch,
    PIP_ROOT_USER_ACTION: 'ignore',
    PIP_USER: '0',
    PYTHONDONTWRITEBYTECODE: '1',
  }
  tell(1, 'looking for pip')
  const installer = await findInstaller(python, scratch)
  const count = countPackages()
  let collected = 0
  tell(2, 'asking for packages')
  await runSlowly(installer.command, [...installer.args(wheels), '-r', requirementsFile], {
    cwd: into,
    env,
    timeoutMs: installTimeoutMs,
    onLine: (line) => {
      const name = /^Collecting ([\w.-]+)/.exec(line)?.[1]
      if (name !== undefined) {
        const percent = 2 + Math.min(1, ++collected / count) * 58
        tell(percent, `downloading ${name}`)
      }
      if (line.startsWith('Installing collected')) tell(62, 'installing packages')
    },
  }).catch((error: Error) => {
    throw new SandboxRefusal(
      `The code interpreter's Python packages could not be installed: ${error.message}`,
      `Mend what it says (behind a proxy set HTTPS_PROXY, for an index of your own PIP_INDEX_URL) and start again, ${otherRoots}.`,
      { cause: error },
    )
  })
  // What looks for fonts finds no home, as it will inside.
  await finish(python, wheels, { ...env, HOME: scratch }, tell)
  rmSync(scratch, { recursive: true, force: true })
}

const installTimeoutMs = 30 * 60_000
const finishTimeoutMs = 10 * 60_000

async function finish(
  python: HostPython,
  wheels: string,
  env: NodeJS.ProcessEnv,
  tell: (percent: number, message: string) => void,
): Promise<void> {
  const steps = new Map([
    ['Compiling', 70],
    ['Looking for fonts', 88],
    ['Trying the packages', 94],
  ])
  await runSlowly(python.executable, ['-I', '-S', '-B', finishFile, wheels], {
    cwd: wheels,
    env,
    timeoutMs: finishTimeoutMs,
    onLine: (line) => {
      const percent = steps.get(line)
      if (percent !== undefined) tell(percent, line.toLowerCase())
    },
  }).catch((error: Error) => {
    throw new SandboxRefusal(
      `The code interpreter's Python packages do not run with ${python.executable}: ${error.message}`,
      `Complete or replace that Python (Debian, Ubuntu: apt install python3 libstdc++6), ${otherRoots}.`,
      { cause: error },
    )
  })
}

/** Each name once: other versions are for other Pythons. */
function countPackages(): number {
  const names = readFileSync(requirementsFile, 'utf8').matchAll(/^([\w.-]+)==/gm)
  return new Set(Array.from(names, ([, name]) => name)).size
}

interface Installer {
  command: string
  args(target: string): string[]
}

const exactly = ['--no-deps', '--only-binary', ':all:', '--require-hashes']

/** pip as a module, as the wheel that Python brings for new environments, or Debian's; or uv. */
async function findInstaller(python: HostPython, scratch: string): Promise<Installer> {
  const { executable } = python
  const pip = (program: string[]): Installer => ({
    command: executable,
    args: (target) => [
      ...program,
      'install',
      '--no-input',
      '--no-compile',
      '--disable-pip-version-check',
      '--progress-bar=off',
      ...exactly,
      '--target',
      target,
    ],
  })
  const runs = (program: string[]) =>
    outputOf(executable, [...program, '--version']).then(
      () => true,
      () => false,
    )
  if (await runs(['-m', 'pip'])) return pip(['-m', 'pip'])
  const bundled = await outputOf(executable, ['-I', '-c', bundledScript]).catch(() => '')
  if (bundled && (await runs([`${bundled}/pip`]))) return pip([`${bundled}/pip`])
  if (await outputOf('uv', ['--version']).catch(() => '')) {
    return {
      command: 'uv',
      args: (target) => ['pip', 'install', '--python', executable, ...exactly, '--target', target],
    }
  }
  const debian = await downloadDebian('python3-pip-whl', join(scratch, 'pip')).catch(
    () => undefined,
  )
  const folder = join(debian ?? scratch, 'usr', 'share', 'python-wheels')
  const wheel = debian && readdirSync(folder).find((name) => /^pip-.*\.whl$/.test(name))
  if (wheel && (await runs([`${join(folder, wheel)}/pip`])))
    return pip([`${join(folder, wheel)}/pip`])
  throw new SandboxRefusal(
    `The code interpreter's Python packages cannot be installed: ${executable} has no pip, and there is no uv.`,
    `Install one (Debian, Ubuntu: apt install python3-pip; Fedora: dnf install python3-pip), ${otherRoots}.`,
  )
}

const bundledScript = `
import glob, os
folders = ['/usr/share/python-wheels']
try:
    import ensurepip
    folders.insert(0, os.path.join(os.path.dirname(ensurepip.__file__), '_bundled'))
except ImportError:
    pass
print(next((wheel for folder in folders for wheel in glob.glob(os.path.join(folder, 'pip-*.whl'))), ''))`
